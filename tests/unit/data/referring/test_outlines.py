"""Masks of COCO: what was encoded comes back, and what is no mask is told."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from referring_folders import box, plain_rle, rle

from dynin.data.referring import outlines
from dynin.errors import DataError


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 60), width=st.integers(1, 60), share=st.floats(0, 1), seed=st.integers(0, 2**20))
def test_run_lengths_come_back(height, width, share, seed):
    mask = np.random.default_rng(seed).random((height, width)) < share
    for written in (rle(mask), rle(mask, as_bytes=True), plain_rle(mask)):
        np.testing.assert_array_equal(outlines.from_rle(written, mask.shape, "here"), mask)


def test_large_runs_come_back():
    mask = np.zeros((700, 900), dtype=bool)
    mask[:, 200:210], mask[5:, 640] = True, True
    for written in (rle(mask), plain_rle(mask)):
        np.testing.assert_array_equal(outlines.from_rle(written, mask.shape, "here"), mask)


@pytest.mark.parametrize(
    "counts", ["~~~~", "", "0", "\u00e9", rle(box(2, 2))["counts"][:-2], [700, 69], [-1, 769], ["768"], None, 768]
)
def test_what_is_no_mask_is_told(counts):
    with pytest.raises(DataError, match="here: the run lengths of the mask do not sum up to 24 x 32"):
        outlines.from_rle({"size": [24, 32], "counts": counts}, (24, 32), "here")


def test_polygons_cover_what_they_enclose():
    square = [2.0, 2.0, 10.0, 2.0, 10.0, 8.0, 2.0, 8.0]
    other = [20.0, 12.0, 28.0, 12.0, 28.0, 18.0, 20.0, 18.0]
    mask = outlines.from_coco([square, other], (24, 32), "here")
    np.testing.assert_array_equal(mask, box(2, 2) | box(12, 20))
    drawn = outlines.from_points([[2, 2], [9.9, 2], [9, 7], [2, 7]], (24, 32), "here")
    np.testing.assert_array_equal(drawn, box(2, 2))


@pytest.mark.parametrize("segmentation", [[], "x", [[1, 2, 3, 4]], [[1, 2, 3, 4, 5, "6"]], [{"size": [24, 32]}], None])
def test_what_is_no_segmentation_is_told(segmentation):
    with pytest.raises(DataError, match="here: "):
        outlines.from_coco(segmentation, (24, 32), "here")
