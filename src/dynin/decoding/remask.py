"""Rules that hide committed places again, so that early mistakes can be corrected.

Enters: which places are committed, how sure the model was or is of them. Leaves: which to hide again.
Does not know logits or budgets: the decoder caps every rule so that the steps planned still suffice, and reveals as
many places more as were hidden, so decoding with a rule takes the same number of denoiser calls as without.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dynin.decoding.commit import choose_best
from dynin.errors import ConfigError


@dataclass(frozen=True, slots=True, eq=False)
class Committed:
    """The committed places of a block as a rule sees them; a row per sequence."""

    is_open: Bool[Tensor, "B N"]
    """Committed by this decoding, so they may be hidden again."""
    prob: Float[Tensor, "B N"]
    """Probability of the id when it was committed; for rules that rescore, what the current pass gives it."""
    times: Int[Tensor, "B N"]
    """How often a place has been hidden again already."""
    num_places: Int[Tensor, " B"]
    """Hidden places of the block when it began."""
    progress: Float[Tensor, " B"]
    """Share of the block's steps done before this one, in [0, 1)."""


@runtime_checkable
class RemaskRule(Protocol):
    """Chooses which committed places to hide again."""

    @property
    def rescores(self) -> bool:
        """Whether the rule wants the current pass's probability of committed ids (more rows for the head)."""
        ...

    def hold(self, num_places: int, num_steps: int) -> tuple[int, int]:
        """Places kept hidden, and steps set aside, at the end of a block for correction; (0, 0) for none."""
        ...

    def choose(self, committed: Committed, limit: Int[Tensor, " B"]) -> Bool[Tensor, "B N"]:
        """Places to hide again, at most `limit` per row and only open ones."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class LowConfidenceRemask:
    """Hide the places again whose ids were the least certain when they were committed.

    Places hidden less often go first, so that one hopeless place does not use up the budget.

    Source:
        ReMDM, arXiv:2503.00307, section 4 (cap, confidence, switch and loop strategies, here deterministic).
    """

    fraction: float = 0.1
    """Of the block's places, hidden again at each active step, rounded up."""
    start: float = 0.5
    """The rule acts while the share of steps done lies in [start, stop)."""
    stop: float = 1.0
    refine: float = 0.0
    """Share of the steps set aside, after everything was revealed but `fraction`, to hide and reveal in a loop."""
    max_times: int = 4
    """How often one place may be hidden again."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0.0 < self.fraction <= 1.0:
            raise ConfigError(f"fraction is {self.fraction}; expected a number in (0, 1]")
        if not 0.0 <= self.start < self.stop <= 1.0:
            raise ConfigError(f"start and stop are {self.start} and {self.stop}; expected 0 <= start < stop <= 1")
        if not 0.0 <= self.refine < 1.0:
            raise ConfigError(f"refine is {self.refine}; expected a number in [0, 1)")
        _check_times(self.max_times)

    @property
    def rescores(self) -> bool:
        """No: the probability at commitment is enough."""
        return False

    def hold(self, num_places: int, num_steps: int) -> tuple[int, int]:
        """As many places as are hidden at a step, for the steps set aside."""
        hold_steps = int(num_steps * self.refine)
        return (self._quota(num_places), hold_steps) if hold_steps else (0, 0)

    def choose(self, committed: Committed, limit: Int[Tensor, " B"]) -> Bool[Tensor, "B N"]:
        """The least certain open places, those hidden less often first."""
        is_active = (committed.progress >= self.start) & (committed.progress < self.stop)
        quota = (committed.num_places * self.fraction - 1e-6).ceil().to(limit.dtype)
        quota = torch.minimum(quota, limit).where(is_active, torch.zeros_like(limit))
        doubt = -(committed.prob + committed.times)
        is_candidate = committed.is_open & (committed.times < self.max_times)
        return choose_best(doubt.masked_fill(~is_candidate, -torch.inf), quota)

    def _quota(self, num_places: int) -> int:
        """Places hidden at a step, for a block of that size."""
        return int(-(-(num_places * self.fraction - 1e-6) // 1))


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyRemask:
    """Hide the places again to whose ids the current pass, which sees the other revealed places, gives little.

    Source:
        WINO, arXiv:2507.18578: draft at a low bar, verify at a higher one. There verification reads hidden shadow
        places; here the committed place itself is read, at no additional pass.
    """

    bar: float = 0.3
    """Hide an id again when its probability is below this."""
    max_times: int = 1
    """How often one place may be hidden again."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0.0 < self.bar <= 1.0:
            raise ConfigError(f"bar is {self.bar}; expected a probability in (0, 1]")
        _check_times(self.max_times)

    @property
    def rescores(self) -> bool:
        """Yes: committed ids are verified by every pass."""
        return True

    def hold(self, num_places: int, num_steps: int) -> tuple[int, int]:
        """Nothing is set aside."""
        del num_places, num_steps
        return (0, 0)

    def choose(self, committed: Committed, limit: Int[Tensor, " B"]) -> Bool[Tensor, "B N"]:
        """The open places below the bar, the least certain first."""
        is_candidate = committed.is_open & (committed.times < self.max_times) & (committed.prob < self.bar)
        return choose_best((-committed.prob).masked_fill(~is_candidate, -torch.inf), limit)


def _check_times(max_times: int) -> None:
    """Raise a ConfigError unless hiding is allowed at least once."""
    if max_times < 1:
        raise ConfigError(f"max_times is {max_times}; expected at least 1")
