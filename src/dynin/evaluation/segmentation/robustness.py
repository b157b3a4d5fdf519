"""Robustness R of ReVOS and pixel accuracy A, as they are defined and as the published script computes them.

Enters: masks of one frame. Leaves: R and A. Does not know frames, videos or sentences.
"""

import numpy as np
from jaxtyping import Bool, UInt8

SMALL = 1e-6
"""Added to the area of the foreground, so that a frame without any is not divided by nothing."""


def robustness(
    prediction: Bool[np.ndarray, "Y X"], truth: Bool[np.ndarray, "Y X"], foreground: Bool[np.ndarray, "Y X"]
) -> float:
    """R of one frame: what share of the area of all objects was wrongly taken, from 1 (nothing) down to 0.

    Args:
        foreground: Everything annotated in the frame, whatever the sentence means.
    Source:
        ReVOS, arXiv:2407.11325, after R2-VOS, arXiv:2207.01203.
    """
    wrong = np.count_nonzero(prediction & ~truth)
    return max(1 - wrong / (np.count_nonzero(foreground) + SMALL), 0.0)


def published_robustness(
    prediction: UInt8[np.ndarray, "Y X"], target_count: UInt8[np.ndarray, "Y X"], foreground: UInt8[np.ndarray, "Y X"]
) -> float:
    """R of one frame as the published script computes it, to compare with published figures and for nothing else.

    Args:
        prediction: Values of the PNG, 0 or 255.
        target_count: Of how many objects of the sentence a pixel is.
        foreground: 1 where anything is annotated.
    Parity:
        The prediction is not thresholded, so that each wrong pixel counts 255 times, and pixels of two objects wrap
        around to -1, which is 255 in 8 bits. Where the annotation has been joined to one mask, overlaps cannot be seen
        any more, and only the first of both remains.
    """
    wrong = ((np.uint8(1) - target_count) * prediction).sum(dtype=np.int64)
    return float(max(1 - wrong / (foreground.sum(dtype=np.int64) + SMALL), 0.0))


def pixel_accuracy(prediction: Bool[np.ndarray, "Y X"], truth: Bool[np.ndarray, "Y X"]) -> float:
    """A of one frame: the share of pixels that are right."""
    return float(np.mean(prediction == truth))


def published_pixel_accuracy(prediction: UInt8[np.ndarray, "Y X"], target_count: UInt8[np.ndarray, "Y X"]) -> float:
    """A of one frame as the published script computes it: 255 is compared with 1, so that only ground can be right.

    Parity:
        As in `published_robustness`.
    """
    return float(np.mean(prediction == target_count))
