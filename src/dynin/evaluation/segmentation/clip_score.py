"""What a sentence about a short clip scored, all frames at once: for many answers to one question.

Enters: a `ReferringExample` that is read once, arrays of masks. Leaves: the `PairScore` that `pair.score_pair` gives.
Does not know where masks come from. All frames of the truth are held, so this is for clips, not for long videos.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from dynin.data.referring.example import ReferringExample
from dynin.errors import DataError
from dynin.evaluation.segmentation.boundary import tolerance_px
from dynin.evaluation.segmentation.pair import WHITE, FrameFigures, PairScore, told_pair
from dynin.evaluation.segmentation.robustness import SMALL

Clip = Bool[np.ndarray, "T Y X"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ClipTruth:
    """The true masks of an example and what can be known of them before any answer."""

    example: ReferringExample
    masks: Clip
    void: Clip | None
    foreground: Int[np.ndarray, "T"] | None
    """Pixels of everything annotated; None where that is unknown."""
    edges: Clip
    near: Clip
    """Where an edge lies within the tolerance."""

    @classmethod
    def read(cls, example: ReferringExample) -> "ClipTruth":
        """Read all frames of an example.

        Raises:
            DataError: If the masks are not public, or one is of another size than the frame.
        """
        if example.read_mask is None:
            raise DataError(
                f"{told_pair(example)}: its masks are not public, so it cannot be scored here; write a submission "
                "instead"
            )
        frames = range(len(example))
        masks = np.stack([example.read_mask(frame) for frame in frames])
        _require_size(example, masks, "truth")
        read_void, read_foreground = example.read_void, example.read_foreground
        foreground = None
        if read_foreground is not None:
            foreground = np.array([np.count_nonzero(read_foreground(frame)) for frame in frames])
        edges = _edges(masks)
        return cls(
            example=example,
            masks=masks,
            void=None if read_void is None else np.stack([read_void(frame) for frame in frames]),
            foreground=foreground,
            edges=edges,
            near=_near(edges, tolerance_px(example.height, example.width)),
        )

    def score(self, masks: Clip) -> PairScore:
        """The score of one answer.

        Raises:
            DataError: If there are too few masks, too many, or of another size.
        """
        example, truth = self.example, self.masks
        _require_size(example, masks, "prediction")
        if self.void is not None:  # the truth has none of it
            masks = masks & ~self.void
        area, wanted = _count(masks), _count(truth)
        both = _count(masks & truth)
        either = area + wanted - both
        pixels = example.height * example.width
        robust = published = None
        if self.foreground is not None:
            wrong = (area - both) / (self.foreground + SMALL)
            robust, published = np.maximum(1 - wrong, 0.0), np.maximum(1 - WHITE * wrong, 0.0)
        return FrameFigures(
            region=_ratio(both, either),
            boundary=self._boundary(masks),
            is_visible=wanted > 0,
            intersection=both,
            union=either,
            is_empty=area == 0,
            accuracy=(pixels - either + both) / pixels,
            published_accuracy=(pixels - either) / pixels,
            robustness=robust,
            published_robustness=published,
        ).of(example)

    def _boundary(self, masks: Clip) -> Float[np.ndarray, "T"]:
        """F of every frame; see `boundary.contour_accuracy`."""
        edges = _edges(masks)
        found, wanted = _count(edges), _count(self.edges)
        near = _near(edges, tolerance_px(self.example.height, self.example.width))
        precision = _count(edges & self.near) / np.maximum(found, 1)
        recall = _count(self.edges & near) / np.maximum(wanted, 1)
        total = precision + recall
        harmonic = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
        is_nothing = (found == 0) | (wanted == 0)
        return np.where(is_nothing, (found == wanted).astype(np.float64), harmonic)


def _edges(masks: Clip) -> Clip:
    """See `boundary.boundary_map`."""
    edges = np.zeros_like(masks)
    edges[:, :, :-1] |= masks[:, :, :-1] ^ masks[:, :, 1:]
    edges[:, :-1] |= masks[:, :-1] ^ masks[:, 1:]
    edges[:, :-1, :-1] |= masks[:, :-1, :-1] ^ masks[:, 1:, 1:]
    return edges


def _near(edges: Clip, radius: int) -> Clip:
    """Pixels with an edge within a radius: rows of the disk around each edge, one after another."""
    height, width = edges.shape[1:]
    near = np.zeros_like(edges)
    for down in range(-radius, radius + 1):
        reach = math.isqrt(radius * radius - down * down)
        into = slice(max(0, down), min(height, height + down))
        out_of = slice(max(0, -down), min(height, height - down))
        for across in range(-reach, reach + 1):
            to, origin = (
                slice(max(0, across), min(width, width + across)),
                slice(max(0, -across), min(width, width - across)),
            )
            near[:, into, to] |= edges[:, out_of, origin]
    return near


def _count(masks: Clip) -> Int[np.ndarray, "T"]:
    """Pixels of every frame."""
    counts: Int[np.ndarray, T] = np.count_nonzero(masks, axis=(1, 2))
    return counts


def _ratio(both: Int[np.ndarray, "T"], either: Int[np.ndarray, "T"]) -> Float[np.ndarray, "T"]:
    """Intersection over union, 1 where there is nothing in either."""
    return np.where(either > 0, both / np.maximum(either, 1), 1.0)


def _require_size(example: ReferringExample, masks: np.ndarray, what: str) -> None:
    expected = (len(example), example.height, example.width)
    if masks.shape != expected:
        raise DataError(
            f"{told_pair(example)}: the {what} has the shape {masks.shape}, expected {expected}, frames, rows and "
            "columns; bring it to the size of the video"
        )
