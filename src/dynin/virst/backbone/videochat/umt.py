"""The tower: frames of short clips to features of patches; all patches of a clip see each other.

Enters: clips of frames, or single pictures, as RGB in [-1, 1]. Leaves: one vector for each patch of each frame. Does
not know how many of them are kept, nor text.

    clip   T frames --patches of 16 px--> T x 28 x 28 vectors + positions --> 23 blocks --> norm
    block  + attention over all patches of the clip (queries and values have a bias, keys none)
           + feed-forward with GELU

Positions are fixed sines of the place in the list of all patches, frame after frame and row after row, made for 14 x 14
patches and interpolated to the side at hand. A picture has positions of its own, those of one frame alone.

Source:
    Li et al., Unmasked Teacher, arXiv:2303.16058; `AIDASLab/VIRST model/videochat/vision_tower_builder.py`.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dynin.nn.attention import attention
from dynin.virst.backbone.videochat.config import TowerConfig

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
"""Of red, green and blue in [0, 1] over ImageNet, by which frames are normalised."""
THETA = 10_000.0


class Tower(nn.Module):
    """Clips to features of their patches."""

    def __init__(self, config: TowerConfig):
        super().__init__()
        self.config = config
        kernel = (1, config.patch_px, config.patch_px)
        self.patches = nn.Conv3d(3, config.width, kernel, stride=kernel)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)

    def forward(self, frames: Float[Tensor, "B T 3 Y X"]) -> Float[Tensor, "B S C"]:
        """Features of T x rows x columns patches, in this order.

        Args:
            frames: RGB in [-1, 1], squares of `frame_px`; one frame is a picture, more are a clip.
        """
        weight = self.patches.weight
        pixels = normalised(frames).to(weight.dtype).transpose(1, 2)  # B 3 T Y X
        x = self.patches(pixels).flatten(2).transpose(1, 2)  # B S C
        x = x + positions(frames.shape[1], self.config).to(x)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class Block(nn.Module):
    """One layer, each half of which adds to its input."""

    def __init__(self, config: TowerConfig):
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width, eps=config.block_norm_eps)
        self.attention = Attention(config.width, config.num_heads)
        self.mlp_norm = nn.LayerNorm(config.width, eps=config.block_norm_eps)
        self.up = nn.Linear(config.width, config.mlp_dim)
        self.down = nn.Linear(config.mlp_dim, config.width)

    def forward(self, x: Float[Tensor, "B S C"]) -> Float[Tensor, "B S C"]:
        """The same shape."""
        x = x + self.attention(self.attention_norm(x))
        return x + self.down(F.gelu(self.up(self.mlp_norm(x))))


class Attention(nn.Module):
    """Every patch of a clip attends to every other."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.query_bias = nn.Parameter(torch.zeros(width))
        self.value_bias = nn.Parameter(torch.zeros(width))
        self.output = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "B S C"]) -> Float[Tensor, "B S C"]:
        """The same shape."""
        bias = torch.cat([self.query_bias, torch.zeros_like(self.query_bias), self.value_bias])
        joined = F.linear(x, self.qkv.weight, bias).unflatten(-1, (3, self.num_heads, -1))  # B S 3 H E
        query, key, value = joined.unbind(dim=2)
        return self.output(attention(query, key, value, None).flatten(2))


def normalised(frames: Float[Tensor, "B T 3 Y X"]) -> Float[Tensor, "B T 3 Y X"]:
    """Pixels in [-1, 1] by the mean and deviation of ImageNet, in float32."""
    mean, std = (torch.tensor(values, device=frames.device)[:, None, None] for values in (IMAGE_MEAN, IMAGE_STD))
    return ((frames.float() + 1) / 2 - mean) / std


def positions(num_frames: int, config: TowerConfig) -> Float[Tensor, "S C"]:
    """What is added to each patch of a clip, or of a picture where there is one frame; on the CPU.

    Made for `trained_side` patches a side, then brought to the side at hand by bicubic interpolation of each frame,
    and to another number of frames by linear interpolation in time.
    """
    trained = 1 if num_frames == 1 else config.trained_frames
    return _positions(num_frames, trained, config.trained_side, config.side, config.width)


@lru_cache(maxsize=8)
def _positions(num_frames: int, trained_frames: int, trained_side: int, side: int, width: int) -> Tensor:
    table = sines(trained_frames * trained_side**2, width)
    grid = table.view(trained_frames, trained_side, trained_side, width).permute(0, 3, 1, 2)  # T C Y X
    if side != trained_side:
        grid = F.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
    if num_frames != trained_frames:
        in_time = grid.permute(2, 3, 1, 0).flatten(0, 1)  # (Y X) C T
        in_time = F.interpolate(in_time, size=num_frames, mode="linear")
        grid = in_time.unflatten(0, (side, side)).permute(3, 2, 0, 1)
    return grid.permute(0, 2, 3, 1).reshape(num_frames * side**2, width)


def sines(num_places: int, width: int) -> Float[Tensor, "S C"]:
    """Sine, cosine, sine .. of each place; every pair of columns turns more slowly than the one before it."""
    place = torch.arange(num_places, dtype=torch.float64)[:, None]
    pair = torch.arange(width // 2, dtype=torch.float64)
    angle = place / THETA ** (2 * pair / width)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1).float()
