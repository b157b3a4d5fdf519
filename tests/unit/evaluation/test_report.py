"""Scores, intervals and the report on disk."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynin.evaluation.report import share, table, write


@given(st.lists(st.booleans(), min_size=1, max_size=300))
def test_the_interval_holds_the_score_and_stays_inside_zero_and_one(is_right):
    score = share("x", is_right)
    low, high = score.ci95
    assert 0 <= low <= score.score + 1e-9
    assert score.score - 1e-9 <= high <= 1


def test_the_interval_is_wilsons():
    low, high = share("x", [True] * 80 + [False] * 20).ci95
    assert (low, high) == (pytest.approx(0.7112, abs=1e-4), pytest.approx(0.8666, abs=1e-4))


def test_no_example_is_an_error():
    with pytest.raises(ValueError, match="no example"):
        share("x", [])


def test_the_report_has_the_agreed_form(tmp_path):
    scores = {"t2i": share("right", [True, False], {"floor": 0.25})}
    write(tmp_path / "r.json", scores, {"seed": 3})
    content = json.loads((tmp_path / "r.json").read_text())
    assert content["tasks"]["t2i"] == {
        "metric": "right", "score": 0.5, "ci95": [0.0945, 0.9055], "n": 2, "floor": 0.25,
    }  # fmt: skip
    assert content["about"] == {"seed": 3}
    assert "0.500" in table(scores)
