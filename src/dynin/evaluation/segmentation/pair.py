"""What one sentence about one video scored: frames go in one at a time, numbers come out.

Enters: a `ReferringExample` and an iterator of masks. Leaves: `PairScore`. Does not know where masks come from, nor
other sentences. Nothing of a frame is kept after it is scored.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Num, UInt8

from dynin.data.referring.example import ReferringExample
from dynin.errors import DataError
from dynin.evaluation.segmentation.boundary import contour_accuracy
from dynin.evaluation.segmentation.region import overlap, ratio, told
from dynin.evaluation.segmentation.robustness import (
    pixel_accuracy,
    published_pixel_accuracy,
    published_robustness,
    robustness,
)

WHITE = 255
"""The value of a predicted pixel in a PNG."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PairScore:
    """One pair of a video and a sentence. Means are over frames; of no frame, None."""

    video: str
    sentence_id: str
    family: str
    num_frames: int
    num_visible: int
    """Frames in which something of the target is to be seen."""
    is_visible_first: bool
    """Whether the first frame is one of them."""
    region: float
    """Mean J of all frames."""
    boundary: float
    """Mean F of all frames."""
    region_visible: float | None
    """Mean J of the frames in which the target is visible."""
    boundary_visible: float | None
    """Mean F of the frames in which the target is visible."""
    intersection: int
    """Pixels of all frames that are in prediction and truth."""
    union: int
    """Pixels of all frames that are in either."""
    num_empty: int
    """Frames whose prediction is empty."""
    num_absent_empty: int
    """Frames without target whose prediction is empty."""
    accuracy: float
    """Mean share of right pixels."""
    published_accuracy: float
    """The same as the published script computes it."""
    robustness: float | None
    """Mean R; None where the foreground is unknown."""
    published_robustness: float | None
    """The same as the published script computes it."""

    @property
    def key(self) -> tuple[str, str]:
        """Video and sentence."""
        return self.video, self.sentence_id

    @property
    def has_target(self) -> bool:
        """Whether the sentence means anything that is ever visible."""
        return self.num_visible > 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing was predicted in any frame."""
        return self.num_empty == self.num_frames

    @property
    def volume_iou(self) -> float:
        """Intersection over union of all frames taken together; of a picture, its J."""
        return ratio(self.intersection, self.union)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FrameFigures:
    """What each of a pair's T frames scored; the fields are those of `PairScore`, frame by frame."""

    region: Float[np.ndarray, "T"]
    boundary: Float[np.ndarray, "T"]
    is_visible: Bool[np.ndarray, "T"]
    """Whether something of the target is to be seen."""
    intersection: Num[np.ndarray, "T"]
    union: Num[np.ndarray, "T"]
    is_empty: Bool[np.ndarray, "T"]
    """Whether the prediction is empty."""
    accuracy: Float[np.ndarray, "T"]
    published_accuracy: Float[np.ndarray, "T"]
    robustness: Float[np.ndarray, "T"] | None
    published_robustness: Float[np.ndarray, "T"] | None

    def of(self, example: ReferringExample) -> PairScore:
        """Means and sums over the frames of an example."""
        visible = self.is_visible
        return PairScore(
            video=example.video,
            sentence_id=example.sentence_id,
            family=example.family,
            num_frames=len(visible),
            num_visible=int(visible.sum()),
            is_visible_first=bool(visible[0]),
            region=float(self.region.mean()),
            boundary=float(self.boundary.mean()),
            region_visible=float(self.region[visible].mean()) if visible.any() else None,
            boundary_visible=float(self.boundary[visible].mean()) if visible.any() else None,
            intersection=int(self.intersection.sum()),
            union=int(self.union.sum()),
            num_empty=int(self.is_empty.sum()),
            num_absent_empty=int(self.is_empty[~visible].sum()),
            accuracy=float(self.accuracy.mean()),
            published_accuracy=float(self.published_accuracy.mean()),
            robustness=None if self.robustness is None else float(self.robustness.mean()),
            published_robustness=None if self.published_robustness is None else float(self.published_robustness.mean()),
        )


def score_pair(example: ReferringExample, masks: Iterable[Bool[np.ndarray, "Y X"]]) -> PairScore:
    """Score the masks of every frame of an example, in time order.

    Raises:
        DataError: If the truth is not public, or the masks are too few, too many or of another size.
    """
    rows = list(_frame_scores(example, masks))
    *figures, robust, published = np.array(rows).T
    region, boundary, visible, both, either, empty, accuracy, published_accuracy = figures
    has_foreground = example.read_foreground is not None
    return FrameFigures(
        region=region,
        boundary=boundary,
        is_visible=visible > 0,
        intersection=both,
        union=either,
        is_empty=empty > 0,
        accuracy=accuracy,
        published_accuracy=published_accuracy,
        robustness=robust if has_foreground else None,
        published_robustness=published if has_foreground else None,
    ).of(example)


def told_pair(example: ReferringExample) -> str:
    """The pair as a message names it."""
    return f"video {example.video!r}, sentence {example.sentence_id!r}"


def _frame_scores(
    example: ReferringExample, masks: Iterable[Bool[np.ndarray, "Y X"]]
) -> Iterable[tuple[float, float, bool, int, int, bool, float, float, float, float]]:
    """The numbers of every frame; as many masks as frames, or DataError."""
    if example.read_mask is None:
        raise DataError(
            f"{told_pair(example)}: its masks are not public, so it cannot be scored here; write a submission instead"
        )
    size = (example.height, example.width)
    predictions = iter(masks)
    for index, name in enumerate(example.frame_names):
        prediction = next(predictions, None)
        if prediction is None:
            raise DataError(f"{told_pair(example)}: {index} masks for {len(example)} frames; expected one of each")
        truth = example.read_mask(index)
        for what, mask in (("prediction", prediction), ("truth", truth)):
            if mask.shape != size:
                raise DataError(
                    f"{told_pair(example)}, frame {name!r}: the {what} is {told(mask)}, expected "
                    f"{size[1]} x {size[0]}; bring it to the size of the frame"
                )
        if example.read_void is not None:  # the truth has none of it
            prediction = prediction & ~example.read_void(index)
        both, either = overlap(prediction, truth)
        values, count = _as_published(prediction), truth.astype(np.uint8)
        robust = published = 0.0
        if example.read_foreground is not None:
            foreground = example.read_foreground(index)
            robust = robustness(prediction, truth, foreground)
            published = published_robustness(values, count, foreground.astype(np.uint8))
        yield (
            ratio(both, either),
            contour_accuracy(prediction, truth),
            bool(truth.any()),
            both,
            either,
            not prediction.any(),
            pixel_accuracy(prediction, truth),
            published_pixel_accuracy(values, count),
            robust,
            published,
        )
    if next(predictions, None) is not None:
        raise DataError(f"{told_pair(example)}: more masks than its {len(example)} frames; expected one of each")


def _as_published(prediction: Bool[np.ndarray, "Y X"]) -> UInt8[np.ndarray, "Y X"]:
    """A prediction as its PNG holds it."""
    return prediction.astype(np.uint8) * np.uint8(WHITE)
