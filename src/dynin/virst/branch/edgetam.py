"""Lighter and newer trackers behind the same protocol: EdgeTAM, and the tracker of SAM3.

Enters: nothing. Leaves: what is particular to these families. Does not know the calls themselves: they are those of
`sam2.py`, since `transformers` names the parts of all three alike.

What fits and what does not:
- EdgeTAM stores a frame as a fixed number of tokens, made by a resampler, in place of its cells. Its image encoder is a
  network of the package `timm`, which is not among the extras of this package; a config with another encoder, such as
  SAM2's, is built without it.
- The tracker of SAM3 has every part of SAM2's under the same name; its image encoder, its patches of 14 px and its
  colours differ. What else SAM3 does (finding all instances of a named concept) is no mask branch.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dynin.virst.branch.sam2 import SAM2, Family, GridMemory


@dataclass(frozen=True, kw_only=True, slots=True)
class ResampledMemory:
    """A frame becomes learned latents that looked at all cells, and latents that looked at one window each."""

    def condense(
        self, network: Any, cells: Float[Tensor, "B E I J"], position: Float[Tensor, "1 E I J"]
    ) -> tuple[Float[Tensor, "B P E"], Float[Tensor, "#B P E"]]:
        """The latents and their position code, row by row: the library's resampler takes one row at a time."""
        rows = [network.spatial_perceiver(row, position) for row in cells.split(1)]
        return torch.cat([tokens for tokens, _ in rows]), rows[0][1]

    def extra(self, num_frames: int) -> dict[str, int]:
        """Positions are repeated once for each frame that is remembered."""
        return {"num_spatial_memory_tokens": num_frames}


EDGETAM = Family(
    model_type="edgetam_video",
    class_name="EdgeTamVideoModel",
    config_name="EdgeTamVideoConfig",
    memory=ResampledMemory(),
)
SAM3_TRACKER = Family(
    model_type="sam3_tracker_video",
    class_name="Sam3TrackerVideoModel",
    config_name="Sam3TrackerVideoConfig",
    memory=GridMemory(),
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)
FAMILIES = {family.model_type: family for family in (SAM2, EDGETAM, SAM3_TRACKER)}
