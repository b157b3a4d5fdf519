"""Rotary position embedding, half-rotation convention.

Enters: queries or keys. Leaves: the same, each pair of entries turned by an angle that grows with the position. Does
not know about attention.

    entry j of a head is paired with entry j + E/2 (not with its neighbour):

        [ a0 a1 .. | b0 b1 .. ]   ->   [ a*cos - b*sin | b*cos + a*sin ],   angle_j = position * theta^(-2j/E)
"""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor


def rotary_table(length: int, head_dim: int, theta: float, device: torch.device) -> Float[Tensor, "2 S half"]:
    """Cosines and sines in float32 for positions 0 to `length - 1`.

    Cheap beside one layer, so it is made anew for every pass: nothing to cache, to move or to keep out of checkpoints.

    Source:
        Su et al., arXiv:2104.09864.
    """
    return table_at(torch.arange(length, dtype=torch.float32, device=device), head_dim, theta)


def table_at(positions: Shaped[Tensor, "*shape"], head_dim: int, theta: float) -> Float[Tensor, "2 *shape half"]:
    """Cosines and sines in float32 for any positions, as where several documents lie behind one another."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device) / head_dim
    angles = positions.float()[..., None] * (1.0 / theta**exponents)
    return torch.stack((angles.cos(), angles.sin()))


def rotate(x: Float[Tensor, "B S H E"], table: Float[Tensor, "2 *shape half"]) -> Float[Tensor, "B S H E"]:
    """Turn every pair by its position's angle, in float32 whatever the input's dtype.

    Args:
        table: Of positions (S), the same in every row, or (B, S).
    """
    cos, sin = table[..., None, :]  # each S 1 E/2 or B S 1 E/2
    a, b = x.float().chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).to(x.dtype)
