"""The order in which rows are drawn: every row once in an epoch, epochs without end, known from a seed alone.

Enters: how many rows there are, a seed. Leaves: positions by draw. Does not know rows.
"""

from functools import lru_cache

import numpy as np
from jaxtyping import Int64


def position(draw: int, count: int, seed: int) -> int:
    """The row that is drawn as number `draw`, from 0.

    Raises:
        ValueError: If there is no row.
    """
    if count < 1:
        raise ValueError(f"a row was to be drawn among {count}, expected at least one")
    epoch, at = divmod(draw, count)
    return int(permutation(count, seed, epoch)[at])


@lru_cache(maxsize=16)
def permutation(count: int, seed: int, *parts: int) -> Int64[np.ndarray, " count"]:
    """The rows of an epoch, or of a block of a stream, in the order in which they are drawn."""
    return np.random.default_rng((seed, *parts)).permutation(count)
