"""Patches of the backbone as prompts of their own: where in each something lies, and how far it is meant.

Enters: the backbone's states of patches, how likely each is meant, features of the mask branch. Leaves: a place in each
patch and a prompt for it. Does not know sentences, or what else the branch is told.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

Place = Callable[[Float[Tensor, "B N 2"]], Float[Tensor, "B N C"]]
"""The branch's code of places: columns and rows, in shares of the frame's sides."""


class Points(nn.Module):
    """A point for each patch, as one sets them on a picture; not published.

    Where in its patch a point lies follows from the patch's state and from what the branch sees in its four quarters;
    at first it is the middle. What a point says besides its place follows from the state and from how far it is meant.
    """

    def __init__(self, st_dim: int, dim: int) -> None:
        """`st_dim` is the width of states, `dim` that of the branch."""
        super().__init__()
        self.offset = nn.Sequential(nn.Linear(st_dim + 4 * dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, 2))
        self.mark = nn.Linear(st_dim + 2, dim)

    def places(
        self,
        states: Float[Tensor, "R T P D"],
        middles: Float[Tensor, "P 2"],
        grid: tuple[int, int],
        quarters: Float[Tensor, "R T P W"],
    ) -> Float[Tensor, "R T P 2"]:
        """Column and row of each point, in shares of the frame's sides."""
        rows, columns = grid
        reach = middles.new_tensor([0.5 / columns, 0.5 / rows])  # from the middle of a patch to its edges
        return middles + reach * self.offset(torch.cat((states, quarters), dim=-1))

    def prompts(
        self, states: Float[Tensor, "R T P D"], codes: Float[Tensor, "R T P C"], logits: Float[Tensor, "R T P"]
    ) -> Float[Tensor, "R T P C"]:
        """A prompt for each point.

        Args:
            codes: Of the places.
            logits: Of its being meant: told alone, and as a share among the patches of its frame.
        """
        meant = torch.stack((logits.sigmoid(), logits.softmax(dim=-1)), dim=-1)
        return codes + self.mark(torch.cat((states, meant), dim=-1))


def quarters_of(
    features: Float[Tensor, "V T C Y X"], grid: tuple[int, int], videos: Int[Tensor, " R"]
) -> Float[Tensor, "R T P W"]:
    """The branch's features of the four quarters of each patch, one behind the other, for the video of each row."""
    rows, columns = grid
    maps = F.adaptive_avg_pool2d(features.flatten(0, 1), (2 * rows, 2 * columns))  # VT C 2r 2c
    quarters = F.pixel_unshuffle(maps, 2).flatten(2).transpose(1, 2)  # VT P 4C
    return quarters.unflatten(0, features.shape[:2])[videos]
