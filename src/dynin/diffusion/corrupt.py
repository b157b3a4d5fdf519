"""From clean ids x0 to partly masked ids xt.

Enters: ids, which positions are targets, a mask probability per row. Leaves: which positions are hidden or replaced.
Does not know schedules, modalities or losses.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def bernoulli(
    is_target: Bool[Tensor, "B S"], mask_prob: Float[Tensor, " B"], *, generator: torch.Generator
) -> Bool[Tensor, "B S"]:
    """Hide each target independently with its row's probability.

    Source: LLaDA, arXiv:2502.09992, forward process.
    """
    noise = torch.rand(is_target.shape, generator=generator, device=is_target.device)
    return is_target & (noise < mask_prob[:, None])


def exact_count(
    is_target: Bool[Tensor, "B S"], mask_prob: Float[Tensor, " B"], *, generator: torch.Generator
) -> Bool[Tensor, "B S"]:
    """Hide exactly round(probability x targets) targets of each row, at least one where there is a target.

    Source: MaskGIT, arXiv:2202.04200, section 3.1.
    """
    noise = torch.rand(is_target.shape, generator=generator, device=is_target.device)
    rank = noise.masked_fill(~is_target, 2.0).argsort(dim=1).argsort(dim=1)
    count = (mask_prob * is_target.sum(dim=1)).round().clamp(min=1)
    return is_target & (rank < count[:, None])


def replace_at_random(
    ids: Int[Tensor, "B S"],
    is_candidate: Bool[Tensor, "B S"],
    prob: float,
    *,
    replacements: Int[Tensor, " A"],
    generator: torch.Generator,
) -> tuple[Int[Tensor, "B S"], Bool[Tensor, "B S"]]:
    """Replace each candidate with probability `prob` by an id drawn uniformly from `replacements`.

    Returns:
        The ids, and which positions were replaced (by chance, possibly by the id that was there).
    """
    noise = torch.rand(ids.shape, generator=generator, device=ids.device)
    is_replaced = is_candidate & (noise < prob)
    drawn = torch.randint(len(replacements), ids.shape, generator=generator, device=ids.device)
    return torch.where(is_replaced, replacements[drawn], ids), is_replaced


def stratified_times(
    count: int, *, generator: torch.Generator, device: torch.device | None = None
) -> Float[Tensor, " B"]:
    """One time in [0, 1) per row, one in each of `count` equal intervals, in random order."""
    offsets = torch.rand(count, generator=generator, device=device)
    order = torch.randperm(count, generator=generator, device=device)
    return (order + offsets) / count
