"""Scores of pairs, and what they add up to: families, overall figures, intervals over videos, contrasts."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from referring_films import film, nothing, small_source, square, track

from dynin.data.referring.source import walk
from dynin.errors import DataError
from dynin.evaluation.segmentation.bootstrap import draws, interval, ratio
from dynin.evaluation.segmentation.floors import all_empty, all_foreground, truth
from dynin.evaluation.segmentation.overall import Term, contrast, summarise
from dynin.evaluation.segmentation.pair import PairScore, score_pair


def rng(seed=0):
    return np.random.default_rng(seed)


def scored(video, sentence_id, value, *, family="static", has_target=True, **more):
    """A pair whose J and F are one value in every frame."""
    values = {
        "video": video,
        "sentence_id": sentence_id,
        "family": family,
        "num_frames": 4,
        "num_visible": 4 if has_target else 0,
        "is_visible_first": has_target,
        "region": value,
        "boundary": value,
        "region_visible": value if has_target else None,
        "boundary_visible": value if has_target else None,
        "intersection": 10,
        "union": 20,
        "num_empty": 0,
        "num_absent_empty": 0,
        "accuracy": value,
        "published_accuracy": value,
        "robustness": None,
        "published_robustness": None,
    }
    return PairScore(**{**values, **more})


def test_the_truth_scores_one_and_nothing_scores_zero():
    example = film(masks=track((4, 4), (0, 3)))
    right, empty = score_pair(example, truth(example)), score_pair(example, all_empty(example))
    assert (right.region, right.boundary, right.volume_iou, right.accuracy) == (1, 1, 1, 1)
    assert (empty.region, empty.boundary, empty.region_visible) == (0, 0, 0)
    assert empty.is_empty
    assert not right.is_empty


def test_frames_without_target_count_in_the_mean_and_not_among_the_visible():
    masks = [*track((4, 4), (0, 3), frames=2), *nothing(2)]
    example = film(masks=masks)
    score = score_pair(example, all_empty(example))
    assert (score.region, score.region_visible) == (0.5, 0)
    assert (score.num_visible, score.num_absent_empty, score.is_visible_first) == (2, 2, True)


def test_a_sentence_without_target_has_no_visible_score():
    example = film(masks=nothing(), family="none")
    right, wrong = score_pair(example, all_empty(example)), score_pair(example, all_foreground(example))
    assert (right.region, right.region_visible, right.volume_iou, wrong.region) == (1, None, 1, 0)
    rows = summarise([right], rng()).rows
    assert rows["all"]["no_target_accuracy"].value == 1
    assert "false_empty_rate" not in rows["all"]
    assert "J&F_visible" not in rows["all"]


def test_r_is_measured_where_the_foreground_is_known():
    target, other = track((4, 4), (0, 3)), track((24, 30), (0, 0))
    both = [a | b for a, b in zip(target, other, strict=True)]
    example = film(masks=target, foreground=both)
    assert score_pair(example, both).robustness == pytest.approx(0.5)
    assert score_pair(example, both).published_robustness == 0
    assert score_pair(film(masks=target), both).robustness is None


def test_void_pixels_are_neither_right_nor_wrong():
    target, void = track((4, 4), (0, 3)), track((24, 30), (0, 0))
    both = [a | b for a, b in zip(target, void, strict=True)]
    score = score_pair(film(masks=target, read_void=lambda t: void[t]), both)
    assert (score.region, score.boundary, score.volume_iou) == (1, 1, 1)
    assert score_pair(film(masks=target), both).region == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("count", "message"), [(4, "4 masks for 5 frames; expected one of each"), (6, "more masks than its 5 frames")]
)
def test_as_many_masks_as_frames_are_scored(count, message):
    example = film()
    with pytest.raises(DataError, match=message):
        score_pair(example, [square(0, 0)] * count)


def test_masks_of_another_size_are_named():
    with pytest.raises(DataError, match=r"frame '00000': the prediction is 55 x 40 px, expected 56 x 40"):
        score_pair(film(), [np.zeros((40, 55), dtype=bool)] * 5)


def test_examples_without_public_masks_are_not_scored():
    with pytest.raises(DataError, match="its masks are not public"):
        score_pair(film(read_mask=None), [square(0, 0)] * 5)


def test_overall_of_revos_is_the_plain_mean_of_the_two():
    pairs = [scored("a", str(n), 0.8, family="referring") for n in range(3)]
    pairs += [scored("b", "0", 0.2, family="reasoning"), scored("b", "1", 1.0, family="none", has_target=False)]
    summary = summarise(pairs, rng(), overall=("referring", "reasoning"))
    assert summary.rows["overall"]["J&F"].value == pytest.approx(0.5)
    assert summary.rows["all"]["J&F"].value == pytest.approx((3 * 0.8 + 0.2 + 1) / 5)
    assert summary.rows["macro"]["J&F"].value == pytest.approx((0.8 + 0.2 + 1) / 3)
    assert summary.rows["macro"]["J&F_visible"].value == pytest.approx(0.5)  # nothing is visible in family none
    assert summary.num_pairs == {"all": 5, "none": 1, "reasoning": 1, "referring": 3, "macro": 5, "overall": 4}


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=8))
@settings(max_examples=20, deadline=None)
def test_overall_of_revos_holds_for_any_scores(values):
    pairs = [scored(f"v{n}", "0", a, family="referring") for n, (a, _) in enumerate(values)]
    pairs += [scored(f"v{n}", "1", b, family="reasoning") for n, (_, b) in enumerate(values)]
    rows = summarise(pairs, rng(), overall=("referring", "reasoning")).rows
    mean = (rows["referring"]["J&F"].value + rows["reasoning"]["J&F"].value) / 2
    assert rows["overall"]["J&F"].value == pytest.approx(mean)


def test_an_overall_figure_needs_all_of_its_families():
    with pytest.raises(DataError, match="no sentence of family 'reasoning', only referring"):
        summarise([scored("a", "0", 1.0, family="referring")], rng(), overall=("referring", "reasoning"))


def test_giou_and_ciou_differ_in_what_is_divided():
    pairs = [scored("a", "0", 1.0, intersection=90, union=100), scored("b", "0", 1.0, intersection=0, union=10)]
    row = summarise([*pairs, scored("c", "0", 1.0, intersection=0, union=0)], rng()).rows["all"]
    assert row["gIoU"].value == pytest.approx((0.9 + 0 + 1) / 3)
    assert row["cIoU"].value == pytest.approx(90 / 110)


def test_no_target_and_false_empties_are_counted_apart():
    pairs = [
        scored("a", "0", 1.0, num_empty=4),
        scored("a", "1", 1.0),
        scored("a", "2", 1.0, has_target=False, num_empty=4, num_absent_empty=4),
        scored("a", "3", 1.0, has_target=False, num_empty=3, num_absent_empty=3),
    ]
    row = summarise(pairs, rng()).rows["all"]
    assert row["false_empty_rate"].value == row["no_target_accuracy"].value == 0.5
    assert row["absent_frames_accuracy"].value == 7 / 8


@pytest.mark.parametrize(
    ("pairs", "message"),
    [([], "no pair of a video and a sentence"), ([scored("a", "0", 1.0)] * 2, "sentence '0' was scored twice")],
)
def test_nothing_and_twice_are_refused(pairs, message):
    with pytest.raises(DataError, match=message):
        summarise(pairs, rng())


def test_one_video_has_no_interval():
    value = summarise([scored("a", "0", 0.5)], rng()).rows["all"]["J"]
    assert math.isnan(value.low)
    assert value.to_dict() == {"value": 0.5, "low": None, "high": None, "num_videos": 1}


def test_sentences_of_one_video_are_drawn_together():
    """Two videos of a hundred equal pairs each know no more than two pairs."""
    pairs = [scored("a", str(n), 0.0) for n in range(100)] + [scored("b", str(n), 1.0) for n in range(100)]
    value = summarise(pairs, rng()).rows["all"]["J"]
    assert (value.value, value.low, value.high) == (0.5, 0, 1)


def test_the_interval_covers_a_known_mean_as_often_as_it_says():
    generator, hits, trials, videos = rng(1), 0, 300, 40
    ones = np.ones(videos)
    for _ in range(trials):
        values = generator.normal(0.6, 0.2, size=videos)
        found = interval(lambda w, v=values: ratio(w, v, ones), draws(videos, generator, 400))
        hits += found.low <= 0.6 <= found.high
    assert 0.90 <= hits / trials <= 0.98


def test_the_interval_of_a_mean_is_near_the_normal_one():
    values, ones = rng(2).normal(0.5, 0.1, size=200), np.ones(200)
    found = interval(lambda w: ratio(w, values, ones), draws(200, rng(3), 4000))
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(200), rel=0.06)


def test_equal_generators_give_equal_intervals():
    pairs = [scored(f"v{n}", "0", n / 10) for n in range(10)]
    assert summarise(pairs, rng(5)).to_dict() == summarise(pairs, rng(5)).to_dict()


def test_a_paired_difference_is_narrower_than_its_sides():
    values = rng(4).uniform(0, 1, size=60)
    ours = [scored(f"v{n}", "0", value) for n, value in enumerate(values)]
    theirs = [scored(f"v{n}", "0", 0.9 * value) for n, value in enumerate(values)]
    side = contrast([Term(runs=[ours])], rng())
    gap = contrast([Term(runs=[ours]), Term(runs=[theirs], weight=-1.0)], rng())
    assert gap.value == pytest.approx(0.1 * values.mean())
    assert gap.low > 0
    assert gap.high - gap.low < (side.high - side.low) / 5


def test_runs_of_several_seeds_are_averaged():
    runs = [[scored(f"v{n}", "0", value) for n in range(4)] for value in (0.2, 0.4, 0.6)]
    assert contrast([Term(runs=runs)], rng()).value == pytest.approx(0.4)


def test_a_difference_of_differences_takes_families_apart():
    ours = [scored("a", "0", 0.9, family="motion"), scored("a", "1", 0.5), scored("b", "0", 0.9, family="motion")]
    theirs = [scored("a", "0", 0.3, family="motion"), scored("a", "1", 0.4), scored("b", "0", 0.3, family="motion")]
    terms = [
        Term(runs=[run], weight=weight * sign, keep=lambda pair, name=name: pair.family == name)
        for name, sign in (("motion", 1.0), ("static", -1.0))
        for run, weight in ((ours, 1.0), (theirs, -1.0))
    ]
    assert contrast(terms, rng()).value == pytest.approx(0.6 - 0.1)


def test_runs_of_other_pairs_are_not_compared():
    ours, theirs = [scored("a", "0", 1.0), scored("b", "0", 1.0)], [scored("a", "0", 1.0)]
    with pytest.raises(DataError, match="1 pairs were scored in one run and not in another, the first video 'b'"):
        contrast([Term(runs=[ours]), Term(runs=[theirs], weight=-1.0)], rng())
    with pytest.raises(DataError, match="a setting has no run"):
        contrast([Term(runs=[ours]), Term(runs=[], weight=-1.0)], rng())


def test_a_whole_source_is_scored_from_masks():
    pairs = [score_pair(example, truth(example)) for example in walk(small_source())]
    rows = summarise(pairs, rng()).rows
    assert rows["all"]["J&F"].value == rows["all"]["no_target_accuracy"].value == 1
    assert list(rows) == ["all", "motion", "none", "static", "macro"]
