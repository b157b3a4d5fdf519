"""Several codebooks as one: which of a codec's codebooks become codes, and in which order.

Enters: what a codec has and what the caller wants of it; codes of K codebooks for T frames. Leaves: one row of codes
of one codebook, and back. Does not know sounds.

    interleave, K = 2 codebooks of 4 codes                        first

    codebook 0    1   3   0      -->    1 6   3 4   0 7            1 3 0
    codebook 1    2   0   3             frame by frame, codebook k
    frame         0   1   2             raised by k * 4
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from dynin.errors import ConfigError, VocabularyError

Layout = Literal["first", "interleave"]
"""`first` keeps the first codebook alone: the fewest codes, and a decoder that hears nothing of the others, so that
sounds come back coarser than the codec can. `interleave` keeps the chosen codebooks, time-major."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Codebooks:
    """The codebooks in use, the first `count` of the codec's."""

    count: int
    size: int
    """Codes of one codebook."""

    @classmethod
    def choose(cls, num_known: int, size: int, layout: Layout | None, num_codebooks: int | None) -> "Codebooks":
        """The codebooks to use of a codec that has `num_known` of them.

        Raises:
            ConfigError: If there are several and no layout is given, or number and layout contradict each other.
        """
        if layout is None and num_known > 1:
            raise ConfigError(
                f"the codec has {num_known} codebooks and no layout was given; pass layout='first' for the first "
                "alone (decoding then uses one codebook) or layout='interleave' for all of them in turn"
            )
        most = 1 if layout == "first" else num_known
        count = most if num_codebooks is None else num_codebooks
        if not 1 <= count <= most:
            raise ConfigError(f"num_codebooks is {count}; layout {layout!r} of this codec allows 1 to {most}")
        return cls(count=count, size=size)

    @property
    def total(self) -> int:
        """Codes of all codebooks in use."""
        return self.count * self.size

    def join(self, codes: Int[Tensor, "K T"]) -> Int[Tensor, " N"]:
        """Codes by codebook and frame to one row; codebooks that are not in use are left out."""
        used = codes[: self.count]
        return (used + self._starts(used)[:, None]).T.flatten()

    def split(self, row: Int[Tensor, " N"]) -> Int[Tensor, "K T"]:
        """The inverse of `join`.

        Raises:
            VocabularyError: If there is no code, one is outside the codebook or at a place of another codebook, or
                the last frame is incomplete.
        """
        if row.numel() == 0 or not 0 <= int(row.min()) <= int(row.max()) < self.total:
            received = f"lie in [{int(row.min())}, {int(row.max())}]" if row.numel() else "are none"
            raise VocabularyError(
                f"speech codes {received}; the codebook has 0 to {self.total - 1}, and at least one code is needed; "
                "take the vocabulary's offset off ids first"
            )
        if row.numel() % self.count:
            raise VocabularyError(
                f"{row.numel()} speech codes do not fill whole frames of {self.count} codes, one of each codebook; "
                "cut the row at a whole frame"
            )
        frames = row.reshape(-1, self.count)  # T K
        codes = frames - self._starts(row)
        is_strange = ((codes < 0) | (codes >= self.size)).flatten()
        if bool(is_strange.any()):
            at = int(is_strange.nonzero()[0])
            start = at % self.count * self.size
            raise VocabularyError(
                f"speech code {int(row[at])} at position {at} is of another codebook, expected {start} to "
                f"{start + self.size - 1}; codes go frame by frame, one of each of the {self.count} codebooks in turn"
            )
        return codes.T

    def _starts(self, like: Tensor) -> Int[Tensor, " K"]:
        return torch.arange(self.count, device=like.device) * self.size
