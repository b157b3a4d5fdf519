"""The benchmark of quality on the tiny model: outcomes on disk, going on, refusing to mix, and what the bench reads."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from dynin import testing
from dynin.decoding.parallel import EntropyBound
from dynin.pipeline.presets import PRESET_NAMES

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import quality  # noqa: E402
import quality_points  # noqa: E402


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(quality, "PLACE", tmp_path / "runs")
    monkeypatch.setattr(quality, "CONFIRMED", tmp_path / "confirmed")
    monkeypatch.setattr(quality, "GROUP", 2)
    return tmp_path


@pytest.fixture(scope="module")
def tiny():
    return testing.tiny()


def test_outcomes_are_kept_added_to_and_summed_up(tiny, place, capsys):
    quality.measure(tiny, "t2i", ["exact", "fast"], 2, seed=3, place=place / "runs")
    quality.measure(tiny, "t2i", ["exact", "fast"], 4, seed=3, place=place / "runs")
    made = json.loads((place / "runs" / "t2i" / "exact.json").read_text())["made"]
    assert len(made) == 4
    assert capsys.readouterr().out.count("t2i") == 4  # two groups at two points, none of them twice
    quality.report(place / "runs", place / "quality.json", place / "quality.png")
    row = json.loads((place / "quality.json").read_text())["rows"]["t2i"]
    assert row["default"] == "exact"  # of four examples nothing is certain
    exact, fast = row["points"]["exact"], row["points"]["fast"]
    assert exact["forwards"] == 16
    assert exact["tokens_per_forward"] == 1.0
    assert exact["n"] == fast["n"] == 4
    assert {"score", "difference_ci95", "columns", "columns_per_forward", "tokens"} <= set(fast)


def test_a_point_whose_policy_changed_is_refused_not_mixed(tiny, place):
    quality.measure(tiny, "t2i", ["exact"], 2, seed=3, place=place / "runs")
    policies = {name: replace(policy, num_steps=3) for name, policy in tiny.policies.items()}
    with pytest.raises(SystemExit, match="other settings"):
        quality.measure(replace(tiny, policies=policies), "t2i", ["exact"], 4, seed=3, place=place / "runs")


def outcomes(path, points, seed, columns=10):
    """Outcomes of a point: right or wrong by a string of ones and zeros."""
    made = [
        {"points": float(one), "weight": 1.0, "num_forwards": 2, "num_columns": columns, "num_tokens": 4}
        for one in points
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"policies": {}, "seed": seed, "weights": "", "processor_s": 1.0, "made": made}))


def test_a_preset_is_judged_by_examples_of_its_own_where_there_are_any(place):
    runs, confirmed = place / "runs", place / "confirmed"
    outcomes(runs / "t2i" / "exact.json", "1" * 400, seed=1, columns=90)
    outcomes(runs / "t2i" / "fast.json", "1" * 400, seed=1)
    assert quality.summary("t2i", runs, confirmed)["default"] == "fast"
    outcomes(confirmed / "t2i" / "exact.json", "1" * 400, seed=2, columns=90)
    assert quality.summary("t2i", runs, confirmed)["default"] == "fast"
    outcomes(confirmed / "t2i" / "fast.json", "1" * 380 + "0" * 20, seed=2)
    told = quality.summary("t2i", runs, confirmed)
    assert told["default"] == "exact"
    assert (told["points"]["fast"]["seed"], told["confirmed"]["fast"]["seed"]) == (1, 2)
    assert told["confirmed"]["fast"]["difference"] == -0.05


def test_what_is_looked_at_elsewhere_is_reported_there(place, monkeypatch):
    for name in ("runs", "confirmed"):
        assert quality.reported(place / name)[:2] == (place / "runs", Path("docs/results/quality.json"))
    outcomes(place / "look" / "t2i" / "exact.json", "11", 1)
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "argv", ["quality.py", "--report", "--place", "look"])
    quality.main()
    assert (place / "look" / "quality.json").exists()
    assert not (place / "docs").exists()


def test_a_policy_is_told_by_what_differs_from_the_defaults(tiny):
    policy = quality.policies_at(tiny, "t2t", tiny.tasks["t2t"].targets, "entropy 0.1")["text"]
    assert policy.commit == EntropyBound(bound=0.1)
    assert quality.told(policy) == "num_steps=160, block_len=16, max_len=160, commit=EntropyBound(bound=0.1)"


def test_every_point_makes_a_policy_of_every_modality(tiny):
    for modality, points in quality_points.POINTS.items():
        for name in [*points, *PRESET_NAMES]:
            task = {"text": "t2t", "image": "t2i", "video": "t2v", "speech": "t2s"}[modality]
            policy = quality.policies_at(tiny, task, (modality,), name)[modality]
            exact = quality.policies_at(tiny, task, (modality,), "exact")[modality]
            assert (policy == exact) == (name == "exact"), name
