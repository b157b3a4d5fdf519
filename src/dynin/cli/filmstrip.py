"""How a canvas filled in, as pictures: what is hidden is grey, what was hidden again is red.

Enters: the trace of a result and the tokenizers that read its codes. Leaves: pictures of Pillow, a GIF. Does not know
how decisions were made.
"""

import colorsys
import math
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import torch
from jaxtyping import Int
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from dynin.errors import RequestError
from dynin.media import image as pictures
from dynin.media.audio import Audio
from dynin.media.files import replace_whole
from dynin.pipeline.result import ENDED, HIDDEN, Result, Snapshot
from dynin.tokenizers.bundle import Tokenizers
from dynin.types import Modality

FRAME_MS, LAST_FRAME_MS = 140, 2000
MOST_FRAMES = 60
CELL_GREYS = ((206, 208, 214), (190, 193, 201))
AGAIN_COLOUR = (224, 60, 60)
INK, PAPER, FAINT = (28, 30, 38), (250, 250, 252), (170, 173, 182)


def write_gif(path: Path, result: Result, tokenizers: Tokenizers) -> None:
    """An animation of the trace; its last frame stays for two seconds.

    Raises:
        RequestError: If the result keeps no trace.
        MediaError: If the file cannot be written.
    """
    if not result.trace:
        raise RequestError("the result keeps no trace; ask for it with trace=True")
    frames = [draw(snapshot, result, tokenizers) for snapshot in choose(result.trace, MOST_FRAMES)]
    width, height = (max(frame.size[axis] for frame in frames) for axis in (0, 1))
    same = [_on_paper(frame, width, height) for frame in frames]
    with replace_whole(path) as temporary:
        same[0].save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=same[1:],
            duration=[*[FRAME_MS] * (len(same) - 1), LAST_FRAME_MS],
            loop=0,
        )


def choose(trace: Sequence[Snapshot], count: int) -> list[Snapshot]:
    """At most so many snapshots, evenly spread, the last one among them."""
    if len(trace) <= count:
        return list(trace)
    return [trace[round(at * (len(trace) - 1) / (count - 1))] for at in range(count)]


def draw(snapshot: Snapshot, result: Result, tokenizers: Tokenizers, cell_px: int = 64) -> Image.Image:
    """One step as a picture: a canvas of cells, words with dots, or a bar of codes under the sound."""
    match snapshot.modality:
        case Modality.IMAGE:
            return _canvas(snapshot.codes, snapshot, tokenizers, cell_px)
        case Modality.VIDEO:
            return _frames(snapshot, tokenizers, cell_px // 2)
        case Modality.SPEECH:
            return _bar(snapshot, result.audio, cell_px * 10, cell_px * 2)
        case _:
            return _words(snapshot.text or "")


def _canvas(codes: Int[Tensor, " N"], snapshot: Snapshot, tokenizers: Tokenizers, cell_px: int) -> Image.Image:
    """A partly hidden picture; hidden cells take the commonest decided code, so that they tell nothing, and go grey."""
    rows = columns = math.isqrt(len(codes))
    is_hidden = codes == HIDDEN
    filler = codes[~is_hidden].mode().values if bool((~is_hidden).any()) else torch.tensor(0)
    pixels = tokenizers.decode(Modality.IMAGE, torch.where(is_hidden, filler, codes))
    assert isinstance(pixels, Tensor)
    picture = pictures.to_pil(pixels).resize((columns * cell_px, rows * cell_px), Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(picture)
    for place in range(rows * columns):
        row, column = divmod(place, columns)
        box = (column * cell_px, row * cell_px, (column + 1) * cell_px - 1, (row + 1) * cell_px - 1)
        is_again = len(codes) == len(snapshot.is_remasked) and bool(snapshot.is_remasked[place])
        if bool(is_hidden[place]):
            pen.rectangle(box, fill=CELL_GREYS[(row + column) % 2])
        if is_again:
            pen.rectangle(box, outline=AGAIN_COLOUR, width=max(2, cell_px // 16))
    return picture


def _frames(snapshot: Snapshot, tokenizers: Tokenizers, cell_px: int) -> Image.Image:
    """The frames of a partly hidden video side by side."""
    parts = snapshot.codes.reshape(tokenizers.video.num_frames, -1)
    frames = [_canvas(part, snapshot, tokenizers, cell_px) for part in parts]
    return beside(frames, gap_px=cell_px // 4)


def _bar(snapshot: Snapshot, sound: Audio | None, width: int, height: int) -> Image.Image:
    """The codes of a sound as coloured stripes below its final waveform; what is not decided is grey."""
    picture = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(picture)
    count, middle = max(1, len(snapshot.codes)), height * 3 // 8
    if sound is not None and sound.samples.numel():
        num_columns = max(1, width * sound.samples.numel() // _span(snapshot, sound))
        parts = sound.samples.abs().tensor_split(min(num_columns, width))
        for at, part in enumerate(parts):
            reach = int(float(part.max()) * middle) if part.numel() else 0
            pen.line((at, middle - reach, at, middle + reach), fill=FAINT)
    for place, code in enumerate(snapshot.codes.tolist()):
        left, right = place * width // count, max(place * width // count, (place + 1) * width // count - 2)
        pen.rectangle((left, 2 * middle + 2, right, height - 1), fill=_stripe(code))
    return picture


def _span(snapshot: Snapshot, sound: Audio) -> int:
    """Samples that the whole bar stands for, the places after the end included."""
    num_made = int((snapshot.codes != ENDED).sum())
    return max(1, sound.samples.numel() * len(snapshot.codes) // max(1, num_made))


def _stripe(code: int) -> tuple[int, int, int]:
    if code == HIDDEN:
        return CELL_GREYS[0]
    if code == ENDED:
        return PAPER
    red, green, blue = colorsys.hls_to_rgb((code * 0.618034) % 1.0, 0.55, 0.6)
    return int(red * 255), int(green * 255), int(blue * 255)


def _words(text: str, width: int = 640, size_px: int = 24) -> Image.Image:
    """Words, wrapped; dots stand for what is hidden."""
    font = ImageFont.load_default(size=size_px)
    lines = wrap(text, font, width - 32) or [""]
    picture = Image.new("RGB", (width, 32 + len(lines) * (size_px + 8)), PAPER)
    pen = ImageDraw.Draw(picture)
    for at, line in enumerate(lines):
        left = 16.0
        for is_hidden, group in groupby(line, key=lambda letter: letter == "\u00b7"):
            part = "".join(group)
            pen.text((left, 16 + at * (size_px + 8)), part, font=font, fill=FAINT if is_hidden else INK)
            left += pen.textlength(part, font=font)
    return picture


def wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: int) -> list[str]:
    """Lines no wider than so many pixels, broken between words, and inside a word that is too long alone."""
    lines: list[str] = []
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(joined) <= width_px:
            lines[-1] = joined
            continue
        rest = word
        while font.getlength(rest) > width_px:
            cut = next(at for at in range(len(rest), 0, -1) if font.getlength(rest[:at]) <= width_px or at == 1)
            lines.append(rest[:cut])
            rest = rest[cut:]
        lines.append(rest)
    return lines


def beside(parts: Sequence[Image.Image], gap_px: int) -> Image.Image:
    """Pictures of any size side by side on nothing."""
    width = sum(part.width for part in parts) + gap_px * (len(parts) - 1)
    whole = Image.new("RGBA", (width, max(part.height for part in parts)), (0, 0, 0, 0))
    left = 0
    for part in parts:
        whole.paste(part, (left, 0))
        left += part.width + gap_px
    return whole


def below(parts: Sequence[Image.Image], gap_px: int) -> Image.Image:
    """Pictures of any size one below the other on nothing."""
    height = sum(part.height for part in parts) + gap_px * (len(parts) - 1)
    whole = Image.new("RGBA", (max(part.width for part in parts), height), (0, 0, 0, 0))
    top = 0
    for part in parts:
        whole.paste(part, (0, top))
        top += part.height + gap_px
    return whole


def _on_paper(picture: Image.Image, width: int, height: int) -> Image.Image:
    whole = Image.new("RGB", (width, height), PAPER)
    whole.paste(picture, (0, 0), picture if picture.mode == "RGBA" else None)
    return whole
