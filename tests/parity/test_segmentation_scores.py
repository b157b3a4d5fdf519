"""J and F equal those of trackeval on 1,000 drawn masks that `record_trackeval.py` recorded."""

import numpy as np
import pytest
from golden_weights import FOLDER

from dynin.evaluation.segmentation.boundary import contour_accuracy, tolerance_px
from dynin.evaluation.segmentation.region import region_similarity

PLACE = FOLDER / "segmentation_trackeval.npz"
if not PLACE.is_file():
    pytest.skip(f"no {PLACE.name} in {FOLDER}", allow_module_level=True)


@pytest.fixture(scope="module")
def recorded():
    with np.load(PLACE) as stored:
        sizes, regions, boundaries = stored["sizes"], stored["regions"], stored["boundaries"]
        bits = np.unpackbits(stored["masks"]).astype(bool)
    masks, start = [], 0
    for height, width in sizes.repeat(2, axis=0).astype(int):
        masks.append(bits[start : start + height * width].reshape(height, width))
        start += height * width
    return list(zip(masks[::2], masks[1::2], strict=True)), regions, boundaries


def test_j_equals_trackeval(recorded):
    pairs, regions, _ = recorded
    ours = [region_similarity(prediction, truth) for prediction, truth in pairs]
    assert np.abs(np.array(ours) - regions).max() <= 1e-6


def test_f_equals_trackeval(recorded):
    pairs, _, boundaries = recorded
    ours = [contour_accuracy(prediction, truth) for prediction, truth in pairs]
    assert np.abs(np.array(ours) - boundaries).max() <= 1e-6


def test_the_record_holds_what_can_go_wrong(recorded):
    pairs, regions, boundaries = recorded
    assert len(pairs) == 1000
    assert sum(not prediction.any() and not truth.any() for prediction, truth in pairs) >= 20
    assert sum(not prediction.any() and truth.any() for prediction, truth in pairs) >= 20
    assert sum(bool(truth.all()) for _, truth in pairs) > 50
    assert {tolerance_px(*truth.shape) for _, truth in pairs} >= {1, 2, 3, 4, 5, 6}
    assert np.mean((regions > 0) & (regions < 1)) > 0.3
    assert np.mean((boundaries > 0) & (boundaries < 1)) > 0.2
