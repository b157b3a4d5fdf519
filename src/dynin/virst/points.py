"""Patches of the backbone as prompts of their own: where in or near each something lies, and how far it is meant.

Enters: the backbone's states of patches, how likely each is meant, features of the mask branch. Leaves: a place and a
prompt for each patch. Does not know sentences, or what else the branch is told.
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

    Where a point lies follows from its patch's state and from what the branch sees in the patch's four quarters; at
    first it is the middle, and nothing keeps it inside. What it says besides follows from the state and from how far it
    is meant.
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
        """Column and row of each point, in shares of the frame's sides.

        Args:
            states: Of P patches, row by row.
            middles: Of the patches: column and row.
            grid: Rows and columns of patches.
            quarters: See `quarters_of`.
        """
        rows, columns = grid
        reach = middles.new_tensor([0.5 / columns, 0.5 / rows])  # from the middle of a patch to its edges
        return middles + reach * self.offset(torch.cat((states, quarters), dim=-1))

    def prompts(
        self,
        states: Float[Tensor, "R T P D"],
        codes: Float[Tensor, "R T P C"],
        probs: Float[Tensor, "R T P"],
        shares: Float[Tensor, "R T P"],
    ) -> Float[Tensor, "R T P C"]:
        """A prompt for each point.

        Args:
            codes: The branch's codes of the points' places.
            probs: That its patch is meant, by itself.
            shares: That its patch is the one that is meant, among those of its frame.
        """
        meant = torch.stack((probs, shares), dim=-1)
        return codes + self.mark(torch.cat((states, meant), dim=-1))


def quarters_of(
    features: Float[Tensor, "V T C Y X"], grid: tuple[int, int], videos: Int[Tensor, " R"]
) -> Float[Tensor, "R T P W"]:
    """The branch's features of the four quarters of each patch, for the video of each row.

    W is 4 C: of each channel in turn the upper left quarter, the upper right, the lower left, the lower right.
    """
    rows, columns = grid
    maps = F.adaptive_avg_pool2d(features.flatten(0, 1), (2 * rows, 2 * columns))  # VT C 2r 2c
    quarters = F.pixel_unshuffle(maps, 2).flatten(2).transpose(1, 2)  # VT P 4C
    return quarters.unflatten(0, features.shape[:2])[videos]
