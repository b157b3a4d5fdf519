"""What is decided about a block before it begins: how much stays hidden after each step, and when guidance acts.

Enters: hidden places and steps per row, a segment's policy. Leaves: tables of rows by steps, and whether the numbers of
hidden places follow from them. Does not know ids, logits or networks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dynin.decoding.canvas import Segment
from dynin.decoding.commit import noise_temperatures, plan_remaining
from dynin.decoding.guidance import step_scales


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What was decided per row and step before the block began; rows with fewer steps are padded on the right."""

    remaining: Int[Tensor, "B steps1"]
    """Hidden places before the first step, then after each."""
    progress: Float[Tensor, "B steps"]
    """Share of the row's steps done before each."""
    noise_temperature: Float[Tensor, "B steps"]
    scale: Float[Tensor, "B steps"]
    is_guided: tuple[bool, ...]
    """Whether any row wants guidance at a step."""
    counts: tuple[tuple[int, ...], ...] | None
    """Hidden places per row before each step, where they follow from the plan alone; None where a rule, a stop id or
    the mask id itself may be revealed that the plan knows nothing of."""

    @property
    def num_steps(self) -> int:
        """Steps of the row that takes the most."""
        return len(self.is_guided)


def plan_block(
    num_masked: Sequence[int], num_steps: Sequence[int], segment: Segment, mask_id: int, device: torch.device
) -> Plan:
    """The plan of a block, each row's by its own numbers alone.

    Args:
        num_masked: Hidden places per row.
        num_steps: Steps each row may take.
    """
    policy = segment.policy
    remaining: list[tuple[int, ...]] = []
    is_known = follows_plan(segment, mask_id)
    for masked, steps in zip(num_masked, num_steps, strict=True):
        held, hold_steps = policy.remask.hold(masked, steps) if policy.remask else (0, 0)
        is_known &= not hold_steps
        remaining.append((masked, *plan_remaining(masked, steps, policy.schedule, held, hold_steps)))
    lengths = [len(row) - 1 for row in remaining]
    progress = [tuple(step / length for step in range(length)) for length in lengths]
    noise = [noise_temperatures(length, policy.noise_temperature, policy.anneal) for length in lengths]
    scales = [step_scales(length, policy.guidance_scale, policy.guidance_interval) for length in lengths]
    width = max(lengths)

    def table(rows: Sequence[tuple[int | float, ...]], width: int, dtype: torch.dtype) -> Tensor:
        return torch.tensor([row + (0,) * (width - len(row)) for row in rows], dtype=dtype, device=device)

    return Plan(
        remaining=table(remaining, width + 1, torch.int64),
        progress=table(progress, width, torch.float32),
        noise_temperature=table(noise, width, torch.float32),
        scale=table(scales, width, torch.float32),
        is_guided=tuple(any(step < len(row) and row[step] > 0 for row in scales) for step in range(width)),
        counts=tuple(tuple(row[step] if step < len(row) else 0 for row in remaining) for step in range(width))
        if is_known
        else None,
    )


def follows_plan(segment: Segment, mask_id: int) -> bool:
    """Whether every step of a segment reveals exactly what is planned, so that nobody has to look.

    Rules that hide places again do, as long as they set no steps aside: as many more are revealed.
    """
    policy = segment.policy
    if segment.stop_ids or policy.threshold is not None or policy.commit is not None or policy.ahead is not None:
        return False
    if policy.remask is not None and policy.remask.verifies:
        return False
    allowed = segment.allowed_ids
    return policy.compat != "published" or (allowed is not None and not bool((allowed == mask_id).any()))
