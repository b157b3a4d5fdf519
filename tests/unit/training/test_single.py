"""The loop of trainings in one process, on one number that learns."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dynin.training import optim, resume, single
from dynin.training.config import OptimizerConfig

MARKS: dict[str, Any] = {"settings": {}, "start": "s", "data": "d", "code": "c", "processes": 1}


@dataclass(frozen=True, kw_only=True)
class Settings:
    output: Path
    name: str = "x"
    steps: int = 6
    log_every: int = 2
    save_every: int = 3
    tensorboard: bool = False
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(
            learning_rate=0.5, matrix_rate=0.0, warmup_steps=1, weight_decay=0.0, average_decay=0.5
        )
    )


class Number(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor([0.2]))


def train(place: Path, *, stop: int | None = None, limit: float = 9.0) -> tuple[Number, list[Any], list[int]]:
    network, told, drawn = Number(), [], []

    def learn(item: Tensor, step: int) -> dict[str, float]:
        if step == stop:
            raise KeyboardInterrupt
        drawn.append(step)
        loss = (network.value - item).square().sum()
        loss.backward()
        return {"loss": float(loss.detach())}

    def bound() -> None:
        with torch.no_grad():
            network.value.clamp_(max=limit)

    learning = single.Learning(
        network=network,
        optimizers=optim.build(network, Settings(output=place).optimizer),
        draw=lambda step: torch.tensor(float(step + 1)),
        learn=learn,
        count=lambda item: 3,
        unit="things",
        marks=MARKS,
        moved=bound,
        look=lambda done, average: {"average": float(average.tensors["value"])},
        notes={"more": 7},
    )
    single.run(learning, Settings(output=place), device="cpu", report=told.append, resuming=resume.EXACT)
    return network, told, drawn


def test_figures_are_means_between_lines_and_what_is_made_tells_of_the_run(tmp_path: Path) -> None:
    network, told, drawn = train(tmp_path)
    assert drawn == list(range(6))
    assert [line["step"] for line in told] == [2, 4, 6]
    assert not torch.equal(network.value, Number().value)
    facts = single.provenance(Settings(output=tmp_path), "things", {"init": ""})
    assert (facts["steps"], facts["things"], facts["init"]) == (6, 18, "")


def test_what_bounds_the_weights_comes_before_their_average(tmp_path: Path) -> None:
    network, told, _ = train(tmp_path, limit=0.25)
    assert network.value.item() <= 0.25
    assert all(line["average"] <= 0.25 for line in told)


def test_a_run_that_was_stopped_ends_as_the_unbroken_one(tmp_path: Path) -> None:
    whole, _, _ = train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", stop=4)
    again, _, drawn = train(tmp_path / "cut")
    assert drawn == [3, 4, 5]  # the state saved last was of three steps
    assert torch.equal(again.value, whole.value)
