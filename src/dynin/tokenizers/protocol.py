"""What every media tokenizer declares: codes of one codebook, rates and sizes.

Enters: arrays with declared units. Leaves: codes from 0 to `codebook_size - 1`, and back.
Does not know ids, special tokens or files. The embedded codecs and the published ones meet the same protocols.
"""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dynin.media.audio import Audio


@runtime_checkable
class ImageTokenizer(Protocol):
    """Pictures to a grid of codes and back."""

    codebook_size: int
    downsample: int
    """Side of the square of pixels that one code stands for."""
    image_size: int
    """Side in pixels of the pictures the model was trained on."""

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of codes for a picture of this size; MediaError for a size it cannot do."""
        ...

    def encode(self, pixels: Float[Tensor, "B 3 Y X"]) -> Int[Tensor, "B N"]:
        """Pixels in [-1, 1] to codes in raster order."""
        ...

    def decode(self, codes: Int[Tensor, "B N"], grid: tuple[int, int]) -> Float[Tensor, "B 3 Y X"]:
        """Codes in raster order to pixels in [-1, 1]; VocabularyError for a code outside the codebook."""
        ...

    def fingerprint(self) -> str:
        """A hash of configuration and weights: two tokenizers with equal fingerprints give equal codes."""
        ...


@runtime_checkable
class SpeechTokenizer(Protocol):
    """Mono sound to a row of codes and back."""

    codebook_size: int
    input_rate_hz: int
    output_rate_hz: int
    frame_rate_hz: float
    """Codes per second of sound."""
    styles: tuple[str, ...]
    default_style: str

    def encode(self, audio: Audio) -> Int[Tensor, " N"]:
        """A sound at `input_rate_hz` to codes; MediaError at another rate."""
        ...

    def decode(
        self, codes: Int[Tensor, " N"], style: str | None = None, generator: torch.Generator | None = None
    ) -> Audio:
        """Codes to a sound at `output_rate_hz` in the named style."""
        ...

    def fingerprint(self) -> str:
        """A hash of configuration and weights."""
        ...


@runtime_checkable
class TextTokenizer(Protocol):
    """Text to ids of the text range and back; never a control id."""

    size: int
    """Number of ids the tokenizer can emit, from 0."""

    def encode(self, text: str) -> list[int]:
        """Text to ids; strings that look like special tokens stay text."""
        ...

    def decode(self, ids: list[int]) -> str:
        """Ids to text; bytes that are no valid text become the replacement character."""
        ...

    def fingerprint(self) -> str:
        """A hash of the vocabulary and merges."""
        ...
