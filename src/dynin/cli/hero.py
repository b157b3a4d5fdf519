"""One wide picture for the README: words, the canvas filling in, what came out.

Enters: cases with their results. Leaves: a PNG. Does not know the gallery.
"""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from dynin.cli import filmstrip
from dynin.cli.cases import Case
from dynin.errors import MediaError
from dynin.media import image as pictures
from dynin.media.files import replace_whole
from dynin.pipeline.result import Result
from dynin.tokenizers.bundle import Tokenizers
from dynin.types import Modality

WIDTH_PX, ROW_PX, MARGIN_PX, TEXT_PX = 1600, 208, 32, 360
TASKS = ("t2i", "i2i", "i2t", "t2v")
STEPS = 5


def write_hero(path: Path, done: Sequence[tuple[Case, Result]], tokenizers: Tokenizers) -> None:
    """Compose one row for each of a few tasks; MediaError if the file is no PNG or cannot be written."""
    if path.suffix.lower() != ".png":
        raise MediaError(f"{path}: the wide picture is a PNG; choose a name that ends with .png")
    rows = [next(one for one in done if one[1].task == task) for task in TASKS]
    height = MARGIN_PX + len(rows) * (ROW_PX + MARGIN_PX)
    whole = Image.new("RGB", (WIDTH_PX, height), filmstrip.PAPER)
    for at, (case, result) in enumerate(rows):
        _draw_row(whole, MARGIN_PX + at * (ROW_PX + MARGIN_PX), case, result, tokenizers)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_whole(path) as temporary:
        whole.save(temporary, format="PNG", optimize=True)


def _draw_row(whole: Image.Image, top: int, case: Case, result: Result, tokenizers: Tokenizers) -> None:
    """Words on the left, a given picture beside them, steps in the middle, the result on the right."""
    pen = ImageDraw.Draw(whole)
    prompt = str(case.given.get(Modality.TEXT, case.spoken or ""))
    _write(pen, (MARGIN_PX, top), prompt, TEXT_PX, centre_px=ROW_PX)
    left = MARGIN_PX + TEXT_PX + MARGIN_PX
    picture = case.given.get(Modality.IMAGE)
    if picture is not None:
        whole.paste(_square(pictures.to_pil(picture)), (left, top))  # type: ignore[arg-type]
        left += ROW_PX + MARGIN_PX
    steps = [step for step in result.trace or () if step.modality == result.modality]
    room = WIDTH_PX - MARGIN_PX - left
    if result.modality == Modality.TEXT:
        chosen = filmstrip.choose(steps, STEPS)
        for at, step in enumerate(chosen):
            _write(pen, (left, top + at * ROW_PX // STEPS), (step.text or "")[:80], room, size_px=22)
        return
    if result.modality == Modality.IMAGE:
        count = max(2, room // (ROW_PX + MARGIN_PX // 2))
        chosen = filmstrip.choose(steps, count)
        parts = [filmstrip.draw(step, result, tokenizers, ROW_PX // 4) for step in chosen]
    else:
        parts = [filmstrip.draw(steps[-1], result, tokenizers, ROW_PX // 2)]
    gap = MARGIN_PX // 2
    for part in parts:
        scaled = part.resize((round(part.width * ROW_PX / part.height), ROW_PX), Image.Resampling.LANCZOS)
        whole.paste(scaled, (left, top), scaled if scaled.mode == "RGBA" else None)
        left += scaled.width + gap


def _write(
    pen: ImageDraw.ImageDraw,
    place: tuple[int, int],
    text: str,
    width_px: int,
    *,
    size_px: int = 30,
    centre_px: int | None = None,
) -> None:
    """Wrapped words at a place, centred in a height if one is given."""
    font = ImageFont.load_default(size=size_px)
    lines = filmstrip.wrap(text, font, width_px)
    step = round(size_px * 1.35)
    left, top = place
    if centre_px is not None:
        top += max(0, (centre_px - len(lines) * step) // 2)
    for at, line in enumerate(lines):
        pen.text((left, top + at * step), line, font=font, fill=filmstrip.INK)


def _square(picture: Image.Image) -> Image.Image:
    return picture.resize((ROW_PX, ROW_PX), Image.Resampling.LANCZOS)
