"""Random numbers that depend on a row, a step and a place, and on nothing else.

Enters: generators, one for the batch or one per row. Leaves: uniform numbers for places and for their ids. Does not
know what they are used for.

    generator --one number per row and block--> key
    key, step, ordinal, stream --mixed--> a seed per place        one number per place: `PlaceNoise.one`
    seed, id --hashed--> a number per id of a place               a table, in chunks:   `PlaceNoise.table`

Nothing is drawn one after another, so there is no order to keep: a row draws the same alone and in a batch, in chunks
of any size, on any device, and no step waits for a generator.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dynin.nn.precision import finest

CHOICE, REVEAL, RANDOM = 0, 1, 2
"""Streams: the choice among ids, the noise on scores, scores that are random themselves."""

_KEYS = 2**62
# splitmix64, as signed numbers of 64 bits, and two odd numbers that keep steps and streams apart
_FIRST, _SECOND = -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15
_BY_STEP, _BY_STREAM = 0x5851F42D4C957F2D, 0x14057B7EF767814F
# a hash of 32 bits, as signed numbers; the golden ratio keeps neighbouring ids apart
_GOLDEN, _EARLY, _LATE = -0x61C88647, 0x7FEB352D, -0x7B935975


class Noise:
    """Where random numbers come from: one generator for the batch, or one per row of it.

    With one generator per row, what a row draws does not depend on its neighbours.
    """

    def __init__(self, generator: torch.Generator | Sequence[torch.Generator] | None) -> None:
        """Keep the generator; None is fine as long as nothing random is asked for."""
        self._generator = generator

    def rows(self, live: Sequence[int]) -> "Noise":
        """The noise of a part of the batch."""
        if self._generator is None or isinstance(self._generator, torch.Generator):
            return self
        return Noise([self._generator[row] for row in live])

    def begin(self, num_rows: int, device: torch.device) -> "Draws":
        """The numbers of a block, from one of each row's generator.

        Raises:
            ValueError: If there is no generator.
        """
        if self._generator is None:
            raise ValueError("this policy draws random numbers; pass a torch.Generator")
        if isinstance(self._generator, torch.Generator):
            return Draws(_key(self._generator, num_rows).to(device))
        return Draws(torch.cat([_key(generator, 1).cpu() for generator in self._generator]).to(device))


def _key(generator: torch.Generator, number: int) -> Int[Tensor, " N"]:
    """Whole numbers from a generator."""
    return torch.randint(_KEYS, (number,), generator=generator, device=generator.device)


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """The numbers of a block."""

    key: Int[Tensor, " B"]

    def at(self, step: int, row: Int[Tensor, " K"], ordinal: Int[Tensor, " K"], stream: int = CHOICE) -> "PlaceNoise":
        """Those of some places at a step.

        Args:
            row: Row of the batch that each place belongs to.
            ordinal: Which place of its row it is.
        """
        start = self.key + (step * _BY_STEP + stream * _BY_STREAM) % 2**62
        return PlaceNoise(_mix(_mix(start)[row] + ordinal))


@dataclass(frozen=True, slots=True, eq=False)
class PlaceNoise:
    """The numbers of some places at a step."""

    seed: Int[Tensor, " K"]

    def one(self) -> Float[Tensor, " K"]:
        """A number in [0, 1) for each place."""
        return ((self.seed >> 40) & 0xFFFFFF).float() * 2.0**-24

    def fine(self, start: int, stop: int) -> Float[Tensor, " k"]:
        """A number in [0, 1) for each of the places [start, stop), as fine as the device has them, for rare ids."""
        dtype = finest(self.seed.device)
        if dtype == torch.float32:
            return self.one()[start:stop]
        return ((self.seed[start:stop] >> 11) & 0x1FFFFFFFFFFFFF).to(dtype) * 2.0**-53

    def table(self, start: int, stop: int, width: int) -> Float[Tensor, "k W"]:
        """Numbers in [0, 1) for the places [start, stop), one for each of `width` ids.

        Source:
            The multipliers of `lowbias32` by C. Wellons (public domain); the seed's second half enters between its two
            rounds, so that places whose first halves are near each other draw nothing alike.
        """
        seed = self.seed[start:stop, None]
        low, high = _halves(seed)
        bits = torch.arange(width, dtype=torch.int32, device=seed.device) * _GOLDEN + low  # k W
        shifted = bits >> 16
        bits ^= shifted.bitwise_and_(0xFFFF)
        bits *= _EARLY
        bits ^= high
        torch.bitwise_right_shift(bits, 15, out=shifted)
        bits ^= shifted.bitwise_and_(0x1FFFF)
        bits *= _LATE
        torch.bitwise_right_shift(bits, 16, out=shifted)
        bits ^= shifted.bitwise_and_(0xFFFF)
        bits >>= 8
        return bits.bitwise_and_(0xFFFFFF).float().mul_(2.0**-24)


def _halves(seed: Int[Tensor, "*shape"]) -> tuple[Int[Tensor, "*shape"], Int[Tensor, "*shape"]]:
    """The lower and the upper 32 bits, as signed numbers of 32."""
    both = seed.contiguous().view(torch.int32).view(*seed.shape, 2)
    return both[..., 0], both[..., 1]


def _mix(number: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """Whole numbers of 64 bits to as many that look unrelated.

    Source:
        The finaliser of splitmix64: Steele, Lea and Flood, Fast splittable pseudorandom number generators, 2014.
    """
    number = (number ^ ((number >> 30) & 0x3FFFFFFFF)) * _FIRST
    number = (number ^ ((number >> 27) & 0x1FFFFFFFFF)) * _SECOND
    return number ^ ((number >> 31) & 0x1FFFFFFFF)
