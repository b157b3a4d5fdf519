"""Pixels to the numbers whose signs are the codes.

Enters: pictures in [-1, 1] with sides that are multiples of the downsampling. Leaves: a latent with one channel a bit.
Does not know the order of bits in a code.

    conv_in --> down.0 --> down.1 --> ... --> down.4 --> mid --> norm_out, SiLU, conv_out --> quant_conv
    full size     1/2        1/4              1/16
"""

from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dynin.tokenizers.magvit2.layers import Downsample, Magvit2Config, Middle, ResidualBlock, conv3, norm


class EncoderLevel(nn.Module):
    """Residual blocks at one resolution, then half of it unless the level is the last."""

    def __init__(self, channels_in: int, channels_out: int, num_blocks: int, is_last: bool) -> None:
        super().__init__()
        widths = [channels_in] + [channels_out] * num_blocks
        self.block = nn.ModuleList(ResidualBlock(*pair) for pair in pairwise(widths))
        self.downsample = nn.Identity() if is_last else Downsample(channels_out)

    def forward(self, x: Float[Tensor, "B C Y X"]) -> Float[Tensor, "B D _ _"]:
        """The map that the next level starts from."""
        for block in self.block:
            x = block(x)
        return self.downsample(x)


class Encoder(nn.Module):
    """The whole encoder.

    Source:
        MAGVIT-v2, arXiv:2310.05737, in the two-dimensional form of Show-o, arXiv:2408.12528.
    """

    def __init__(self, config: Magvit2Config) -> None:
        """Draw nothing: the weights keep PyTorch's initialisation until they are loaded."""
        super().__init__()
        widths = [config.width * mult for mult in config.encoder_mult]
        befores = [config.width, *widths[:-1]]
        last = len(widths) - 1
        self.conv_in = conv3(3, config.width)
        self.down = nn.ModuleList(
            EncoderLevel(befores[level], widths[level], config.encoder_blocks[level], level == last)
            for level in range(len(widths))
        )
        self.mid = Middle(widths[-1])
        self.norm_out = norm(widths[-1])
        self.conv_out = conv3(widths[-1], config.num_bits)
        self.quant_conv = nn.Conv2d(config.num_bits, config.num_bits, 1)

    def forward(self, pixels: Float[Tensor, "B 3 Y X"]) -> Float[Tensor, "B K _ _"]:
        """Pixels to the latent before quantisation."""
        x = self.conv_in(pixels)
        for level in self.down:
            x = level(x)
        x = self.mid(x)
        return self.quant_conv(self.conv_out(F.silu(self.norm_out(x))))
