"""Problems are right, and so is their reasoning."""

import re

import numpy as np
import pytest

from dynin.data.emoji_world import problem
from dynin.data.emoji_world.artwork import NAMES
from dynin.data.emoji_world.problem import Sum, final_answer, sample_problem, solution


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
        steps = re.findall(r"(\d+) ([-+x]) (\d+) = (\d+)\.", drawn.reasoning)
        assert 1 <= len(steps) <= 2
        for first, operator, second, result in steps:
            expected = {"+": int(first) + int(second), "-": int(first) - int(second), "x": int(first) * int(second)}
            assert expected[operator] == int(result) <= 40
            assert int(second) <= 20
        assert int(steps[-1][3]) == drawn.answer


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
