"""Small pictures, sounds and videos that are no constant.

Enters: sizes. Leaves: media with the units of `dynin.media`. Does not know files.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from dynin.media.audio import Audio
from dynin.media.video import Video


def small_picture(size_px: int = 64) -> Float[Tensor, "3 Y X"]:
    """A smooth picture in which every pixel differs from its neighbours."""
    at = torch.linspace(-1, 1, size_px)
    rows, columns = at[:, None].expand(size_px, size_px), at[None, :].expand(size_px, size_px)
    return torch.stack([rows, columns, (rows * columns * 2).sin()])


def small_sound(duration_s: float = 1.0, rate_hz: int = 16000) -> Audio:
    """A tone whose height rises, loud enough to be no silence."""
    at = torch.arange(round(duration_s * rate_hz)) / rate_hz
    return Audio(samples=0.3 * torch.sin(2 * math.pi * (200 + 100 * at) * at), rate_hz=rate_hz)


def small_video(num_frames: int = 8, size_px: int = 64) -> Video:
    """A picture that wanders to the right."""
    picture = small_picture(size_px)
    return Video(frames=torch.stack([picture.roll(4 * at, dims=2) for at in range(num_frames)]), rate_hz=8.0)
