"""Token merging: tokens that are alike become one, their mean, until so many are left. It has no weights.

Enters: tokens of a clip or picture. Leaves: fewer tokens, and how many each stands for. Does not know pictures.

    tokens  a b a b a b ..                 alternate between two sets
    each a  looks for the b that is most like it
    the r a's whose b is most like them    are added into it, weighted by how many tokens each stands for
    what is left: the other a's, those with a liker b first; then all b's

Source:
    Bolya et al., Token Merging: Your ViT But Faster, arXiv:2210.09461; `AIDASLab/VIRST model/videochat`,
    projector `tome16_mlp_hd64`.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def schedule(num_tokens: int, num_left: int) -> tuple[int, ...]:
    """How many tokens each step removes: half of them until fewer are too many, then the rest.

    3136 to 64 is 1568, 784, 392, 196, 98, 34.

    Raises:
        ValueError: If fewer tokens are there than are to be left, or none is.
    """
    if not 1 <= num_left <= num_tokens:
        raise ValueError(f"{num_tokens} tokens cannot be merged to {num_left}; ask for 1 to {num_tokens}")
    removed = []
    while num_tokens > num_left:
        removed.append(min(num_tokens // 2, num_tokens - num_left))
        num_tokens -= removed[-1]
    return tuple(removed)


def merge(
    tokens: Float[Tensor, "B S D"], num_left: int, num_heads: int, *, is_exact: bool = True
) -> tuple[Float[Tensor, "B K D"], Float[Tensor, "B K"]]:
    """Merge the tokens of each row until `num_left` of them stand for all.

    Args:
        num_heads: Slices of a token, whose mean is what is compared.
        is_exact: Compare, count and add in float32, whatever the tokens are in.

    Returns:
        The tokens that are left, and how many each stands for; the means weighted so are those of all tokens.
    """
    given = tokens.dtype
    if is_exact:
        tokens = tokens.float()
    sizes = torch.ones_like(tokens[..., :1])
    for num_removed in schedule(tokens.shape[1], num_left):
        tokens, sizes = _step(tokens, sizes, num_removed, num_heads)
    return tokens.to(given), sizes[..., 0]


def _step(
    tokens: Float[Tensor, "B S D"], sizes: Float[Tensor, "B S 1"], num_removed: int, num_heads: int
) -> tuple[Float[Tensor, "B K D"], Float[Tensor, "B K 1"]]:
    """One step; ties are settled by position."""
    with torch.no_grad():
        compared = F.normalize(tokens.unflatten(-1, (num_heads, -1)).mean(dim=-2), dim=-1)  # B S E
        likeness, best = (compared[:, ::2] @ compared[:, 1::2].transpose(1, 2)).max(dim=-1)  # B A
        order = likeness.argsort(dim=-1, descending=True, stable=True)
        merged, kept = order[:, :num_removed], order[:, num_removed:]
        into = best.gather(1, merged)
    weighted = torch.cat([tokens * sizes, sizes], dim=-1)  # sums and counts travel together
    first, second = weighted[:, ::2], weighted[:, 1::2]
    width = weighted.shape[-1]
    added = first.gather(1, merged[..., None].expand(-1, -1, width))
    second = second.scatter_add(1, into[..., None].expand(-1, -1, width), added)
    left = torch.cat([first.gather(1, kept[..., None].expand(-1, -1, width)), second], dim=1)
    return left[..., :-1] / left[..., -1:], left[..., -1:]
