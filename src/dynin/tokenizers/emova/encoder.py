"""Mel energies to one vector for every 40 ms.

Enters: normalised features of several sounds, padded, and how many frames are filled. Leaves: hidden states at a
quarter of the rate, and how many of them are filled. Does not know codes or waveforms.

    0  conv 5, stride 2 --> 1  conv 5, stride 2 --> 2  conv 1 --> 3  transformer
    4  conv 5           --> 5  conv 1           --> 6  transformer
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from dynin.tokenizers.emova import networks
from dynin.tokenizers.emova.config import EncoderSizes


class ConvNorm(nn.Module):
    """A convolution over time, a norm over channels, and in places what is above 0 of it.

    Parity:
        The zeros around a sound are explicit: one before and two behind where the rate is halved, else two on each
        side. With an even number of frames, half of them leave.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: int, *, stride: int = 1, has_relu: bool) -> None:
        super().__init__()
        self.stride = stride
        self.zeros = (0, 0) if kernel == 1 else (1, 2) if stride == 2 else (2, 2)
        self.has_relu = has_relu
        self.conv = nn.Conv1d(channels_in, channels_out, kernel, stride=stride)
        self.norm = nn.LayerNorm(channels_out)

    def forward(
        self, x: Float[Tensor, "B C T"], count: Int[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B D _"], Int[Tensor, " B"]]:
        """The next map and how much of it is filled; what lies behind the filled part of `x` is not looked at."""
        if self.zeros != (0, 0):
            x = F.pad(x * inside(count, x.shape[2])[:, None], self.zeros)
        x = self.norm(self.conv(x).transpose(1, 2)).transpose(1, 2)
        return (F.relu(x) if self.has_relu else x), -(-count // self.stride)


class SpiralEncoder(nn.Module):
    """Five convolutions and two transformers, in a list so that their numbers are the published ones.

    Source:
        SPIRAL, arXiv:2201.10207, as the content encoder of EMOVA, arXiv:2409.18042.
    """

    def __init__(self, sizes: EncoderSizes, num_bands: int) -> None:
        """Draw nothing: the weights keep the library's initialisation until they are loaded."""
        super().__init__()
        first, second, third, fourth, fifth = sizes.widths
        self.block_modules = nn.ModuleList(
            [
                ConvNorm(num_bands, first, 5, stride=2, has_relu=True),
                ConvNorm(first, second, 5, stride=2, has_relu=True),
                ConvNorm(second, third, 1, has_relu=False),
                networks.transformer(third, sizes.lower, sizes),
                ConvNorm(third, fourth, 5, has_relu=True),
                ConvNorm(fourth, fifth, 1, has_relu=False),
                networks.transformer(fifth, sizes.upper, sizes),
            ]
        )

    def forward(
        self, features: Float[Tensor, "B M K"], count: Int[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B _ D"], Int[Tensor, " B"]]:
        """Hidden states, a quarter as many as frames, and how many are filled; the others mean nothing.

        Args:
            features: K is a multiple of 16.
            count: Filled frames of each row.
        """
        x = features
        for block in self.block_modules:
            if isinstance(block, ConvNorm):
                x, count = block(x, count)
            else:
                hidden = x.transpose(1, 2)  # B T D
                x = block(hidden, attention_mask=inside(count, x.shape[2]))[0].transpose(1, 2)
        return x.transpose(1, 2), count


def inside(count: Int[Tensor, " B"], length: int) -> Bool[Tensor, "B T"]:
    """True at the first `count` places of every row."""
    return torch.arange(length, device=count.device) < count[:, None]
