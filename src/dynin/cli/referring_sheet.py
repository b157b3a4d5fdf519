"""What referring videos and stills look like: every sentence as a sheet of frames and an animation, its masks outlined.

Enters: referring examples. Leaves: PNG and GIF files and `sentences.jsonl`. Does not know where examples come from.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw, ImageFont

from dynin.data.referring.example import ReferringExample
from dynin.errors import DataError
from dynin.media.files import replace_whole

SHEET_FRAMES = 8
FRAME_MS = 125
GAP_PX, LINE_PX = 4, 22
PAPER, INK = (250, 250, 252), (28, 30, 38)
INNER, OUTER = (255, 255, 255), (230, 0, 120)
"""Two lines, so that an outline is seen on every background."""


def write_sheets(examples: Iterable[ReferringExample], output: Path) -> int:
    """Draw every example, and list all in `sentences.jsonl`; a still gets no animation.

    Returns:
        How many sentences there are.
    Raises:
        MediaError: If a file cannot be written.
        DataError: If a frame or a mask cannot be read.
    """
    lines = []
    for example in examples:
        stem = f"{example.video}-{example.sentence_id}"
        frames = [_outlined(example, index) for index in range(len(example))]
        areas = [int(_mask(example, index).sum()) for index in range(len(example))]
        with replace_whole(output / f"{stem}.png") as temporary:
            _sheet(frames, example).save(temporary)
        if len(frames) > 1:
            with replace_whole(output / f"{stem}.gif") as temporary:
                _animate(frames, temporary)
        line = {
            "video": example.video,
            "sentence": example.sentence,
            "family": example.family,
            "sheet": f"{stem}.png",
            "visible_px": areas,
        }
        lines.append(json.dumps(line) + "\n")
    with replace_whole(output / "sentences.jsonl") as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")
    return len(lines)


def _mask(example: ReferringExample, index: int) -> Bool[np.ndarray, "Y X"]:
    if example.read_mask is None:
        raise DataError(f"video {example.video!r}, sentence {example.sentence_id!r}: its masks are not public")
    return example.read_mask(index)


def _outlined(example: ReferringExample, index: int) -> Image.Image:
    """A frame, enlarged, with a line around what is meant."""
    frame, mask = example.read_frame(index), _mask(example, index)
    factor = max(1, 192 // max(example.height, example.width))
    large: UInt8[np.ndarray, "Y X 3"] = frame.repeat(factor, axis=0).repeat(factor, axis=1)
    inside = mask.repeat(factor, axis=0).repeat(factor, axis=1)
    inner, outer = _grown(inside), _grown(_grown(inside))
    large[outer & ~inner] = OUTER
    large[inner & ~inside] = INNER
    return Image.fromarray(large)


def _grown(mask: Bool[np.ndarray, "Y X"]) -> Bool[np.ndarray, "Y X"]:
    """The mask and its neighbours."""
    grown = mask.copy()
    grown[1:] |= mask[:-1]
    grown[:-1] |= mask[1:]
    grown[:, 1:] |= mask[:, :-1]
    grown[:, :-1] |= mask[:, 1:]
    return grown


def _sheet(frames: list[Image.Image], example: ReferringExample) -> Image.Image:
    """Some frames in a row, evenly spread, with the sentence above them."""
    count = min(SHEET_FRAMES, len(frames))
    places = sorted({round(at * (len(frames) - 1) / max(count - 1, 1)) for at in range(count)})
    font = ImageFont.load_default(size=14)
    text = f"{example.family}: {example.sentence}"
    width, height = frames[0].size
    total = max(len(places) * (width + GAP_PX) + GAP_PX, int(font.getlength(text)) + 2 * GAP_PX)
    sheet = Image.new("RGB", (total, height + LINE_PX + 2 * GAP_PX), PAPER)
    ImageDraw.Draw(sheet).text((GAP_PX, GAP_PX), text, fill=INK, font=font)
    for column, place in enumerate(places):
        sheet.paste(frames[place], (GAP_PX + column * (width + GAP_PX), LINE_PX + GAP_PX))
    return sheet


def _animate(frames: list[Image.Image], path: Path) -> None:
    frames[0].save(path, format="GIF", save_all=True, append_images=frames[1:], duration=FRAME_MS, loop=0)
