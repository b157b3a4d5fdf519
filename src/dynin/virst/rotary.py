"""Rotary positions over several axes at once: time, row, column.

Enters: queries or keys, and where each stands on every axis. Leaves: the same, each pair of neighbouring entries
turned. Does not know attention.

    head   [ time .. | row .. | column .. | free ]        2 * floor(E/2 / 3) entries an axis, the rest stays

    entries 2j and 2j + 1 of an axis are a pair:  (a, b) -> (a cos - b sin, b cos + a sin)
    angle_j = place * theta^(-j/half)

Source:
    Su et al., arXiv:2104.09864. Parity: VIRST's second fusion pairs neighbours, unlike `dynin.nn.rope`, and splits a
    head of 32 into 10, 10, 10 and 2 free entries.
"""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

NUM_AXES = 3


def axis_dim(head_dim: int, num_axes: int = NUM_AXES) -> int:
    """Entries of a head that turn with one axis: an even number, the same for every axis."""
    return 2 * (head_dim // 2 // num_axes)


def angles(places: Shaped[Tensor, "*shape"], dim: int, theta: float) -> Float[Tensor, "*shape half"]:
    """Angles in float32 of each pair of an axis, for places in any unit."""
    half = dim // 2
    exponents = torch.arange(half, dtype=torch.float32, device=places.device) / max(half, 1)
    return places.float()[..., None] * theta**-exponents


def rotate_pairs(
    x: Float[Tensor, "*rows S H E"], turned: Float[Tensor, "*rows S turns"]
) -> Float[Tensor, "*rows S H E"]:
    """Turn the first `2 * turns` entries of every head, in float32 whatever the input's dtype; the others stay."""
    width = 2 * turned.shape[-1]
    pairs = x[..., :width].float().unflatten(-1, (-1, 2))  # rows S H turns 2
    cos, sin = turned.cos()[..., None, :], turned.sin()[..., None, :]
    first, second = pairs.unbind(-1)
    mixed = torch.stack((first * cos - second * sin, second * cos + first * sin), dim=-1).flatten(-2)
    return torch.cat((mixed.to(x.dtype), x[..., width:]), dim=-1)
