"""Region similarity J, and what intersections and unions add up to.

Enters: two masks of one frame. Leaves: pixel counts and J. Does not know frames, videos or sentences.
"""

import numpy as np
from jaxtyping import Bool


def overlap(prediction: Bool[np.ndarray, "Y X"], truth: Bool[np.ndarray, "Y X"]) -> tuple[int, int]:
    """Pixels that are in both masks, and pixels that are in either."""
    both = int(np.count_nonzero(prediction & truth))
    return both, int(np.count_nonzero(prediction)) + int(np.count_nonzero(truth)) - both


def region_similarity(prediction: Bool[np.ndarray, "Y X"], truth: Bool[np.ndarray, "Y X"]) -> float:
    """J of one frame: intersection over union, 1 where both masks are empty.

    Source: Perazzi et al., CVPR 2016, section 5.1.
    """
    intersection, union = overlap(prediction, truth)
    return ratio(intersection, union)


def ratio(intersection: int, union: int) -> float:
    """Intersection over union of pixel counts, 1 where there is nothing in either."""
    return intersection / union if union else 1.0


def told(mask: np.ndarray) -> str:
    """The size of a mask as a reader expects it, columns first."""
    return f"{mask.shape[1]} x {mask.shape[0]} px"
