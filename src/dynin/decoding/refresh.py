"""When a network's memory of keys and values is made anew, and how far around what changed it is kept fresh.

Enters: what happened since the last full pass over a sequence. Leaves: whether the coming pass is a full one.
Does not know networks, keys or values; `model.cached` asks, and does the work.

    full pass     every column of the sequence
    other passes  the hidden places, what was committed since the pass before, and `vicinity` columns around both
"""

import math
from dataclasses import dataclass

from dynin.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Refresh:
    """Any of three reasons for a full pass; without one, only the first pass over a sequence is full.

    Every reason has its switch: `Refresh(every=1)` recomputes everything always, which is exact; `Refresh()` never does
    after the first pass; `Refresh(every=4)` suits pictures and sounds whose places are hidden everywhere.

    Source:
        Fast-dLLM, arXiv:2505.22618 (per block; prefix and suffix kept); dKV-Cache, arXiv:2505.15781 (what was committed
        is recomputed once more, one pass later); dLLM-Cache, arXiv:2506.06295 (every k passes); Elastic-Cache,
        arXiv:2510.14973 (by drift, there of the attention weights); dInfer, arXiv:2510.08666 (vicinity).
    """

    per_block: bool = False
    """At the first pass of each block."""
    every: int | None = None
    """At every k-th pass."""
    drift: float | None = None
    """Once the columns committed since the last full pass have moved so far: the sum over those columns of one minus
    the cosine between their values (mean over the layers) before and after, which is at most 2 for each."""
    vicinity: int = 0
    """Columns recomputed on either side of each that has to be."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.every is not None and self.every < 1:
            raise ConfigError(f"every is {self.every}; a refresh takes place every 1 or more passes, or None for never")
        if self.drift is not None and not (math.isfinite(self.drift) and self.drift > 0):
            raise ConfigError(f"drift is {self.drift}; expected a finite number above 0, or None")
        if self.vicinity < 0:
            raise ConfigError(f"vicinity is {self.vicinity}; expected 0 columns or more")
        if self.every == 1 and (self.per_block or self.drift is not None or self.vicinity):
            raise ConfigError(
                f"every 1 refreshes at each pass, beside per_block {self.per_block}, drift {self.drift} and vicinity "
                f"{self.vicinity}, which then say nothing; leave one or the other out"
            )

    def is_due(self, *, begins_block: bool, num_passes: int, drift: float) -> bool:
        """Whether the coming pass recomputes everything.

        Args:
            begins_block: Whether it is the first of a block.
            num_passes: Passes since the last full one.
            drift: How far committed columns have moved since the last full pass.
        """
        return (
            (self.per_block and begins_block)
            or (self.every is not None and num_passes + 1 >= self.every)
            or (self.drift is not None and drift >= self.drift)
        )

    @property
    def measures_drift(self) -> bool:
        """Whether passes have to measure how far columns moved."""
        return self.drift is not None
