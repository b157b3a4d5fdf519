"""Published tokenizers that are read when they are first needed: a chat needs neither pictures nor voices.

Enters: what is known of a tokenizer without its weights, and a function that reads it. Leaves: the protocols of
`tokenizers.protocol`. Does not know files.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dynin.errors import MediaError
from dynin.media.audio import Audio
from dynin.tokenizers.protocol import ImageTokenizer, SpeechTokenizer


@dataclass(kw_only=True, slots=True, eq=False)
class DeferredImage:
    """A `tokenizers.protocol.ImageTokenizer`."""

    load: Callable[[], ImageTokenizer]
    codebook_size: int
    downsample: int
    image_size: int
    _read: ImageTokenizer | None = field(default=None, init=False)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of codes; MediaError for sides that are no multiples of a cell."""
        cell = self.downsample
        if height < cell or width < cell or height % cell or width % cell:
            raise MediaError(
                f"picture is {width} x {height} px, expected sides that are multiples of {cell}; resize it"
            )
        return height // cell, width // cell

    def encode(self, pixels: Float[Tensor, "B 3 Y X"]) -> Int[Tensor, "B N"]:
        """Pixels in [-1, 1] to codes in raster order."""
        return self.inner().encode(pixels)

    def decode(self, codes: Int[Tensor, "B N"], grid: tuple[int, int]) -> Float[Tensor, "B 3 Y X"]:
        """Codes in raster order to pixels in [-1, 1]."""
        return self.inner().decode(codes, grid)

    def fingerprint(self) -> str:
        """A hash of configuration and weights."""
        return self.inner().fingerprint()

    def inner(self) -> ImageTokenizer:
        """The tokenizer itself; CheckpointError if it cannot be read."""
        if self._read is None:
            self._read = self.load()
        return self._read


@dataclass(kw_only=True, slots=True, eq=False)
class DeferredSpeech:
    """A `tokenizers.protocol.SpeechTokenizer`."""

    load: Callable[[], SpeechTokenizer]
    codebook_size: int
    input_rate_hz: int
    output_rate_hz: int
    frame_rate_hz: float
    styles: tuple[str, ...] = ()
    """Empty until the tokenizer is read."""
    default_style: str = ""
    _read: SpeechTokenizer | None = field(default=None, init=False)

    def encode(self, audio: Audio) -> Int[Tensor, " N"]:
        """A sound at `input_rate_hz` to codes."""
        return self.inner().encode(audio)

    def decode(
        self, codes: Int[Tensor, " N"], style: str | None = None, generator: torch.Generator | None = None
    ) -> Audio:
        """Codes to a sound at `output_rate_hz` in the named style."""
        return self.inner().decode(codes, style, generator)

    def fingerprint(self) -> str:
        """A hash of configuration and weights."""
        return self.inner().fingerprint()

    def inner(self) -> SpeechTokenizer:
        """The tokenizer itself; CheckpointError if it cannot be read."""
        if self._read is None:
            self._read = self.load()
            self.styles, self.default_style = self._read.styles, self._read.default_style
        return self._read
