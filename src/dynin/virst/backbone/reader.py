"""Frames into the codes of a picture tokenizer, where things do not lie on its grid.

Enters: frames. Leaves: for every patch, how likely each code is, and what was seen besides. Does not know sentences,
networks that read codes, or files.

The small picture tokenizer looks at one patch at a time, and its codes mean things that fill patches, as the pictures
that it was made for show them. In a video things lie anywhere: cut by the grid, they become codes that mean nothing.
This network looks around each patch, and says the code of the thing whose middle lies there, at any size.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

GROUPS = 8
PATCH_PX = 16
"""Side of a patch: two to the number of halvings."""


class FrameReader(nn.Module):
    """A convolutional network of four halvings; see above."""

    def __init__(self, num_codes: int, width: int, generator: torch.Generator, *, detail_dim: int = 0) -> None:
        """Draw the weights: normal, by how many numbers each output sums; no bias.

        Args:
            detail_dim: Width of what is told of each patch besides its code, such as where in it something lies; it
                starts at 0. With 0 nothing is.
        """
        super().__init__()
        half, twice = width // 2, 2 * width
        self.layers = nn.ModuleList(
            (
                nn.Conv2d(3, half, 5, stride=2, padding=2),
                nn.Conv2d(half, width, 3, stride=2, padding=1),
                nn.Conv2d(width, width, 3, padding=1),
                nn.Conv2d(width, twice, 3, stride=2, padding=1),
                nn.Conv2d(twice, twice, 3, padding=1),
                nn.Conv2d(twice, twice, 2, stride=2),
            )
        )
        self.norms = nn.ModuleList(nn.GroupNorm(GROUPS, layer.out_channels) for layer in self.layers)  # type: ignore[arg-type]
        self.output = nn.Linear(twice, num_codes)
        self.detail = nn.Linear(twice, detail_dim, bias=False) if detail_dim else None
        with torch.no_grad():
            for layer in (*self.layers, self.output):
                layer.weight.normal_(std=(2 / layer.weight[0].numel()) ** 0.5, generator=generator)
                layer.bias.zero_()
            if self.detail is not None:
                self.detail.weight.zero_()

    def forward(self, frames: Float[Tensor, "F 3 Y X"]) -> Float[Tensor, "F N K"]:
        """Frames in [-1, 1], sides a multiple of 16 px, to a number for each of K codes at N patches, by rows."""
        logits: Tensor = self.output(self.features(frames))
        return logits

    def features(self, frames: Float[Tensor, "F 3 Y X"]) -> Float[Tensor, "F N W"]:
        """What codes and details follow from: W numbers, twice the width, for each patch; frames as in `forward`."""
        x = frames
        for layer, norm in zip(self.layers, self.norms, strict=True):
            found = F.gelu(norm(layer(x)))
            x = x + found if found.shape == x.shape else found
        return x.flatten(2).transpose(1, 2)
