"""Features of the frames that were seen as one row of cells for every video, each with its time and place.

Enters: features of the mask branch. Leaves: `Cells`. Does not know sentences, or who looks at them.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SeenFrames:
    """The frames that features are fused from: V videos, each with up to T of them."""

    features: Float[Tensor, "V T C Y X"]
    is_frame: Bool[Tensor, "V T"]
    """Which frames there are; at least one of every video."""
    times: Float[Tensor, "V T"]
    """When they are: places in the list of frames, or seconds."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Cells:
    """Down-sampled features with the place of each."""

    values: Float[Tensor, "V S C"]
    """In the order of time, row, column."""
    is_cell: Bool[Tensor, "V S"]
    places: Float[Tensor, "V S 3"]
    """Time, row and column of each."""
    num_cells: int
    """Of one frame."""


def spatial_down(dim: int, num_downs: int) -> nn.Sequential:
    """Convolutions that halve a map so many times."""
    layers = [part for _ in range(num_downs) for part in (nn.Conv2d(dim, dim, 3, stride=2, padding=1), nn.ReLU())]
    return nn.Sequential(*layers)


def cells_of(seen: SeenFrames, down: nn.Sequential, norm: nn.LayerNorm) -> Cells:
    """Features as one row of cells for every video."""
    num_videos, num_times = seen.is_frame.shape
    maps = down(seen.features.flatten(0, 1))  # VT C y x
    rows, columns = maps.shape[-2:]
    values = norm(maps.flatten(2).transpose(1, 2))  # VT c C
    each = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).reshape(-1, 2)  # c 2
    spots = each.to(maps.device, torch.float32).expand(num_videos, num_times, -1, -1)
    times = seen.times[:, :, None, None].expand(-1, -1, rows * columns, 1).float()
    return Cells(
        values=values.unflatten(0, (num_videos, num_times)).flatten(1, 2),
        is_cell=seen.is_frame.repeat_interleave(rows * columns, dim=1),
        places=torch.cat((times, spots), dim=-1).flatten(1, 2),
        num_cells=rows * columns,
    )
