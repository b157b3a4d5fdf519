"""What encoder and decoder are built from, and the sizes of both.

Enters: feature maps. Leaves: feature maps of the same, half or twice the size. Does not know codes or pixels.

    ResidualBlock   x --> norm, SiLU, 3x3 --> norm, SiLU, 3x3 --> + shortcut(x)
    SpatialAttention  every place attends to every place, one head as wide as the map
    Middle          block_1 --> attn_1 --> block_2
    Downsample      one row below and one column to the right of zeros, then 3x3 with stride 2
    Upsample        nearest neighbour twice as large, then 3x3; computed at the small size

Attributes carry the published names, so that the state of a module is the published state.
"""

import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dynin.errors import ConfigError
from dynin.nn.attention import attention

NORM_GROUPS = 32
NORM_EPS = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class Magvit2Config:
    """Sizes; the defaults are the published tokenizer. Level 0 works at full resolution, each next at half of it."""

    width: int = 128
    """Channels at full resolution, a multiple of 32."""
    num_bits: int = 13
    """The codebook has 2 ** num_bits codes."""
    image_size: int = 512
    """Side in pixels of the pictures that the model makes."""
    encoder_mult: tuple[int, ...] = (1, 2, 2, 4, 4)
    """Channels of each level, in multiples of `width`."""
    encoder_blocks: tuple[int, ...] = (4, 3, 4, 3, 4)
    decoder_mult: tuple[int, ...] = (1, 1, 2, 2, 4)
    decoder_blocks: tuple[int, ...] = (4, 4, 3, 4, 3)

    def __post_init__(self) -> None:
        """Check the ranges."""
        depths = {len(x) for x in (self.encoder_mult, self.encoder_blocks, self.decoder_mult, self.decoder_blocks)}
        if len(depths) != 1 or 0 in depths:
            raise ConfigError(
                "encoder and decoder have different numbers of levels; give every tuple one entry a level"
            )
        if self.width < 1 or self.width % NORM_GROUPS:
            raise ConfigError(f"width is {self.width}; the norms need a positive multiple of {NORM_GROUPS}")
        if not 1 <= self.num_bits <= 16:
            raise ConfigError(f"num_bits is {self.num_bits}; the codebook needs 1 to 16")
        if self.image_size < 1 or self.image_size % self.downsample:
            raise ConfigError(f"image_size is {self.image_size}; give a positive multiple of {self.downsample}")

    @property
    def downsample(self) -> int:
        """Side in pixels of the square that one code stands for: the resolution is halved between levels."""
        return 1 << (len(self.encoder_mult) - 1)


def norm(channels: int) -> nn.GroupNorm:
    """The group norm used everywhere."""
    return nn.GroupNorm(NORM_GROUPS, channels, eps=NORM_EPS)


def conv3(channels_in: int, channels_out: int) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size; zeros around the border."""
    return nn.Conv2d(channels_in, channels_out, 3, padding=1)


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut, which is a 1x1 convolution where the channels change."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.norm1 = norm(channels_in)
        self.conv1 = conv3(channels_in, channels_out)
        self.norm2 = norm(channels_out)
        self.conv2 = conv3(channels_out, channels_out)
        is_same = channels_in == channels_out
        self.nin_shortcut = nn.Identity() if is_same else nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Float[Tensor, "B C Y X"]) -> Float[Tensor, "B D Y X"]:
        """The map with `channels_out` channels, of the same size."""
        hidden = self.conv1(F.silu(self.norm1(x), inplace=True))
        hidden = self.conv2(F.silu(self.norm2(hidden), inplace=True))
        hidden += self.nin_shortcut(x)
        return hidden


class SpatialAttention(nn.Module):
    """Attention among all places of a map, with a single head over all channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Float[Tensor, "B C Y X"]) -> Float[Tensor, "B C Y X"]:
        """The map with what every place gathered from all others added to it."""
        normed = self.norm(x)
        query, key, value = (
            layer(normed).flatten(2).transpose(1, 2)[:, :, None]  # B YX 1 C
            for layer in (self.q, self.k, self.v)
        )
        mixed = attention(query, key, value, None)[:, :, 0]  # B YX C
        return x + self.proj_out(mixed.transpose(1, 2).reshape(x.shape))


class Middle(nn.Module):
    """The part at the lowest resolution, where every place sees every other."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(channels, channels)
        self.attn_1 = SpatialAttention(channels)
        self.block_2 = ResidualBlock(channels, channels)

    def forward(self, x: Float[Tensor, "B C Y X"]) -> Float[Tensor, "B C Y X"]:
        """A map of the same shape."""
        return self.block_2(self.attn_1(self.block_1(x)))


class Downsample(nn.Module):
    """Half the size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Float[Tensor, "B C Y X"]) -> Float[Tensor, "B C _ _"]:
        """A map of half the size.

        Parity:
            The zeros stand to the right and below only, not all around.
        """
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Twice the size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv3(channels, channels)

    def forward(self, x: Float[Tensor, "B C Y X"]) -> Float[Tensor, "B C _ _"]:
        """A map of twice the size: the convolution of `x` with every place repeated 2 x 2 times.

        The repeated map is not made. A window of it covers 2 x 2 places of `x`, so that the taps on equal places can
        be added up first: 2 x 2 taps for each of the four outputs of a place instead of 3 x 3.
        """
        batch, channels, rows, columns = x.shape
        taps = self.conv.weight.permute(2, 3, 0, 1).contiguous()  # 3 3 C C
        taps = _merged(_merged(taps, 0), 2)  # right, its taps, down, its taps: 2 2 2 2 C C
        taps = taps.permute(2, 0, 4, 3, 1, 5).reshape(4 * channels, 2, 2, channels).permute(0, 3, 1, 2)  # 4C C 2 2
        quarters = F.conv2d(x, taps, self.conv.get_parameter("bias").repeat(4), padding=1)  # B 4C Y+1 X+1
        quarters = quarters.unflatten(1, (2, 2, channels))
        layout = torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
        size = (batch, channels, 2 * rows, 2 * columns)
        large = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=layout)
        for down, right in itertools.product(range(2), range(2)):
            large[:, :, down::2, right::2] = quarters[:, down, right, :, down : down + rows, right : right + columns]
        return large


def _merged(taps: Float[Tensor, "*_"], dim: int) -> Float[Tensor, "2 2 *_"]:
    """Three taps along `dim` as two times two, for the first and the second of two outputs that stand for one place.

    input             before    the place    after
    first output      w0        w1 + w2
    second output               w0 + w1      w2
    """
    before, middle, after = taps.unbind(dim)
    return torch.stack([torch.stack([before, middle + after]), torch.stack([before + middle, after])])
