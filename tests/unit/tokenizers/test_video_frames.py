"""Videos as frames: how many go through the image tokenizer at once changes nothing but memory."""

from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor

from dynin.errors import VocabularyError
from dynin.testing import small_video
from dynin.tokenizers.video import VideoTokenizer


@dataclass(slots=True)
class Averages:
    """An image tokenizer: a code for the mean of every cell of 16 px; remembers how many pictures it saw at once."""

    codebook_size: int = 256
    downsample: int = 16
    image_size: int = 32
    seen: list[int] = field(default_factory=list)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        return height // 16, width // 16

    def encode(self, pixels: Tensor) -> Tensor:
        self.seen.append(len(pixels))
        means = torch.nn.functional.avg_pool2d(pixels.mean(1, keepdim=True), 16)
        return ((means + 1) * 127.5).round().long().flatten(1)

    def decode(self, codes: Tensor, grid: tuple[int, int]) -> Tensor:
        self.seen.append(len(codes))
        cells = codes.unflatten(1, grid)[:, None] / 127.5 - 1
        return cells.repeat_interleave(16, 2).repeat_interleave(16, 3).expand(-1, 3, -1, -1)

    def fingerprint(self) -> str:
        return "averages"


@pytest.mark.parametrize(("at_once", "groups"), [(1, [1] * 7), (3, [3, 3, 1]), (4, [4, 3]), (100, [7])])
def test_frames_go_in_groups_and_codes_and_frames_stay_the_same(at_once: int, groups: list[int]) -> None:
    image = Averages()
    whole = VideoTokenizer(image=image, num_frames=7, frames_at_once=7)
    codes = whole.encode(small_video())
    video = whole.decode(codes)
    assert codes.shape == (7 * 4,)
    assert len(codes.unflatten(0, (7, 4)).unique(dim=0)) == 7
    image.seen.clear()
    grouped = replace(whole, frames_at_once=at_once)
    assert torch.equal(grouped.encode(small_video()), codes)
    assert image.seen == groups
    again = grouped.decode(codes)
    assert torch.equal(again.frames, video.frames)
    assert again.frames.shape == (7, 3, 32, 32)
    assert image.seen == groups * 2


def test_few_frames_go_together_unless_told_otherwise() -> None:
    image = Averages()
    VideoTokenizer(image=image, num_frames=9).encode(small_video())
    assert max(image.seen) == 4


def test_codes_that_do_not_fill_every_frame_are_refused() -> None:
    with pytest.raises(VocabularyError, match="27 codes do not fill a video of 7 frames with 28 codes"):
        VideoTokenizer(image=Averages(), num_frames=7).decode(torch.zeros(27, dtype=torch.int64))
