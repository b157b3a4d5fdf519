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
    """Probability of the id when it was committed or last verified."""
    times: Int[Tensor, "B N"]
    """How often a place has been hidden again already."""
    checks: Int[Tensor, "B N"]
    """How often a place has been verified since it was committed."""
    num_places: Int[Tensor, " B"]
    """Hidden places of the block when it began."""
    progress: Float[Tensor, " B"]
    """Share of the block's steps done before this one, in [0, 1)."""


@runtime_checkable
class RemaskRule(Protocol):
    """Chooses which committed places to hide again."""

    @property
    def verifies(self) -> bool:
        """Whether the rule wants a new probability of committed ids from the pass that is about to run."""
        ...

    def inspect(self, committed: Committed) -> Bool[Tensor, "B N"]:
        """Places to verify in the pass that is about to run; asked only of rules that verify."""
        ...

    @property
    def hides_inspected(self) -> bool:
        """Whether inspected places are hidden from that pass, as places were in training."""
        ...

    def hold(self, num_places: int, num_steps: int) -> tuple[int, int]:
        """Places kept hidden, and steps set aside, at the end of a block for correction; (0, 0) for none."""
        ...

    def choose(
        self, committed: Committed, support: Float[Tensor, "B N"], limit: Int[Tensor, " B"]
    ) -> Bool[Tensor, "B N"]:
        """Places to hide again, at most `limit` per row and only open ones.

        Args:
            support: Probability of an inspected id relative to the likeliest one's, in [0, 1]; 1 where not inspected.
        """
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
    def verifies(self) -> bool:
        """No: the probability at commitment is enough."""
        return False

    @property
    def hides_inspected(self) -> bool:
        """Nothing is inspected."""
        return False

    def inspect(self, committed: Committed) -> Bool[Tensor, "B N"]:
        """No place."""
        return torch.zeros_like(committed.is_open)

    def hold(self, num_places: int, num_steps: int) -> tuple[int, int]:
        """As many places as are hidden at a step, for the steps set aside."""
        hold_steps = int(num_steps * self.refine)
        return (self._quota(num_places), hold_steps) if hold_steps else (0, 0)

    def choose(
        self, committed: Committed, support: Float[Tensor, "B N"], limit: Int[Tensor, " B"]
    ) -> Bool[Tensor, "B N"]:
        """The least certain open places, those hidden less often first."""
        del support
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
    """Ask the model again about committed places, now that more is known, and hide those again that it doubts.

    The pass that proposes ids for hidden places also rates the committed ones, which costs rows of the output head but
    no pass of its own.

    Source:
        WINO, arXiv:2507.18578: draft at a low bar, verify in the same pass. There additional shadow places are read,
        which needs a network that knows of them. Here committed places are read as they stand, or hidden by turns.
    """

    bar: float = 0.3
    """Hide an id again when its probability is below this share of the likeliest id's."""
    share: float = 0.0
    """0 rates all committed places as they stand, visible to the pass. Above 0, hides this share of them from each
    pass, rounded up, the least verified and least certain first, and puts those back that pass: for networks that say
    nothing sensible about visible places; other proposals then see less."""
    max_times: int = 2
    """How often one place may be hidden again."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0.0 < self.bar <= 1.0:
            raise ConfigError(f"bar is {self.bar}; expected a probability in (0, 1]")
        if not 0.0 <= self.share <= 1.0:
            raise ConfigError(f"share is {self.share}; expected a number in [0, 1]")
        _check_times(self.max_times)

    @property
    def verifies(self) -> bool:
        """Yes, in every pass but a block's last."""
        return True

    @property
    def hides_inspected(self) -> bool:
        """Unless everything is verified as it stands."""
        return self.share > 0

    def inspect(self, committed: Committed) -> Bool[Tensor, "B N"]:
        """The share of open places that were verified least often, the least certain first."""
        is_candidate = committed.is_open & (committed.times < self.max_times)
        if self.share == 0:
            return is_candidate
        quota = (is_candidate.sum(dim=1) * self.share - 1e-6).ceil().to(torch.int64)
        trust = committed.prob + 2 * committed.checks
        return choose_best((-trust).masked_fill(~is_candidate, -torch.inf), quota)

    def hold(self, num_places: int, num_steps: int) -> tuple[int, int]:
        """Nothing is set aside."""
        del num_places, num_steps
        return (0, 0)

    def choose(
        self, committed: Committed, support: Float[Tensor, "B N"], limit: Int[Tensor, " B"]
    ) -> Bool[Tensor, "B N"]:
        """The inspected places below the bar, the least supported first."""
        is_candidate = committed.is_open & (support < self.bar)
        return choose_best((-support).masked_fill(~is_candidate, -torch.inf), limit)


def _check_times(max_times: int) -> None:
    """Raise a ConfigError unless hiding is allowed at least once."""
    if max_times < 1:
        raise ConfigError(f"max_times is {max_times}; expected at least 1")
