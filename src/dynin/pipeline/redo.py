"""Doing a part again: a box of a picture, a stretch of a sound, some words of a text.

Enters: the part, and the picture, sound or text to be corrected. Leaves: its codes and which of them touch the part;
then, from corrected codes, a value that equals the original outside the part. Does not know networks or tasks.

    original --encode--> codes, those that touch the part hidden --model--> codes --decode--> value
    result = value inside the part, blended over the margin, and the original everywhere else, bit for bit

A picture of any size is corrected on its centre square, scaled to the tokenizer's size; the box must lie in that
square. Neither sound nor text changes its length in codes. Text has no margin.
"""

import math
import re
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor

from dynin.errors import RequestError
from dynin.media import audio as sounds
from dynin.media import image as pictures
from dynin.media.audio import Audio
from dynin.tokenizers.bundle import Tokenizers, Value
from dynin.types import Modality


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Opened:
    """The codes of an original, and which of them are to be made again."""

    codes: Int[Tensor, " N"]
    is_open: Bool[Tensor, " N"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RedoBox:
    """A box of a picture, in pixels of the original."""

    modality: ClassVar[Modality] = Modality.IMAGE
    x: int
    y: int
    width: int
    height: int
    source: object = None
    """The picture to be corrected; None takes the one that was given with the request."""
    margin_px: int = 2
    """Width of the frame around the box in which old and new are blended."""
    size_px: int | None = None
    """Side at which the model sees the picture; None takes the tokenizer's."""

    def open(self, tokenizers: Tokenizers, original: Value) -> Opened:
        """Hide every cell that the box touches; RequestError for a box outside the centre square."""
        assert isinstance(original, Tensor)
        left, top, side = _centre_square(original)
        x, y = self.x - left, self.y - top
        if self.width < 1 or self.height < 1 or min(x, y) < 0 or max(x + self.width, y + self.height) > side:
            raise RequestError(
                f"the box x,y,w,h = {self.x},{self.y},{self.width},{self.height} was given, expected one inside the "
                f"square of {side} pixels at {left},{top}, which is what the model sees of this picture"
            )
        size_px, cell_px = self.size_px or tokenizers.image.image_size, tokenizers.image.downsample
        rows, columns = tokenizers.image.grid(size_px, size_px)
        is_row = _touched(y, y + self.height, rows, cell_px * side / size_px)
        is_column = _touched(x, x + self.width, columns, cell_px * side / size_px)
        codes = tokenizers.encode(Modality.IMAGE, original, size_px)
        assert isinstance(codes, Tensor)
        return Opened(codes=codes, is_open=(is_row[:, None] & is_column[None, :]).flatten())

    def merge(self, tokenizers: Tokenizers, original: Value, codes: Int[Tensor, " N"]) -> Value:
        """The original with the box, and its margin, from the codes."""
        made = tokenizers.decode(Modality.IMAGE, codes)
        assert isinstance(original, Tensor)
        assert isinstance(made, Tensor)
        left, top, side = _centre_square(original)
        patch = original.clone()
        patch[:, top : top + side, left : left + side] = _scale(made, side)
        return pictures.paste(original, patch, (self.x, self.y, self.width, self.height), self.margin_px)


@dataclass(frozen=True, kw_only=True, slots=True)
class RedoSeconds:
    """A stretch of a sound, in seconds from its beginning."""

    modality: ClassVar[Modality] = Modality.SPEECH
    start_s: float
    stop_s: float
    source: object = None
    """The sound to be corrected; None takes the one that was given with the request."""
    margin_s: float = 0.02
    """Length of the cross-fades before and after the stretch."""

    def open(self, tokenizers: Tokenizers, original: Value) -> Opened:
        """Hide every code whose time the stretch touches; RequestError for a stretch outside the sound."""
        assert isinstance(original, Audio)
        if not 0 <= self.start_s < self.stop_s <= original.duration_s:
            raise RequestError(
                f"the stretch {self.start_s} s to {self.stop_s} s was given, expected a part of the sound's "
                f"{original.duration_s:.2f} seconds"
            )
        codes = tokenizers.encode(Modality.SPEECH, original)
        assert isinstance(codes, Tensor)
        is_open = _touched(self.start_s, self.stop_s, codes.numel(), 1 / tokenizers.speech.frame_rate_hz)
        return Opened(codes=codes, is_open=is_open)

    def merge(self, tokenizers: Tokenizers, original: Value, codes: Int[Tensor, " N"]) -> Value:
        """The original with the stretch, as loud as the original, cross-faded over the margins."""
        made = tokenizers.decode(Modality.SPEECH, codes)
        assert isinstance(original, Audio)
        assert isinstance(made, Audio)
        level = _loudness(original.samples) / max(_loudness(made.samples), 1e-6)
        made = sounds.resample(replace(made, samples=(made.samples * level).clamp(-1, 1)), original.rate_hz)
        missing = original.samples.numel() - made.samples.numel()
        if missing > 0:
            made = replace(made, samples=torch.nn.functional.pad(made.samples, (0, missing)))
        return sounds.splice(original, made, self.start_s, self.stop_s, self.margin_s)


@dataclass(frozen=True, kw_only=True, slots=True)
class RedoWords:
    """Words of a text, counted from 1, the last one included."""

    modality: ClassVar[Modality] = Modality.TEXT
    first: int
    last: int
    source: object = None
    """The text to be corrected."""

    def open(self, tokenizers: Tokenizers, original: Value) -> Opened:
        """Hide the ids of the words and of the space before them; RequestError for words that are not there."""
        before, middle, after = self._cut(original)
        counts = [len(tokenizers.text.encode(part)) for part in (before, middle, after)]
        ids = [token_id for part in (before, middle, after) for token_id in tokenizers.text.encode(part)]
        at = torch.arange(len(ids))
        return Opened(codes=torch.tensor(ids), is_open=(at >= counts[0]) & (at < counts[0] + counts[1]))

    def merge(self, tokenizers: Tokenizers, original: Value, codes: Int[Tensor, " N"]) -> Value:
        """The original text with new words between the same spaces; all other characters stay."""
        before, middle, after = self._cut(original)
        start, stop = len(tokenizers.text.encode(before)), codes.numel() - len(tokenizers.text.encode(after))
        made = tokenizers.decode(Modality.TEXT, codes[start:stop])
        assert isinstance(made, str)
        space = middle[: len(middle) - len(middle.lstrip())]
        return before + space + " ".join(made.split()) + after

    def _cut(self, original: Value) -> tuple[str, str, str]:
        """The text before the words, the words with the space before them, and the rest."""
        assert isinstance(original, str)
        words = [match.span() for match in re.finditer(r"\S+", original)]
        if not 1 <= self.first <= self.last <= len(words):
            raise RequestError(
                f"the words {self.first} to {self.last} were given, expected some of the text's {len(words)} words, "
                "counted from 1"
            )
        start = words[self.first - 2][1] if self.first > 1 else 0
        stop = words[self.last - 1][1]
        return original[:start], original[start:stop], original[stop:]


Redo = RedoBox | RedoSeconds | RedoWords

_NUMBER = r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*"
_FORMS = "x,y,w,h in pixels, 1.2s-2.0s, or words:3-5; each may end with @FILE, the file to be corrected"


def parse_redo(text: str) -> Redo:
    """A part written as words: `8,0,32,64`, `1.2s-2.0s` or `words:3-5`, with `@FILE` behind it for its own file.

    Raises:
        RequestError: If it is none of these.
    """
    part, _, path = text.partition("@")
    source = path or None
    if found := re.fullmatch(r"\s*(\d{1,6})\s*,\s*(\d{1,6})\s*,\s*(\d{1,6})\s*,\s*(\d{1,6})\s*", part):
        x, y, width, height = map(int, found.groups())
        return RedoBox(x=x, y=y, width=width, height=height, source=source)
    if found := re.fullmatch(f"{_NUMBER}s\\s*-{_NUMBER}s\\s*", part):
        start, stop = map(float, found.groups())
        return RedoSeconds(start_s=start, stop_s=stop, source=source)
    if found := re.fullmatch(r"\s*words:\s*(\d{1,6})\s*-\s*(\d{1,6})\s*", part):
        first, last = map(int, found.groups())
        return RedoWords(first=first, last=last, source=source)
    raise RequestError(f"redo {part!r} is no part of a file; write {_FORMS}")


def _touched(start: float | int, stop: float | int, count: int, size: float) -> Bool[Tensor, " N"]:
    """Which of `count` neighbouring stretches of one size meet [start, stop)."""
    at = torch.arange(count)
    return (at >= math.floor(start / size + 1e-9)) & (at < math.ceil(stop / size - 1e-9))


def _centre_square(pixels: Float[Tensor, "3 Y X"]) -> tuple[int, int, int]:
    """Left, top and side of the square that is cut from a picture."""
    height, width = pixels.shape[-2:]
    side = min(height, width)
    return round((width - side) / 2), round((height - side) / 2), side


def _scale(pixels: Float[Tensor, "3 Y X"], side: int) -> Float[Tensor, "3 side side"]:
    """A square picture at another size."""
    if pixels.shape[-1] == side:
        return pixels
    return pictures.from_pil(pictures.to_pil(pixels).resize((side, side), Image.Resampling.BICUBIC))


def _loudness(samples: Float[Tensor, " T"]) -> float:
    """Root mean square."""
    return float(samples.square().mean().sqrt()) if samples.numel() else 0.0
