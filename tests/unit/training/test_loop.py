"""Training: it learns, resumes exactly, and keeps the old state when it is killed."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dynin.errors import CheckpointError, ConfigError, DataError, TrainingError
from dynin.model.config import ModelConfig
from dynin.model.transformer import Transformer, initialise
from dynin.sequence.layout import Assembler
from dynin.sequence.task import EMBEDDED_TASKS
from dynin.training import loop, optim, prefetch, resume, state
from dynin.training.config import OptimizerConfig, TrainConfig
from dynin.training.objective import LossModule, Objective, ObjectiveConfig
from dynin.types import Modality
from dynin.vocabulary import EMBEDDED


class Copies:
    """Rows whose picture is told by one word."""

    def fingerprint(self):
        return "copies"

    def rows(self, step):
        assembler = Assembler(vocabulary=EMBEDDED, encode_text=lambda text: list(text.encode()))
        values = [(step * 7 + index) % 4 for index in range(8)]
        rows = [
            assembler.assemble(
                EMBEDDED_TASKS["t2i"], {Modality.TEXT: "abcd"[value]}, {Modality.IMAGE: torch.full((16,), value)}
            )
            for value in values
        ]
        return [replace(row, name=f"copy {index}") for index, row in enumerate(rows)]


CHANGED = resume.Policy(is_exact=False)


def settings(folder: Path, steps: int) -> TrainConfig:
    return TrainConfig(
        name="run",
        steps=steps,
        tasks={"t2i": 1.0},
        tokens_per_batch=200,
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


def quiet(entry):
    """Report nothing."""


def run(
    folder: Path, steps: int, stop_at: int | None = None, *, resuming=resume.EXACT, **changed
) -> tuple[Transformer, optim.Average]:
    model = small_model()

    def report(entry):
        if stop_at is not None and entry["step"] >= stop_at:
            raise KeyboardInterrupt

    config = replace(settings(folder, steps), **changed)
    hooks = loop.Hooks(report=report)
    average = loop.train(model, Objective(EMBEDDED, config.objective), Copies(), config, hooks, resuming=resuming)
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


def test_a_state_of_other_optimizers_is_refused(tmp_path):
    run(tmp_path, 5)
    with pytest.raises(CheckpointError, match="cannot be resumed with these settings: optimizer"):
        run(tmp_path, 10, resuming=CHANGED, optimizer=OptimizerConfig(matrix_rate=0.0, learning_rate=5e-3))


def test_time_and_tokens_add_up_over_a_pause(tmp_path):
    run(tmp_path, 5)
    first = state.read_notes(tmp_path / "run" / "state")
    run(tmp_path, 10, resuming=CHANGED)
    second = state.read_notes(tmp_path / "run" / "state")
    assert second["tokens"] > first["tokens"] > 0
    assert second["seconds"] > first["seconds"] > 0
    assert state.read_step(tmp_path / "run" / "state") == 10


def test_a_loss_that_is_not_finite_stops_with_its_step_and_task(tmp_path):
    model = small_model()
    torch.nn.init.constant_(model.output.weight, float("nan"))
    objective = Objective(EMBEDDED, ObjectiveConfig())
    with pytest.raises(TrainingError, match=r"task t2i \(examples .*copy 0.* at step 0"):
        loop.train(model, objective, Copies(), settings(tmp_path, 5), loop.Hooks(report=quiet))


def test_rates_rise_stay_and_fall():
    config = OptimizerConfig(warmup_steps=10, decay_share=0.5, final_fraction=0.1)
    shares = [optim.share_of_peak(step, 100, config) for step in range(101)]
    assert shares[0] == pytest.approx(0.1)
    assert shares[:10] == sorted(shares[:10])
    assert shares[10:50] == [1.0] * 40
    assert shares[50:] == sorted(shares[50:], reverse=True)
    assert shares[100] == pytest.approx(0.1)


def test_matrices_of_the_blocks_follow_muon_and_nothing_else_does():
    model = small_model()
    tables, matrices = optim.build(model, OptimizerConfig(learning_rate=1e-3, matrix_rate=2e-3))
    taken = {id(parameter) for group in matrices.param_groups for parameter in group["params"]}
    named = dict(model.named_parameters())
    assert {name for name, value in named.items() if id(value) in taken} == {
        name for name, value in named.items() if name.startswith("blocks.") and value.ndim == 2
    }
    optim.set_rates([tables, matrices], 0.5)
    assert [group["lr"] for group in matrices.param_groups] == [1e-3]
    assert len(optim.build(model, OptimizerConfig(matrix_rate=0.0))) == 1


def test_a_run_in_bfloat16_learns_and_keeps_its_weights_in_float32(tmp_path):
    model = small_model()
    config = replace(settings(tmp_path, 20), dtype="bfloat16")
    loop.train(model, Objective(EMBEDDED, ObjectiveConfig()), Copies(), config, loop.Hooks(report=quiet))
    losses = [json.loads(line)["loss/t2i"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.7 * losses[0]
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_the_size_of_batches_does_not_change_a_step(tmp_path):
    """Sums are divided by the weight of the whole step: one batch and several give the same gradients."""
    source, objective = Copies(), Objective(EMBEDDED, ObjectiveConfig(correction_prob=0.0))
    objective._corrupt = lambda batch, generator: (  # the same places whatever the batch
        torch.where(batch.is_target, EMBEDDED["mask"], batch.ids),
        batch.is_target,
        torch.zeros_like(batch.is_target),
        torch.ones(len(batch.ids)),
    )
    gradients = []
    for tokens in (64, 4096):
        model = small_model()
        config = replace(settings(tmp_path, 1), tokens_per_batch=tokens)
        [(_, made)] = prefetch.steps(source, objective, config, 0)
        loop.gradients(LossModule(model, objective), made.hidden, 0, config)
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    assert len(made.hidden) == 1
    for name, value in gradients[0].items():
        assert torch.allclose(value, gradients[1][name], atol=1e-6), name


def test_an_unknown_task_is_named():
    with pytest.raises(ConfigError, match="t2x"):
        TrainConfig(name="x", steps=1, tasks={"t2x": 1.0})


def test_packed_rows_lose_what_padded_rows_lose(tmp_path):
    """Everything is hidden, so that only the cut into batches differs."""
    losses, shapes = [], []
    for length in (0, 48):
        model = small_model()
        seen: list[tuple[int, ...]] = []
        model.blocks[0].register_forward_hook(lambda _, given, __, seen=seen: seen.append(tuple(given[0].shape[:2])))
        objective = Objective(EMBEDDED, ObjectiveConfig(correction_prob=0.0, grid_schedule="pow1000"), length)
        config = replace(settings(tmp_path / str(length), 3), pack_length=length, tokens_per_batch=48, log_every=1)
        loop.train(model, objective, Copies(), config, loop.Hooks(report=quiet))
        log = (tmp_path / str(length) / "run" / "log.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["loss/t2i"] for line in log])
        shapes.append(seen)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert shapes == [[(1, 32)] * 24, [(1, 48)] * 12]  # a row by itself, padded; two rows in one sequence


@pytest.mark.parametrize("workers", [0, 2])
def test_any_number_of_workers_makes_the_same_steps(tmp_path, workers):
    objective = Objective(EMBEDDED, ObjectiveConfig())
    config = replace(settings(tmp_path, 9), workers=workers)
    alone = prefetch.Steps(Copies(), objective, config)
    for step, made in prefetch.steps(Copies(), objective, config, 2):
        assert made.num_tokens == alone[step].num_tokens
        for one, other in zip(made.hidden, alone[step].hidden, strict=True):
            assert torch.equal(one.xt, other.xt)
            assert torch.equal(one.weights, other.weights)
    assert step == 8


@pytest.mark.parametrize("workers", [0, 2])
def test_a_fault_of_the_data_is_raised_as_it_was_told(tmp_path, workers):
    class Faulty(Copies):
        def rows(self, step):
            if step == 3:
                raise DataError("line 7, field 'image': no picture")
            return super().rows(step)

    config = replace(settings(tmp_path, 9), workers=workers)
    seen: list[int] = []
    with pytest.raises(DataError, match="^line 7, field 'image': no picture$"):
        seen.extend(step for step, _ in prefetch.steps(Faulty(), Objective(EMBEDDED, ObjectiveConfig()), config, 0))
    assert seen == [0, 1, 2]


@pytest.mark.parametrize(("is_any", "last"), [(False, 3), (True, 2)])
def test_the_last_batch_is_filled_up_unless_any_shape_will_do(tmp_path, is_any, last):
    config = replace(settings(tmp_path, 1), tokens_per_batch=96, dynamic_shapes=is_any)
    [(_, made)] = prefetch.steps(Copies(), Objective(EMBEDDED, ObjectiveConfig()), config, 0)
    assert [len(hidden.xt) for hidden in made.hidden] == [3, 3, last]
