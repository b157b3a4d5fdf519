"""Problems are right, and so is their reasoning."""

import itertools
import re

import numpy as np
import pytest

from dynin.data.emoji_world import problem
from dynin.data.emoji_world.artwork import NAMES
from dynin.data.emoji_world.problem import Sum, final_answer, sample_problem, solution
from dynin.data.emoji_world.world import EmojiWorld
from dynin.errors import ConfigError


def test_the_worked_example():
    drawn = Sum(first=3, steps=(("+", 4), ("-", 2)))
    told = problem.sum_problem(drawn, "sum", NAMES, np.random.default_rng(0))
    assert solution(told, True) == "<think>3 + 4 = 7. 7 - 2 = 5.</think>5"
    assert solution(told, False) == "5"
    assert problem.prompt(told, True).endswith(" /think")
    assert problem.prompt(told, False).endswith(" /no_think")


def test_every_step_and_answer_is_arithmetically_right():
    generator = np.random.default_rng(0)
    for _ in range(1000):
        drawn = sample_problem(NAMES[:48], generator)
        assert 0 <= drawn.answer <= 40
        assert final_answer(solution(drawn, True)) == final_answer(solution(drawn, False)) == drawn.answer
        if drawn.form == "counting":
            asked, row = drawn.key.split(": ")
            assert row.split(", ").count(asked) == drawn.answer
            continue
        for line in drawn.reasoning.rstrip(".").split(". "):
            sides = line.split(" = ")
            first, *rest = re.split(r" ([-+x]) ", sides[0])
            value = int(first)
            for operator, number in zip(rest[::2], rest[1::2], strict=True):
                value = {"+": value + int(number), "-": value - int(number), "x": value * int(number)}[operator]
            assert value == int(sides[1])
        assert value == drawn.answer


@pytest.mark.parametrize(
    ("first", "operator", "second", "steps"),
    [
        (15, "+", 14, "5 + 4 = 9. 1 + 1 = 2. 15 + 14 = 29."),
        (15, "+", 7, "5 + 7 = 12. 1 + 0 + 1 = 2. 15 + 7 = 22."),
        (19, "-", 7, "9 - 7 = 2. 1 - 0 = 1. 19 - 7 = 12."),
        (23, "-", 5, "13 - 5 = 8. 2 - 0 - 1 = 1. 23 - 5 = 18."),
        (7, "x", 3, "7 x 3 = 21."),
        (9, "+", 8, "9 + 8 = 17."),
    ],
)
def test_larger_numbers_are_worked_digit_by_digit(first, operator, second, steps):
    assert problem.worked(Sum(first=first, steps=((operator, second),))) == steps


def test_every_thing_in_a_row_is_numbered_compared_and_counted():
    counted = next(
        drawn
        for drawn in (sample_problem(NAMES[:48], np.random.default_rng(seed)) for seed in range(100))
        if drawn.form == "counting"
    )
    asked, row = counted.key.split(": ")
    first, *lines = counted.reasoning.rstrip(".").split(". ")
    assert first == asked
    numbers, names, answers, counts = zip(*(_parts(line, asked) for line in lines), strict=True)
    assert list(names) == row.split(", ")
    assert list(numbers) == list(range(1, len(lines) + 1))
    assert [answer == "yes" for answer in answers] == [name == asked for name in names]
    assert list(counts) == list(itertools.accumulate(answer == "yes" for answer in answers))
    assert counts[-1] == counted.answer


def _parts(line, asked):
    """Number, name, yes or no, count; the asked thing stands behind the name."""
    number, rest = line.split(" ", 1)
    pair, answer, count = rest.rsplit(" ", 2)
    assert pair.endswith(f" {asked}")
    return int(number), pair.removesuffix(f" {asked}"), answer, int(count)


def test_the_key_knows_no_order_of_summands_but_of_everything_else():
    assert Sum(first=4, steps=(("+", 3),)).key == Sum(first=3, steps=(("+", 4),)).key == "3+4"
    assert Sum(first=10, steps=(("x", 2), ("-", 5))).key == "2x10-5"
    assert Sum(first=4, steps=(("-", 3),)).key == "4-3"


def test_sums_are_spoken_in_words():
    drawn = Sum(first=20, steps=(("+", 3),))
    assert problem.spoken_question(drawn) == "what is twenty plus three"
    assert problem.spoken_answer(drawn) == "twenty plus three is twenty three"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("5", 5), ("<think>1 + 1 = 2.</think>2", 2), (" 12. ", 12), ("<think>3 + 4", None), ("", None), ("five", None)],
)
def test_the_final_answer_is_read_after_the_steps(text, expected):
    assert final_answer(text) == expected


def test_one_thing_is_told_in_the_singular():
    generator = np.random.default_rng(0)
    drawn = Sum(first=1, steps=(("+", 4),))
    told = {problem.sum_problem(drawn, "story", ("dog",), generator).question for _ in range(50)}
    assert all(re.search(r"has 1 dog\.", text) for text in told)


@pytest.mark.parametrize(("share", "forms"), [(0.0, {"sum", "story"}), (1.0, {"counting"})])
def test_the_share_of_problems_that_count_may_be_chosen(share, forms):
    world = EmojiWorld(5, counting_share=share)
    assert {world.example("t2t", index).truth["problem"].form for index in range(60)} == forms


def test_a_share_outside_0_to_1_is_refused():
    with pytest.raises(ConfigError, match="counting_share is 1.5"):
        EmojiWorld(5, counting_share=1.5)
