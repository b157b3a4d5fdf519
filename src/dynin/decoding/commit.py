"""Which proposals to reveal at a step: quotas that end exactly on time, and an exact choice of the best.

Enters: counts, schedule names, scores. Leaves: how many places stay hidden after each step, and which are revealed.
Does not know ids or logits.
"""

from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dynin.diffusion.schedule import mask_ratio


@lru_cache(maxsize=4096)
def plan_remaining(
    num_masked: int, num_steps: int, schedule: str, num_held: int = 0, hold_steps: int = 0
) -> tuple[int, ...]:
    """How many places stay hidden after each step; strictly falling, and 0 at the end.

    Args:
        num_masked: Places hidden at the start.
        num_steps: Steps to plan; more than there are places are cut to one place a step.
        schedule: "uniform" (equal quotas, the larger ones first), or the name of a mask ratio.
        num_held: Places that the last `hold_steps` + 1 steps keep hiding and revealing again, for correction.
        hold_steps: Steps taken from the budget for that.

    Source:
        LLaDA's transfer counts; MaskGIT, arXiv:2202.04200, section 3.2; ReMDM, arXiv:2503.00307, its loop strategy.
    """
    hold_steps = min(hold_steps, num_steps - 1)
    num_held = min(num_held, num_masked - 1)
    if hold_steps > 0 and num_held > 0:
        head = plan_remaining(num_masked - num_held, num_steps - hold_steps, schedule)
        return tuple(left + num_held for left in head) + (num_held,) * (hold_steps - 1) + (0,)
    steps = min(num_steps, num_masked)
    if steps == 0:
        return ()
    if schedule == "uniform":
        quota, larger = divmod(num_masked, steps)
        return tuple(num_masked - (quota * (step + 1) + min(step + 1, larger)) for step in range(steps))
    wanted = _floors(num_masked, steps, schedule)
    remaining: list[int] = []
    before = num_masked
    for step in range(steps):
        before = max(steps - 1 - step, min(before - 1, wanted[step]))
        remaining.append(before)
    remaining[-1] = 0
    return tuple(remaining)


def published_mask_counts(num_masked: int, num_steps: int, schedule: str = "cosine") -> tuple[int, ...]:
    """Places that the published image sampler hides again after each step; the last 1 is filled by its final sample.

    Parity:
        Dynin-Omni `t2i_generate`: at least one, fewer than before, the floor taken in float32.
    """
    counts: list[int] = []
    before = num_masked
    for wanted in _floors(num_masked, num_steps, schedule):
        before = max(1, min(before - 1, wanted))
        counts.append(before)
    return tuple(counts)


def _floors(num_masked: int, num_steps: int, schedule: str) -> list[int]:
    """Whole places below the mask ratio after each step."""
    progress = torch.arange(1, num_steps + 1, dtype=torch.float32) / num_steps
    return (num_masked * mask_ratio(schedule, progress)).floor().to(torch.int64).tolist()


def choose_best(score: Float[Tensor, "B N"], quota: Int[Tensor, " B"]) -> Bool[Tensor, "B N"]:
    """The `quota` largest scores of each row, the lower index among equals; never one that is minus infinity."""
    order = score.argsort(dim=1, descending=True, stable=True)
    rank = order.argsort(dim=1)
    return (rank < quota[:, None]) & (score > -torch.inf)


def noise_temperatures(num_steps: int, temperature: float, anneal: str) -> tuple[float, ...]:
    """Temperature of the reveal noise at each step; 0 at the last.

    Args:
        anneal: "linear" falls as 1 - progress; "compound" is multiplied by that factor again and again.

    Parity:
        "compound" is what the published image sampler does, which anneals far faster than intended.
    """
    values: list[float] = []
    compound = temperature
    for step in range(1, num_steps + 1):
        compound *= 1.0 - step / num_steps
        values.append(compound if anneal == "compound" else temperature * (1.0 - step / num_steps))
    return tuple(values)
