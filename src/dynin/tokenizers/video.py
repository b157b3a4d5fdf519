"""Videos as frames through the image tokenizer: T frames of N codes each, one after the other.

Enters: videos of any length and size. Leaves: codes of a fixed number of frames, and videos at a fixed rate. Does not
know how a frame becomes codes.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from dynin.errors import VocabularyError
from dynin.media.image import fit_square
from dynin.media.video import Video, choose_frames
from dynin.tokenizers.protocol import ImageTokenizer


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class VideoTokenizer:
    """Square frames, evenly chosen, each encoded as a picture."""

    image: ImageTokenizer
    num_frames: int = 4
    """Frames that the model looks at and makes."""
    rate_hz: float = 4.0
    """Rate of the videos that are made."""
    frames_at_once: int = 4
    """Frames that go through the image tokenizer together: several keep a GPU busy, all might not fit its memory."""

    @property
    def num_codes(self) -> int:
        """Codes of a whole video."""
        rows, columns = self.image.grid(self.image.image_size, self.image.image_size)
        return self.num_frames * rows * columns

    def encode(self, video: Video, size_px: int | None = None) -> Int[Tensor, " N"]:
        """A video to codes: `num_frames` frames spread evenly, each cut to a square; frame by frame in raster order.

        Args:
            size_px: Side of the square; None takes the image tokenizer's.
        """
        chosen = choose_frames(len(video.frames), self.num_frames)
        side = size_px or self.image.image_size
        frames = torch.stack([fit_square(video.frames[at], side) for at in chosen])
        return torch.cat([self.image.encode(part) for part in frames.split(self.frames_at_once)]).flatten()

    def decode(self, codes: Int[Tensor, " N"]) -> Video:
        """Codes to a video at `rate_hz`; VocabularyError unless they fill every frame."""
        if codes.numel() != self.num_codes:
            raise VocabularyError(
                f"{codes.numel()} codes do not fill a video of {self.num_frames} frames with {self.num_codes} codes"
            )
        grid = self.image.grid(self.image.image_size, self.image.image_size)
        parts = codes.reshape(self.num_frames, -1).split(self.frames_at_once)
        frames = torch.cat([self.image.decode(part, grid).float().cpu() for part in parts])
        return Video(frames=frames, rate_hz=self.rate_hz)
