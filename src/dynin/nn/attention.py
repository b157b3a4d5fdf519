"""The one attention function; which kernel runs is decided here and nowhere else.

Enters: queries, keys, values and who may be attended. Leaves: one vector per query and head. Does not know about
positions or parameters.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

EXPLICIT_MAX_SCORES = 256 * 256
"""Scores of one head up to which they are written out while gradients are recorded. Fused kernels spare memory, which
such rows have; their backward pass takes several times as long there."""


def attention(
    query: Float[Tensor, "B S H E"],
    key: Float[Tensor, "B K G E"],
    value: Float[Tensor, "B K G E"],
    attend: Bool[Tensor, "B *Q K"] | None,
) -> Float[Tensor, "B S H E"]:
    """Scaled dot-product attention in both directions; never causal.

    Args:
        attend: True where a key may be attended, by every query of its row (B, K) or by each query (B, S, K); None
            means everywhere. Every query needs at least one True, see `usable`.
    """
    num_groups = query.shape[2] // key.shape[2]
    if num_groups > 1:
        key, value = (x.repeat_interleave(num_groups, dim=2) for x in (key, value))
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))  # B H S E
    if query.requires_grad and query.shape[2] * key.shape[2] <= EXPLICIT_MAX_SCORES:
        return _explicit(query, key, value, attend).transpose(1, 2)
    mask = None if attend is None else _by_query(attend).expand(-1, 1, query.shape[2], -1)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2)


def _explicit(
    query: Float[Tensor, "B H S E"],
    key: Float[Tensor, "B H K E"],
    value: Float[Tensor, "B H K E"],
    attend: Bool[Tensor, "B *Q K"] | None,
) -> Float[Tensor, "B H S E"]:
    """The same by its definition, with the softmax in float32."""
    num_heads, scaled, key = query.shape[1], (query * query.shape[-1] ** -0.5).flatten(0, 1), key.flatten(0, 1)
    if attend is None:
        scores = scaled @ key.transpose(1, 2)
    else:
        bias = query.new_zeros(()).masked_fill(~_by_query(attend), float("-inf")).expand(-1, num_heads, -1, -1)
        scores = torch.baddbmm(bias.flatten(0, 1), scaled, key.transpose(1, 2))
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(value.dtype)
    return (weights @ value.flatten(0, 1)).unflatten(0, (-1, num_heads))


def _by_query(attend: Bool[Tensor, "B *Q K"]) -> Bool[Tensor, "B 1 Q1 K"]:
    """With a dimension for heads, and one for queries that is 1 where all may attend to the same keys."""
    return attend[:, None, None, :] if attend.ndim == 2 else attend[:, None]


def usable(attend: Bool[Tensor, "B *Q K"] | None) -> Bool[Tensor, "B *Q K"] | None:
    """The same mask, except that a row, or a query, that attends to nothing attends to everything.

    It is padding as a whole; its values mean nothing, but they must stay finite.
    """
    return None if attend is None else attend | ~attend.any(dim=-1, keepdim=True)


def within(documents: Int[Tensor, "B S"], attend: Bool[Tensor, "B S"] | None) -> Bool[Tensor, "B S S"]:
    """Which keys each query may attend to where rows hold several documents: those of its own document."""
    is_same = documents[:, :, None] == documents[:, None, :]
    return is_same if attend is None else is_same & attend[:, None, :]
