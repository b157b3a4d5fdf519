"""Small media made from seeds: a picture of every level, a sound, a video whose frames all differ."""

import pytest
import torch

from dynin.media.audio import Audio
from dynin.media.video import Video


@pytest.fixture
def picture() -> torch.Tensor:
    levels = torch.randint(0, 256, (3, 40, 24), generator=torch.Generator().manual_seed(0))
    return levels / 127.5 - 1


@pytest.fixture
def sound() -> Audio:
    levels = torch.randint(-9000, 9000, (8000,), generator=torch.Generator().manual_seed(1))
    return Audio(samples=levels / 32768, rate_hz=16000)


@pytest.fixture
def clip() -> Video:
    cells = torch.randint(0, 2, (4, 3, 4, 4), generator=torch.Generator().manual_seed(2)) * 2.0 - 1
    return Video(frames=cells.repeat_interleave(8, 2).repeat_interleave(8, 3), rate_hz=4.0)
