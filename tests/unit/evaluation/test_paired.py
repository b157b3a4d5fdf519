"""Paired differences: by hand, against the published formula, and their coverage."""

import pytest
import torch

from dynin.data.example import Example
from dynin.evaluation.paired import Outcome, difference, outcome, score
from dynin.evaluation.suite import SUITE
from dynin.pipeline.result import Result
from dynin.types import Modality


def outcomes(values: str) -> list[Outcome]:
    return [Outcome(float(value), 1.0) for value in values]


def made(task: str, text: str) -> Result:
    return Result(task=task, text=text, finish_reason="stop", seed=0, num_forwards=1, seconds=0.0)


def test_the_mean_is_the_difference_of_the_scores():
    first, second = outcomes("1101"), outcomes("1010")
    told = difference(first, second)
    assert told.mean == pytest.approx(score(second) - score(first))


def test_right_and_wrong_follow_the_formula_for_matched_pairs():
    """20 pairs, 3 lost and 1 won: n* = 22, (1 - 3) / 22, variance (3 + 1 + 1 - 4 / 22) / 22^2."""
    told = difference(outcomes("1" * 3 + "0" + "1" * 16), outcomes("0" * 3 + "1" + "1" * 16))
    spread = (5 - 4 / 22) ** 0.5 / 22
    assert told.ci95 == pytest.approx((-2 / 22 - 1.959964 * spread, -2 / 22 + 1.959964 * spread))


def test_no_difference_among_few_is_not_certain_and_among_many_is():
    few, many = outcomes("1" * 20), outcomes("1" * 200)
    assert not difference(few, few).is_within(0.01)
    assert difference(many, many).is_within(0.01)


def test_words_count_by_the_sentence():
    first = [Outcome(4.0, 4.0), Outcome(2.0, 4.0)]
    second = [Outcome(4.0, 4.0), Outcome(4.0, 4.0)]
    assert score(first) == 0.75
    assert difference(first, second).mean == pytest.approx(0.25)


def test_other_examples_are_refused():
    with pytest.raises(ValueError, match="same examples"):
        difference(outcomes("11"), outcomes("1"))
    with pytest.raises(ValueError, match="same examples"):
        difference([Outcome(1.0, 1.0)], [Outcome(1.0, 4.0)])


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    generator = torch.Generator().manual_seed(0)
    hits = 0
    for _ in range(400):
        drawn = torch.rand(60, generator=generator)
        gains = (drawn < 0.10).float() - ((drawn >= 0.10) & (drawn < 0.15)).float()  # won 10%, lost 5%
        first = [Outcome(float(gain < 0), 1.0) for gain in gains]
        second = [Outcome(float(gain > 0), 1.0) for gain in gains]
        low, high = difference(first, second).ci95
        hits += low <= 0.05 <= high
    assert 0.92 <= hits / 400 <= 0.99


def test_answers_are_judged_one_by_one_as_in_the_suite():
    row = SUITE["t2t"]
    example = next(one for one in (row.world(3).example("t2t", index) for index in range(20)) if row.is_wanted(one))
    answer = str(example.truth["problem"].answer)
    for text, points in ((answer, 1.0), ("none", 0.0)):
        assert outcome("t2t", example, made("t2t", text)) == Outcome(points, 1.0)


def test_words_of_a_transcript_are_points():
    example = Example(task="s2t", condition={}, target={Modality.TEXT: "a dog above a star"})
    assert outcome("s2t", example, made("s2t", "a dog above a tree")) == Outcome(4.0, 5.0)
