"""In which order the places of a grid are revealed when no network is asked: spread out evenly from the start.

Enters: the shape of a grid, of one to three dimensions. Leaves: the rank of each place. Does not know what the places
hold.

    4 x 4      0  8  4 12        places near each other are far apart in the order, so those revealed
              10  2 14  6        together depend little on one another
               5 13  1  9
              15  7 11  3        (drawn as an idea; `halton_ranks` gives the numbers)
"""

from collections.abc import Iterator
from functools import lru_cache
from itertools import count
from math import prod

from dynin.errors import ConfigError

_BASES = (2, 3, 5)

ORDER_NAMES = ("halton",)


def radical_inverse(number: int, base: int) -> float:
    """The digits of a number mirrored at the point: 6 = 110 in base 2 becomes 0.011 = 3/8."""
    value, weight = 0.0, 1.0 / base
    while number:
        number, digit = divmod(number, base)
        value += digit * weight
        weight /= base
    return value


@lru_cache(maxsize=64)
def halton_ranks(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The rank of each place of a grid in Halton's order, places in the order of their indices, the last fastest.

    Args:
        shape: One to three whole numbers of at least 1: (N), (Y, X) or (T, Y, X).

    Raises:
        ConfigError: For another number of sides, or a side below 1.

    Source:
        Halton scheduler, arXiv:2503.17076: points of the Halton sequence in bases 2 and 3, each taken to its cell,
        later visits of a cell left out. Here base 5 goes to the third dimension.
    """
    if not 1 <= len(shape) <= len(_BASES) or min(shape) < 1:
        raise ConfigError(f"a grid of shape {shape} has no Halton order; expected one to three numbers of at least 1")
    ranks: dict[int, int] = {}
    for cell in _cells(shape):
        if cell not in ranks:
            ranks[cell] = len(ranks)
            if len(ranks) == prod(shape):
                break
    return tuple(ranks[cell] for cell in range(prod(shape)))


def _cells(shape: tuple[int, ...]) -> Iterator[int]:
    """The cells that the points of the sequence fall into, one after another."""
    for number in count(1):
        cell = 0
        for length, base in zip(shape, _BASES, strict=False):
            cell = cell * length + int(radical_inverse(number, base) * length)
        yield cell
