"""One sentence about one video or picture, with the mask of what it means in every frame.

Enters: frames and masks that are read when they are asked for. Leaves: `ReferringExample`. Does not know where they
come from, nor who segments.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8

from dynin.errors import DataError


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ReferringExample:
    """Frames are read one at a time, so that a long video costs no memory. A picture is a video of one frame."""

    video: str
    """Name of the video; examples of one video share its frames, and intervals are bootstrapped over videos."""
    sentence_id: str
    """Name of the sentence within its video, as submissions want it."""
    sentence: str
    family: str
    """Kind of sentence, by which scores are grouped: "referring", "reasoning", "none", or a family of Emoji World."""
    frame_names: tuple[str, ...]
    """Names of the frames in time order, without extension."""
    height: int
    """Rows of a frame in pixels."""
    width: int
    """Columns of a frame in pixels."""
    read_frame: Callable[[int], UInt8[np.ndarray, "Y X 3"]]
    """RGB of the frame at an index."""
    read_mask: Callable[[int], Bool[np.ndarray, "Y X"]] | None = None
    """Visible pixels of everything the sentence means, at an index; None where the masks are not public."""
    read_void: Callable[[int], Bool[np.ndarray, "Y X"]] | None = None
    """Pixels at an index that are no one's and that scores leave out; None where there are none."""
    rate_hz: float | None = None
    """Frames per second, where known."""
    read_foreground: Callable[[int], Bool[np.ndarray, "Y X"]] | None = None
    """Visible pixels of every annotated object, whatever the sentence means, at an index; None where unknown."""

    def __post_init__(self) -> None:
        """DataError for an example of no frames or no size."""
        if not self.frame_names or self.height < 1 or self.width < 1:
            raise DataError(
                f"video {self.video!r} has {len(self.frame_names)} frames of {self.width} x {self.height} px, expected "
                "at least one frame of at least one pixel; correct its folder or its annotation"
            )

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.frame_names)
