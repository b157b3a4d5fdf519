"""Laws of J, F and R that hold for every mask, and the DAVIS rule spelled out pixel by pixel."""

import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynin.data.referring.example import ReferringExample
from dynin.evaluation.segmentation.boundary import boundary_map, contour_accuracy, tolerance_px
from dynin.evaluation.segmentation.clip_score import ClipTruth
from dynin.evaluation.segmentation.pair import score_pair
from dynin.evaluation.segmentation.region import overlap, region_similarity
from dynin.evaluation.segmentation.robustness import (
    pixel_accuracy,
    published_pixel_accuracy,
    published_robustness,
    robustness,
)


@st.composite
def masks(draw, count, most=20):
    """Some masks of one size: noise of any density, empty and full ones among them."""
    height, width = draw(st.integers(1, most)), draw(st.integers(1, most))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shares = draw(st.lists(st.sampled_from([0.0, 0.05, 0.5, 0.95, 1.0]), min_size=count, max_size=count))
    return [rng.random((height, width)) < share for share in shares]


def rectangle(top, left, height, width):
    mask = np.zeros((48, 64), dtype=bool)
    mask[top : top + height, left : left + width] = True
    return mask


def literal_boundary(mask):
    """A pixel is a boundary if it differs from its right, lower or lower right neighbour inside the frame."""
    height, width = mask.shape
    found = set()
    for y in range(height):
        for x in range(width):
            neighbours = [(y, x + 1), (y + 1, x), (y + 1, x + 1)]
            inside = [(v, u) for v, u in neighbours if v < height and u < width]
            if any(mask[v, u] != mask[y, x] for v, u in inside):
                found.add((y, x))
    return found


def literal_f(prediction, truth):
    """F by looking from every boundary pixel at every other."""
    radius = math.ceil(0.008 * math.sqrt(truth.shape[0] ** 2 + truth.shape[1] ** 2))
    found, wanted = literal_boundary(prediction), literal_boundary(truth)
    if not found or not wanted:
        return 1.0 if not found and not wanted else 0.0

    def share_near(points, others):
        near = [any((y - v) ** 2 + (x - u) ** 2 <= radius**2 for v, u in others) for y, x in points]
        return sum(near) / len(points)

    precision, recall = share_near(found, wanted), share_near(wanted, found)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@given(masks(2))
@settings(max_examples=50, deadline=None)
def test_j_and_f_are_symmetric_and_lie_between_zero_and_one(pair):
    for measure in (region_similarity, contour_accuracy):
        assert 0 <= measure(*pair) <= 1
        assert measure(*pair) == pytest.approx(measure(*pair[::-1]), abs=1e-12)


@given(masks(2))
@settings(max_examples=50, deadline=None)
def test_j_is_one_exactly_where_masks_are_equal(pair):
    assert (region_similarity(*pair) == 1) == bool((pair[0] == pair[1]).all())
    assert region_similarity(pair[0], pair[0]) == contour_accuracy(pair[0], pair[0]) == 1


@given(masks(2))
@settings(max_examples=50, deadline=None)
def test_intersection_and_union_count_pixels(pair):
    both, either = overlap(*pair)
    assert both == sum(bool(a and b) for a, b in zip(pair[0].flat, pair[1].flat, strict=True))
    assert either == sum(bool(a or b) for a, b in zip(pair[0].flat, pair[1].flat, strict=True))


@given(masks(2, most=14))
@settings(max_examples=50, deadline=None)
def test_f_is_the_rule_of_davis_pixel_by_pixel(pair):
    edges = boundary_map(pair[0])
    assert set(zip(*map(np.ndarray.tolist, np.nonzero(edges)), strict=True)) == literal_boundary(pair[0])
    assert contour_accuracy(*pair) == pytest.approx(literal_f(*pair), abs=1e-12)


@pytest.mark.parametrize("size", [(100, 75), (130, 250), (40, 260)])
def test_f_is_the_rule_of_davis_with_wider_tolerance(size):
    rng = np.random.default_rng(3)
    y, x = np.mgrid[: size[0], : size[1]]
    truth = (y - size[0] / 2) ** 2 + (x - size[1] / 2) ** 2 < 300
    prediction = np.roll(truth, rng.integers(-4, 5, size=2), axis=(0, 1))
    prediction[rng.integers(0, size[0], 20), rng.integers(0, size[1], 20)] ^= True
    assert contour_accuracy(prediction, truth) == pytest.approx(literal_f(prediction, truth), abs=1e-12)
    assert 0 < contour_accuracy(prediction, truth) < 1


@given(st.integers(4, 20), st.integers(10, 24), st.integers(1, 20), st.integers(1, 20))
@settings(max_examples=50, deadline=None)
def test_f_of_a_shifted_rectangle_falls_with_the_distance(height, width, top, left):
    """Up to half its width; further on, its left edge comes near the right edge of the truth, and F may rise again."""
    truth = rectangle(top, left, height, width)
    scores = [contour_accuracy(rectangle(top, left + step, height, width), truth) for step in range(width // 2)]
    assert scores[0] == scores[1] == 1  # within the tolerance
    assert all(later <= sooner + 1e-12 for sooner, later in zip(scores, scores[1:], strict=False))
    assert scores[-1] < 1


@given(masks(3))
@settings(max_examples=50, deadline=None)
def test_r_lies_between_zero_and_one_and_is_one_inside_the_target(three):
    prediction, truth, others = three
    foreground = truth | others
    assert 0 <= robustness(prediction, truth, foreground) <= 1
    assert robustness(prediction & truth, truth, foreground) == 1


@given(masks(3))
@settings(max_examples=50, deadline=None)
def test_r_never_rises_when_more_is_wrong(three):
    prediction, truth, others = three
    more = prediction | others
    assert robustness(more, truth, truth | others) <= robustness(prediction, truth, truth | others)


def test_one_wrong_pixel_costs_r_its_share_and_the_published_r_255_times_as_much():
    truth = rectangle(0, 0, 5, 10)
    prediction = truth.copy()
    prediction[40, 40] = True
    values, count, ground = (prediction * np.uint8(255), truth.astype(np.uint8), truth.astype(np.uint8))
    assert robustness(prediction, truth, truth) == pytest.approx(1 - 1 / 50)
    assert published_robustness(values, count, ground) == 0  # 1 - 255 / 50 is below 0


def test_the_published_r_takes_overlapping_objects_for_wrong_pixels():
    count = rectangle(0, 0, 20, 20).astype(np.uint8) + rectangle(0, 0, 1, 1).astype(np.uint8)
    values = (count > 0) * np.uint8(255)
    assert published_robustness(values, count, np.minimum(count, 1)) == pytest.approx(1 - 1 / 400)  # 255 * 255 is 1
    assert robustness(values > 0, count > 0, count > 0) == 1


def test_the_published_accuracy_counts_ground_alone():
    truth = rectangle(0, 0, 24, 64)
    assert pixel_accuracy(truth, truth) == 1
    assert published_pixel_accuracy(truth * np.uint8(255), truth.astype(np.uint8)) == 0.5


def test_a_frame_without_foreground_forgives_nothing():
    empty = np.zeros((4, 4), dtype=bool)
    assert robustness(empty, empty, empty) == 1
    assert robustness(rectangle(0, 0, 1, 1), rectangle(0, 0, 0, 0), rectangle(0, 0, 0, 0)) == 0


@pytest.mark.parametrize(
    ("size", "radius"),
    [((480, 854), 8), ((720, 1280), 12), ((128, 128), 2), ((64, 64), 1), ((75, 100), 1), ((1, 1), 1)],
)
def test_the_tolerance_follows_the_diagonal(size, radius):
    assert tolerance_px(*size) == radius


def test_empty_and_full_masks_have_no_boundary():
    empty, full = np.zeros((9, 7), dtype=bool), np.ones((9, 7), dtype=bool)
    assert contour_accuracy(empty, empty) == contour_accuracy(full, empty) == 1
    assert region_similarity(empty, empty) == 1
    assert region_similarity(full, empty) == 0
    some = empty.copy()
    some[2, 2] = True
    assert contour_accuracy(some, empty) == contour_accuracy(empty, some) == 0


@given(
    seed=st.integers(0, 10_000),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 40), st.integers(1, 40)),
    density=st.sampled_from([0.0, 0.02, 0.5, 1.0]),
)
def test_all_frames_at_once_score_as_one_after_another(seed, shape, density):
    frames, height, width = shape
    rng = np.random.default_rng(seed)
    truth, found, ground = (rng.random(shape) < share for share in (density, rng.choice([0.0, 0.3, 1.0]), 0.2))
    void = (rng.random(shape) < 0.1) & ~truth
    example = ReferringExample(
        video="v",
        sentence_id="s",
        sentence="the dog",
        family="static",
        frame_names=tuple(map(str, range(frames))),
        height=height,
        width=width,
        read_frame=lambda index: np.zeros((height, width, 3), dtype=np.uint8),
        read_mask=lambda index: truth[index],
        read_void=(lambda index: void[index]) if seed % 2 else None,
        read_foreground=(lambda index: ground[index] | truth[index]) if seed % 3 else None,
    )
    expected, at_once = asdict(score_pair(example, found)), asdict(ClipTruth.read(example).score(found))
    assert at_once == pytest.approx(expected, abs=1e-12)
