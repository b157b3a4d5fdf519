"""The signs of codes to pixels.

Enters: maps of -1 and 1 with one channel a bit. Leaves: pixels, which may lie a little outside [-1, 1]. Does not know
the order of bits in a code.

    post_quant_conv --> conv_in --> mid --> up.4 --> up.3 --> ... --> up.0 --> norm_out, SiLU, conv_out
    1/16                                    1/8      1/4            full size
"""

from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dynin.tokenizers.magvit2.layers import Magvit2Config, Middle, ResidualBlock, Upsample, conv3, norm


class DecoderLevel(nn.Module):
    """Residual blocks at one resolution, then twice of it unless the level is the last to run."""

    def __init__(self, channels_in: int, channels_out: int, num_blocks: int, is_last: bool) -> None:
        super().__init__()
        widths = [channels_in] + [channels_out] * num_blocks
        self.block = nn.ModuleList(ResidualBlock(*pair) for pair in pairwise(widths))
        self.upsample = nn.Identity() if is_last else Upsample(channels_out)

    def forward(self, x: Float[Tensor, "B C Y X"]) -> Float[Tensor, "B D _ _"]:
        """The map that the level above starts from."""
        for block in self.block:
            x = block(x)
        return self.upsample(x)


class Decoder(nn.Module):
    """The whole decoder; levels are numbered by resolution and run from the last to level 0.

    Source:
        MAGVIT-v2, arXiv:2310.05737, in the two-dimensional form of Show-o, arXiv:2408.12528.
    """

    def __init__(self, config: Magvit2Config) -> None:
        """Draw nothing: the weights keep PyTorch's initialisation until they are loaded."""
        super().__init__()
        widths = [config.width * mult for mult in config.decoder_mult]
        befores = [*widths[1:], widths[-1]]
        self.post_quant_conv = nn.Conv2d(config.num_bits, config.num_bits, 1)
        self.conv_in = conv3(config.num_bits, widths[-1])
        self.mid = Middle(widths[-1])
        self.up = nn.ModuleList(
            DecoderLevel(befores[level], widths[level], config.decoder_blocks[level], level == 0)
            for level in range(len(widths))
        )
        self.norm_out = norm(widths[0])
        self.conv_out = conv3(widths[0], 3)

    def forward(self, signs: Float[Tensor, "B K Y X"]) -> Float[Tensor, "B 3 _ _"]:
        """Signs to pixels, not clamped: there is no activation at the end."""
        x = self.mid(self.conv_in(self.post_quant_conv(signs)))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))
