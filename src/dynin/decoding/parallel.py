"""How many places are revealed together beyond the plan: as many as a rule trusts at once.

Enters: for each hidden place, the probability of its proposal and the entropy of what could be there. Leaves: which
places to reveal. Does not know the plan, which reveals at least one place a step whatever a rule says, nor which of the
places belong to later blocks.

    plan    1 place a step                            always ends on time
    rule    + all it trusts together                  ends sooner
    remask  - what a later pass doubts                `remask.VerifyRemask`; with a low bar here, it is WINO
"""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from dynin.errors import ConfigError


@dataclass(frozen=True, slots=True, eq=False)
class Offer:
    """The proposals of a step as a rule sees them; a row per sequence."""

    is_masked: Bool[Tensor, "B N"]
    """Hidden, so that there is a proposal."""
    prob: Float[Tensor, "B N"]
    """Of the proposal, at temperature 1; of no meaning elsewhere."""
    entropy: Float[Tensor, "B N"]
    """In nats, at temperature 1, of what the place may hold; 0 where no rule asks for it."""


@runtime_checkable
class CommitRule(Protocol):
    """Chooses hidden places whose proposals can be revealed at once."""

    @property
    def needs_entropy(self) -> bool:
        """Whether entropies have to be computed."""
        ...

    def choose(self, offer: Offer) -> Bool[Tensor, "B N"]:
        """Places to reveal, none of them visible already."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Threshold:
    """Every proposal at least so probable.

    Source:
        Fast-dLLM, arXiv:2505.22618: confidence-aware parallel decoding.
    """

    bar: float = 0.9

    def __post_init__(self) -> None:
        """Check the range."""
        _require_share("bar", self.bar)

    @property
    def needs_entropy(self) -> bool:
        """No."""
        return False

    def choose(self, offer: Offer) -> Bool[Tensor, "B N"]:
        """What reaches the bar."""
        return offer.is_masked & (offer.prob >= self.bar)


@dataclass(frozen=True, kw_only=True, slots=True)
class Factor:
    """The n most probable proposals, n the largest number with (n + 1) (1 - the least of their probabilities) < factor.

    The more are revealed together, the surer each has to be.

    Source:
        Fast-dLLM, arXiv:2505.22618, its factor and its theorem: below 1, what is revealed together is what would be
        revealed one after another.
    """

    factor: float = 1.0

    def __post_init__(self) -> None:
        """Check the range."""
        if not (math.isfinite(self.factor) and self.factor > 0):
            raise ConfigError(f"factor is {self.factor}; expected a finite number above 0")

    @property
    def needs_entropy(self) -> bool:
        """No."""
        return False

    def choose(self, offer: Offer) -> Bool[Tensor, "B N"]:
        """The longest such list."""
        order, sorted_prob, count = _ranked(offer.prob, offer.is_masked)
        fits = (count + 1) * (1.0 - sorted_prob) < self.factor
        return _first(order, _last_true(fits & (sorted_prob >= 0)), offer.is_masked)


@dataclass(frozen=True, kw_only=True, slots=True)
class Joint:
    """The most probable proposals, as many as are all right together with at least this probability.

    The probability of all is taken as the product of each, as if they were independent.

    Source:
        The product form of Fast-dLLM's bound, arXiv:2505.22618; our own cut.
    """

    bar: float = 0.7

    def __post_init__(self) -> None:
        """Check the range."""
        _require_share("bar", self.bar)

    @property
    def needs_entropy(self) -> bool:
        """No."""
        return False

    def choose(self, offer: Offer) -> Bool[Tensor, "B N"]:
        """The longest such list."""
        order, sorted_prob, count = _ranked(offer.prob, offer.is_masked)
        del count
        fits = sorted_prob.clamp_min(0.0).cumprod(dim=1) >= self.bar
        return _first(order, fits.sum(dim=1), offer.is_masked)


@dataclass(frozen=True, kw_only=True, slots=True)
class EntropyBound:
    """The places of least entropy, as many as keep the sum of their entropies without the largest below the bound.

    That sum bounds what is lost by drawing them independently: the mutual information of the places revealed together.

    Source:
        EB-Sampler, arXiv:2505.24857, with entropy as the measure of error too.
    """

    bound: float = 0.1
    """In nats."""

    def __post_init__(self) -> None:
        """Check the range."""
        if not (math.isfinite(self.bound) and self.bound >= 0):
            raise ConfigError(f"bound is {self.bound} nats; expected a finite number of at least 0")

    @property
    def needs_entropy(self) -> bool:
        """Yes."""
        return True

    def choose(self, offer: Offer) -> Bool[Tensor, "B N"]:
        """The longest such list; the place of least entropy is always in it."""
        order, negative, count = _ranked(-offer.entropy, offer.is_masked)
        del count
        entropy = (-negative).where(negative > -torch.inf, torch.zeros_like(negative))
        fits = (entropy.cumsum(dim=1) - entropy <= self.bound) & (negative > -torch.inf)
        return _first(order, fits.sum(dim=1), offer.is_masked)


@dataclass(frozen=True, kw_only=True, slots=True)
class Apart:
    """Of what another rule chooses, the places that are surer than every other one of them within some distance.

    What lies close together depends on each other most; places drawn in one pass do not see each other.

    Source:
        Dilated unmasking, arXiv:2506.19037, with distances kept by certainty instead of fixed in advance.
    """

    rule: CommitRule
    gap: int = 1
    """Places to each side in which nothing else is revealed by the rule in the same pass."""

    def __post_init__(self) -> None:
        """Check the range."""
        if self.gap < 1:
            raise ConfigError(f"gap is {self.gap} places; expected at least 1, or take the rule by itself")

    @property
    def needs_entropy(self) -> bool:
        """Where the other rule does."""
        return self.rule.needs_entropy

    def choose(self, offer: Offer) -> Bool[Tensor, "B N"]:
        """What is left of the other rule's choice; the surest of it always is."""
        chosen = self.rule.choose(offer)
        sureness = -offer.entropy if self.needs_entropy else offer.prob
        order, _, _ = _ranked(sureness, chosen)
        rank = order.argsort(dim=1).to(sureness.dtype).masked_fill(~chosen, torch.inf)
        least = -F.max_pool1d(-rank[:, None], 2 * self.gap + 1, stride=1, padding=self.gap)[:, 0]
        return chosen & (rank == least)


def _require_share(name: str, value: float) -> None:
    """ConfigError unless a number lies in (0, 1]."""
    if not 0.0 < value <= 1.0:
        raise ConfigError(f"{name} is {value}; expected a probability in (0, 1]")


def _ranked(
    value: Float[Tensor, "B N"], is_masked: Bool[Tensor, "B N"]
) -> tuple[Tensor, Float[Tensor, "B N"], Float[Tensor, " N"]]:
    """The order of hidden places from the largest value, the values in it (minus infinity where none), and 1 to N."""
    hidden = value.masked_fill(~is_masked, -torch.inf)
    ranked = hidden.sort(dim=1, descending=True, stable=True)
    count = torch.arange(1, value.shape[1] + 1, device=value.device, dtype=value.dtype)
    return ranked.indices, ranked.values, count


def _last_true(fits: Bool[Tensor, "B N"]) -> Tensor:
    """How long the shortest beginning is that holds everything true."""
    return (fits * torch.arange(1, fits.shape[1] + 1, device=fits.device)).amax(dim=1)


def _first(order: Tensor, number: Tensor, is_masked: Bool[Tensor, "B N"]) -> Bool[Tensor, "B N"]:
    """The first `number` places of each row in an order, of those that are hidden."""
    rank = order.argsort(dim=1)
    return (rank < number[:, None]) & is_masked
