"""Training: it learns, resumes exactly, and keeps the old state when it is killed."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

from dynin.errors import CheckpointError, ConfigError
from dynin.model.config import ModelConfig
from dynin.model.transformer import Transformer, initialise
from dynin.sequence.layout import Assembler
from dynin.sequence.task import EMBEDDED_TASKS
from dynin.training import loop, optim, state
from dynin.training.config import OptimizerConfig, TrainConfig
from dynin.training.objective import Objective, ObjectiveConfig
from dynin.types import Modality
from dynin.vocabulary import EMBEDDED


class Copies:
    """Rows whose picture is told by one word."""

    def rows(self, task, *, step, batch):
        assembler = Assembler(vocabulary=EMBEDDED, encode_text=lambda text: list(text.encode()))
        values = [(step * 7 + batch + index) % 4 for index in range(8)]
        return [
            assembler.assemble(
                EMBEDDED_TASKS[task], {Modality.TEXT: "abcd"[value]}, {Modality.IMAGE: torch.full((16,), value)}
            )
            for value in values
        ]


def settings(folder: Path, steps: int) -> TrainConfig:
    return TrainConfig(
        name="run",
        steps=steps,
        tasks={"t2i": 1.0},
        batches_per_step=2,
        output=folder,
        log_every=5,
        save_every=5,
        optimizer=OptimizerConfig(learning_rate=5e-3, warmup_steps=2),
    )


def small_model() -> Transformer:
    config = ModelConfig(
        d_model=32, num_heads=2, num_kv_heads=2, num_layers=1, mlp_dim=48, num_rows=EMBEDDED.size, max_len=64
    )
    model = Transformer(config)
    initialise(model, torch.Generator().manual_seed(0))
    return model


def run(folder: Path, steps: int, stop_at: int | None = None) -> tuple[Transformer, optim.Average]:
    model = small_model()

    def report(entry):
        if stop_at is not None and entry["step"] >= stop_at:
            raise KeyboardInterrupt

    objective = Objective(EMBEDDED, ObjectiveConfig())
    average = loop.train(model, objective, Copies(), settings(folder, steps), report=report)
    return model, average


def test_twenty_steps_lower_the_loss(tmp_path):
    run(tmp_path, 20)
    losses = [json.loads(line)["loss/t2i"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert len(losses) == 4
    assert losses[-1] < 0.7 * losses[0]


def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(tmp_path):
    whole, whole_average = run(tmp_path / "whole", 15)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", 15, stop_at=10)
    resumed, resumed_average = run(tmp_path / "broken", 15)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    for name, value in whole_average.tensors.items():
        assert torch.equal(value, resumed_average.tensors[name]), name


def test_a_damaged_state_is_refused_by_name(tmp_path):
    run(tmp_path, 5)
    path = tmp_path / "run" / "state" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="cannot be resumed"):
        run(tmp_path, 10)


def test_a_loss_that_is_not_finite_stops_with_its_step_and_task(tmp_path):
    model = small_model()
    torch.nn.init.constant_(model.output.weight, float("nan"))
    objective = Objective(EMBEDDED, ObjectiveConfig())
    with pytest.raises(FloatingPointError, match="task t2i at step 0"):
        loop.train(model, objective, Copies(), settings(tmp_path, 5), report=lambda entry: None)


def test_a_run_killed_while_saving_keeps_a_whole_state(tmp_path):
    """A real process that saves without pause is killed at random moments; what it leaves always loads."""
    script = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from dynin.training import optim, state
        from dynin.training.config import OptimizerConfig
        from tests.unit.training.test_loop import small_model
        model = small_model()
        optimizer, average = optim.build(model, OptimizerConfig()), optim.Average(model, 0.9)
        for step in range(1, 10**9):
            state.save(Path(sys.argv[1]), step, model, average, optimizer)
            print(step, flush=True)
        """
    )
    folder = tmp_path / "state"
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"}
    command = [sys.executable, "-c", script, str(folder)]
    for moment in range(3):
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, cwd=root) as process:
            assert process.stdout is not None
            for _ in range(3):
                process.stdout.readline()
            time.sleep(0.003 * (moment + 1))
            process.send_signal(signal.SIGKILL)
        model = small_model()
        optimizer, average = optim.build(model, OptimizerConfig()), optim.Average(model, 0.9)
        assert state.load(folder, model, average, optimizer) >= 3


def test_rates_rise_then_fall():
    config = OptimizerConfig(learning_rate=1.0, warmup_steps=10, final_fraction=0.1)
    rates = [optim.rate(step, 100, config) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[10] == pytest.approx(1.0)
    assert rates[100] == pytest.approx(0.1)
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_an_unknown_task_is_named():
    with pytest.raises(ConfigError, match="t2x"):
        TrainConfig(name="x", steps=1, tasks={"t2x": 1.0})
