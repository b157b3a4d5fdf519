"""Boxes as prompts, by which a new mask branch learns to segment and to follow before any sentence is read.

Enters: masks, and how a branch codes places. Leaves: prompt tokens. Does not know losses. What is learned here is
thrown away with the stage: it stands in for the pre-training that published branches have had.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

NUM_FREQUENCIES = 6


def boxes_of(masks: Bool[Tensor, "R Y X"]) -> Float[Tensor, "R 5"]:
    """Left, top, right and bottom of what is in each mask, in shares of its sides; and 1, or zeros where nothing is."""
    rows, columns = masks.shape[-2:]
    found = masks.flatten(1).any(dim=1)
    edges = []
    for dim, length in ((1, columns), (2, rows)):
        line = masks.any(dim=dim).float()
        first = line.argmax(dim=1) / length
        last = 1 - line.flip(1).argmax(dim=1) / length
        edges.append((first, last))
    (left, right), (top, bottom) = edges
    return torch.stack([left, top, right, bottom, torch.ones_like(left)], dim=1) * found[:, None]


def outline(boxes: Float[Tensor, "R 5"], count: int) -> Float[Tensor, "R count 2"]:
    """Points at equal distances along the outline of each box, clockwise from its upper left: column and row."""
    left, top, right, bottom, _ = boxes.split(1, dim=1)  # R 1 each
    along = torch.arange(count, device=boxes.device) * (4 / count)
    across = along.clamp(max=1) - (along - 2).clamp(0, 1)
    down = (along - 1).clamp(0, 1) - (along - 3).clamp(min=0)
    return torch.stack([left + across * (right - left), top + down * (bottom - top)], dim=2)


class BoxPrompter(nn.Module):
    """A box as N prompt tokens: the codes of places on its outline, as the decoder knows them, and what is learned."""

    def __init__(self, num_tokens: int, dim: int, generator: torch.Generator) -> None:
        super().__init__()
        self.num_tokens = num_tokens
        self.inner = nn.Linear(5 + 8 * NUM_FREQUENCIES, 2 * dim)
        self.outer = nn.Linear(2 * dim, num_tokens * dim)
        with torch.no_grad():
            for layer in (self.inner, self.outer):
                bound = float(layer.in_features) ** -0.5
                layer.weight.uniform_(-bound, bound, generator=generator)
                layer.bias.uniform_(-bound, bound, generator=generator)

    def forward(self, masks: Bool[Tensor, "R Y X"], places: Callable[[Tensor], Tensor]) -> Float[Tensor, "R N C"]:
        """Prompt tokens for the boxes of masks.

        Args:
            places: See `branch.protocol.MaskBranch.place`.
        """
        boxes = boxes_of(masks)
        scale = torch.pi * 2.0 ** torch.arange(NUM_FREQUENCIES, device=boxes.device)
        angles = (boxes[:, :4, None] * scale).flatten(1)
        code = torch.cat([boxes, angles.sin() * boxes[:, 4:], angles.cos() * boxes[:, 4:]], dim=1)
        learned = self.outer(nn.functional.gelu(self.inner(code))).unflatten(1, (self.num_tokens, -1))
        return learned + places(outline(boxes, self.num_tokens)) * boxes[:, None, 4:]
