"""The loop of trainings whose network is whole in every process, on a few numbers that learn.

Started by `torchrun`, it is one of the processes of such a training.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dynin.training import optim, processes, resume, state, whole
from dynin.training.config import OptimizerConfig

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "src"), "OMP_NUM_THREADS": "1"}
SIZES = torch.tensor([1.0, -3.0])
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
        self.pair = nn.Parameter(torch.tensor([[0.1, 0.4]]))


def one(part: int) -> Tensor:
    return torch.tensor([float(part + 1)])


def train(
    place: Path, *, stop: int | None = None, limit: float = 9.0, draw: Callable[[int], Tensor] = one
) -> tuple[Number, list[Any], list[int]]:
    network, told, drawn = Number(), [], []

    def learn(item: Tensor, step: int) -> dict[str, float]:
        if step == stop:
            raise KeyboardInterrupt
        drawn.append(step)
        loss = (network.value - item).square().mean() + (network.pair - item[:, None] * SIZES).square().mean()
        loss.backward()
        return {"loss": float(loss.detach())}

    def bound() -> None:
        with torch.no_grad():
            network.value.clamp_(max=limit)

    learning = whole.Learning(
        network=network,
        optimizers=optim.build(network, Settings(output=place).optimizer),
        draw=draw,
        learn=learn,
        count=lambda item: 3 * item.numel(),
        unit="things",
        marks=MARKS,
        moved=bound,
        look=lambda done, average: {"average": float(average.tensors["value"])},
        notes={"more": 7},
    )
    whole.run(learning, Settings(output=place), device="cpu", report=told.append, resuming=resume.EXACT)
    return network, told, drawn


def test_figures_are_means_between_lines_and_what_is_made_tells_of_the_run(tmp_path: Path) -> None:
    network, told, drawn = train(tmp_path)
    assert drawn == list(range(6))
    assert [line["step"] for line in told] == [2, 4, 6]
    assert not torch.equal(network.value, Number().value)
    facts = whole.provenance(Settings(output=tmp_path), "things", {"init": ""})
    assert (facts["steps"], facts["things"], facts["init"]) == (6, 18, "")


def test_what_bounds_the_weights_comes_before_their_average(tmp_path: Path) -> None:
    network, told, _ = train(tmp_path, limit=0.25)
    assert network.value.item() <= 0.25
    assert all(line["average"] <= 0.25 for line in told)


def test_a_run_that_was_stopped_ends_as_the_unbroken_one(tmp_path: Path) -> None:
    unbroken, _, _ = train(tmp_path / "unbroken")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", stop=4)
    again, _, drawn = train(tmp_path / "cut")
    assert drawn == [3, 4, 5]  # the state saved last was of three steps
    assert torch.equal(again.value, unbroken.value)


def test_two_processes_move_as_one_that_learns_from_both_parts(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__]
    subprocess.run([*command, str(tmp_path / "two")], env=ENVIRONMENT, check=True, capture_output=True)
    alone, told, _ = train(tmp_path / "one", draw=lambda step: torch.cat([one(2 * step), one(2 * step + 1)]))
    made = [json.loads((tmp_path / f"two-{rank}.json").read_text()) for rank in range(2)]
    assert [each["drawn"] for each in made] == [[0, 2, 4, 6, 8, 10], [1, 3, 5, 7, 9, 11]]
    for each in made:
        assert each["values"] == pytest.approx([alone.value.item(), *alone.pair[0].tolist()], abs=1e-6)
    lines = [json.loads(line) for line in (tmp_path / "two" / "x" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6]
    for name in ("loss", "average", "grad_norm"):
        assert [line[name] for line in lines] == pytest.approx([line[name] for line in told], rel=1e-5), name
    assert state.read_notes(tmp_path / "two" / "x" / "state")["things"] == 36


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    processes.join()
    network, _, drawn = train(folder)
    made = {"values": [network.value.item(), *network.pair[0].tolist()], "drawn": drawn}
    folder.with_name(f"{folder.name}-{processes.rank()}.json").write_text(json.dumps(made))
    processes.leave()
