"""The one attention function; which kernel runs is decided here and nowhere else.

Enters: queries, keys, values and who may be attended. Leaves: one vector per query and head. Does not know about
positions or parameters.
"""

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def attention(
    query: Float[Tensor, "B S H E"],
    key: Float[Tensor, "B K G E"],
    value: Float[Tensor, "B K G E"],
    attend: Bool[Tensor, "B K"] | None,
) -> Float[Tensor, "B S H E"]:
    """Scaled dot-product attention in both directions; never causal.

    Args:
        attend: True where a key may be attended, by every query of its row; None means everywhere. A row needs at
            least one True, see `usable`.
    """
    num_groups = query.shape[2] // key.shape[2]
    if num_groups > 1:
        key, value = (x.repeat_interleave(num_groups, dim=2) for x in (key, value))
    mask = None if attend is None else attend[:, None, None, :].expand(-1, 1, query.shape[1], -1)
    mixed = F.scaled_dot_product_attention(
        query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), attn_mask=mask
    )
    return mixed.transpose(1, 2)


def usable(attend: Bool[Tensor, "B K"] | None) -> Bool[Tensor, "B K"] | None:
    """The same mask, except that a row that attends to nothing attends to everything.

    Such a row is padding as a whole; its values mean nothing, but they must stay finite.
    """
    return None if attend is None else attend | ~attend.any(dim=1, keepdim=True)
