"""Classifier-free guidance: push predictions away from those made without the condition.

Enters: logits with and without the condition. Leaves: guided logits, and when guidance acts.
Does not know what the condition was.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


def guide(
    conditional: Float[Tensor, "K A"], unconditional: Float[Tensor, "K A"], scale: Float[Tensor, " K"]
) -> Float[Tensor, "K A"]:
    """Unconditional logits plus (scale + 1) times the difference; exactly the conditional ones where scale is 0.

    Source:
        Classifier-free guidance, arXiv:2207.12598, in the form with weights (1 + w) and -w.
    """
    weight = scale[:, None].to(conditional.dtype)
    guided = unconditional + (weight + 1.0) * (conditional - unconditional)
    return torch.where(weight > 0, guided, conditional)


@dataclass(frozen=True, slots=True, eq=False)
class Resting:
    """What a network said without condition at some step, for the steps that do not ask it again.

    Source:
        Reuse of the unconditional branch over neighbouring steps; compare the guidance intervals of arXiv:2404.07724.
    """

    step: int
    every: int
    """Steps from one question to the next."""
    place: Int[Tensor, " K"]
    logits: Float[Tensor, "K A"]

    def covers(self, step: int) -> bool:
        """Whether a step is not due to ask."""
        return step < self.step + self.every

    def at(
        self, place: Int[Tensor, " L"], scale: Float[Tensor, " L"]
    ) -> tuple[Float[Tensor, "L A"], Float[Tensor, " L"]]:
        """The logits of some places, in any order, and their scales: 0 for a place that was visible then."""
        order = self.place.argsort()
        found = order[torch.searchsorted(self.place[order], place).clamp_max(len(order) - 1)]
        return self.logits[found], scale * (self.place[found] == place)


def step_scales(num_steps: int, scale: float, interval: tuple[float, float]) -> tuple[float, ...]:
    """The scale at each step: `scale` while the share of steps done lies in [first, second), else 0."""
    first, second = interval
    return tuple(scale if first <= step / num_steps < second else 0.0 for step in range(num_steps))


def pair_with_unconditional(
    ids: Int[Tensor, "B S"], uncond_ids: Int[Tensor, "B S"], is_target: Tensor
) -> Int[Tensor, "B2 S"]:
    """Both branches in one batch, the conditional first; targets are the same in both."""
    return torch.cat([ids, torch.where(is_target, ids, uncond_ids)])
