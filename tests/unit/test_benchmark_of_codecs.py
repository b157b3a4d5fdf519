"""The benchmark of the tokenizers: whose turn it is, and when no ratio is told."""

import importlib.util
from pathlib import Path

import pytest
import torch

spec = importlib.util.spec_from_file_location("benchmark", Path(__file__).parents[2] / "benchmarks" / "codecs.py")
assert spec is not None
assert spec.loader is not None
benchmark = importlib.util.module_from_spec(spec)
spec.loader.exec_module(benchmark)


def turns(*cpu_s: float) -> list[object]:
    return [benchmark.Turn(cpu_s=seconds, wall_s=2 * seconds) for seconds in cpu_s]


def test_contestants_take_turns_forwards_and_backwards() -> None:
    order: list[str] = []
    contestants = {name: lambda name=name: order.append(name) for name in "AB"}
    taken = benchmark.take_turns(contestants, 2)
    assert "".join(order) == "ABBAABBA"
    assert {name: len(list_of) for name, list_of in taken.items()} == {"A": 4, "B": 4}


def test_a_ratio_is_told_where_it_means_something() -> None:
    steady = benchmark.speedup(turns(2, 2.1, 2, 2), turns(1, 1, 1, 1), True)
    assert steady["cpu"] == pytest.approx(2.025)
    assert steady["wall"] == pytest.approx(2.0)
    assert benchmark.speedup(turns(2, 3), turns(1, 1), True)["cpu"] is None
    assert benchmark.speedup(turns(2, 2), turns(1, 1), False) == {"cpu": 2.0, "wall": None}


def test_results_are_compared_as_codes_or_as_numbers() -> None:
    assert benchmark.likeness(torch.tensor([1, 2, 3, 4]), torch.tensor([1, 2, 3, 5])) == "75.0% of codes equal"
    assert benchmark.likeness(torch.tensor([0.0, 2.0]), torch.tensor([0.0, 1.9])) == "differs by 5.0e-02 of the range"


def test_a_case_is_reported_by_contestant(capsys: pytest.CaptureFixture[str]) -> None:
    report = benchmark.compare("case", {"plain": lambda: torch.ones(1), "ours": lambda: torch.ones(1)}, 1, False)
    assert list(report) == ["plain", "ours"]
    assert report["ours"]["speedup"]["wall"] is None
    assert "no ratio wall" in capsys.readouterr().out
