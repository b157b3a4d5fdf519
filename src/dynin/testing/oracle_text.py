"""The published sampler of text: blocks from left to right, the surest proposals first.

Enters: prompts, settings, a pass over whole sequences. Leaves: prompts with their answers. Does not know end tokens:
every place is filled, with any id there is, the mask id included.

Source:
    Dynin-Omni `mmu_generate`, LLaDA `generate`.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dynin.testing.oracle import Forward, Observer, OracleStep, noise_state, pairs, reveal, transfer_counts


@dataclass(frozen=True, kw_only=True, slots=True)
class TextSettings:
    """What the sampler is told."""

    mask_id: int
    num_new: int = 128
    num_steps: int = 128
    block_len: int = 128
    temperature: float = 0.0
    guidance_scale: float = 0.0
    remasking: str = "low_confidence"
    """"low_confidence", or "random"."""
    stop_after: int | None = None
    """Leave off after so many steps, for timing a step; None runs to the end."""

    def __post_init__(self) -> None:
        """Blocks must divide the new places and steps the blocks."""
        if self.num_new % self.block_len or self.num_steps % (self.num_new // self.block_len):
            raise ValueError(
                f"{self.num_new} new places, blocks of {self.block_len} and {self.num_steps} steps do not divide; "
                "the sampler needs num_new % block_len == 0 and num_steps % number of blocks == 0"
            )


@torch.no_grad()
def decode_text(
    forward: Forward,
    prompt: Int[Tensor, "B P"],
    settings: TextSettings,
    *,
    attend: Bool[Tensor, "B P"] | None = None,
    generator: torch.Generator | None = None,
    observer: Observer | None = None,
) -> Int[Tensor, "B S"]:
    """Prompts followed by their answers.

    Args:
        attend: False at padding of the prompt; not used under guidance.
        generator: For temperatures above 0 and random order.

    Parity:
        The published mask covers the prompt alone and fails at the first zero (Q7); here new places are attended.
    """
    batch, prompt_len = prompt.shape
    new = torch.full((batch, settings.num_new), settings.mask_id, dtype=prompt.dtype, device=prompt.device)
    x = torch.cat([prompt, new], dim=1)
    is_prompt = x != settings.mask_id
    may_attend = None if attend is None else pairs(F.pad(attend, (0, settings.num_new), value=True))
    num_blocks = settings.num_new // settings.block_len
    steps = settings.num_steps // num_blocks
    taken = 0
    for block in range(num_blocks):
        start = prompt_len + block * settings.block_len
        stop = start + settings.block_len
        counts = transfer_counts(x[:, start:stop] == settings.mask_id, steps)
        for step in range(steps):
            if taken == settings.stop_after:
                return x
            is_masked = x == settings.mask_id
            logits = _logits(forward, x, is_prompt, may_attend, settings)
            state = noise_state(generator) if observer is not None else None
            perturbed = gumbel_ratio(logits, settings.temperature, generator)
            choice = torch.argmax(perturbed, dim=-1)  # B S
            rank = _confidence(logits, choice, settings.remasking, generator)
            rank[:, stop:] = -torch.inf
            found = torch.where(is_masked, choice, x)
            rank = torch.where(is_masked, rank, -torch.inf)
            is_committed = reveal(rank, counts[:, step])
            if observer is not None:
                observer(
                    OracleStep(
                        index=taken,
                        ids=x,
                        span=(0, x.shape[1]),
                        class_ids=None,
                        perturbed=perturbed,
                        is_ratio=settings.temperature > 0,
                        choice=choice,
                        rank=rank,
                        is_log_rank=False,
                        is_committed=is_committed & is_masked,
                        noise_state=state,
                    )
                )
            x = torch.where(is_committed, found, x)
            taken += 1
    return x


def gumbel_ratio(
    logits: Float[Tensor, "B S V"], temperature: float, generator: torch.Generator | None
) -> Float[Tensor, "B S V"]:
    """In float64, exp(logits) / (-log u) ** temperature for u in [0, 1); at temperature 0 the logits themselves.

    Parity:
        Overflows for logits above 709.
    """
    if temperature == 0:
        return logits
    if generator is None:
        raise ValueError(f"temperature {temperature} draws random numbers; pass a torch.Generator")
    logits = logits.to(torch.float64)
    uniform = torch.rand(logits.shape, generator=generator, dtype=torch.float64, device=logits.device)
    return logits.exp() / (-torch.log(uniform)) ** temperature


def _logits(
    forward: Forward, x: Tensor, is_prompt: Tensor, may_attend: Tensor | None, settings: TextSettings
) -> Float[Tensor, "B S V"]:
    """Of every position over every id; under guidance of two rows, the second without the prompt."""
    if settings.guidance_scale <= 0:
        return forward(x, may_attend)
    both = forward(torch.cat([x, torch.where(is_prompt, settings.mask_id, x)]), None)
    logits, unconditional = torch.chunk(both, 2, dim=0)
    return unconditional + (settings.guidance_scale + 1) * (logits - unconditional)


def _confidence(
    logits: Tensor, choice: Tensor, remasking: str, generator: torch.Generator | None
) -> Float[Tensor, "B S"]:
    """How sure each proposal is: its probability in float64, or a random number."""
    if remasking == "low_confidence":
        probs = F.softmax(logits.to(torch.float64), dim=-1)
        return torch.gather(probs, -1, choice[..., None]).squeeze(-1)
    if remasking == "random":
        return torch.rand(choice.shape, generator=generator, device=choice.device)
    raise ValueError(f"remasking is {remasking!r}; expected low_confidence or random")
