"""What a run shows while it goes on, and settings that change how a step runs but not what it gives."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dynin.model.transformer import Transformer
from dynin.sequence.batch import pack
from dynin.training import loop, parallel
from dynin.training import run as runs
from dynin.training.objective import LossModule, Objective, ObjectiveConfig
from dynin.vocabulary import EMBEDDED
from tests.unit.training.test_loop import Copies, quiet, run, settings, small_model
from tests.unit.training.test_run import settings as settings_of
from tests.unit.training.test_run import start  # noqa: F401 - a fixture

CPU = torch.device("cpu")


def test_previews_are_files_and_what_failed_is_noted(start, tmp_path):  # noqa: F811
    config = replace(
        settings_of(start, tmp_path), preview_every=1, steps=2, tasks={"t2i": 1.0, "i2t": 1.0, "t2t": 1.0, "t2s": 0.0}
    )
    runs.run(config, device=CPU, report=quiet)
    places = sorted((tmp_path / "run" / "previews").iterdir())
    assert [place.name for place in places] == ["step-00000001", "step-00000002"]
    told = json.loads((places[1] / "made.json").read_text())
    assert set(told) == {"t2i", "i2t", "t2t"}
    assert (places[1] / "t2i.png").read_bytes().startswith(b"\x89PNG")
    assert all("made" in entry or "failed" in entry for entry in told.values())
    assert told["t2i"]["text"]


def test_previews_do_not_change_a_run(start, tmp_path):  # noqa: F811
    plain, _ = runs.run(settings_of(start, tmp_path / "a"), device=CPU, report=quiet)
    shown, _ = runs.run(replace(settings_of(start, tmp_path / "b"), preview_every=1), device=CPU, report=quiet)
    assert all(torch.equal(value, shown.state_dict()[name]) for name, value in plain.state_dict().items())


def test_curves_are_readable_by_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tmp_path, 10, tensorboard=True)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert [point.step for point in events.Scalars("loss/t2i")] == [5, 10]
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [point.value for point in events.Scalars("loss/t2i")] == pytest.approx(
        [line["loss/t2i"] for line in lines], abs=1e-5
    )


def gradients(prepare=lambda model: None):
    model = small_model()
    prepare(model)
    objective = Objective(EMBEDDED, ObjectiveConfig())
    batches = pack(Copies().rows(0), pad_id=EMBEDDED["pad"], tokens_per_batch=200)
    hidden = [objective.hide(batch, generator=torch.Generator().manual_seed(0)) for batch in batches]
    loop.gradients(LossModule(model, objective), hidden, 0, settings(Path("unused"), 1))
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def test_recomputing_gives_the_same_gradients_bit_for_bit():
    kept, again = gradients(), gradients(parallel.recompute_blocks)
    assert all(torch.equal(value, again[name]) for name, value in kept.items())


def test_recomputed_blocks_run_twice():
    calls = []

    def watched(model: Transformer):
        model.blocks[0].attention.register_forward_hook(lambda *_: calls.append(1))
        parallel.recompute_blocks(model)

    gradients(watched)
    batches = pack(Copies().rows(0), pad_id=EMBEDDED["pad"], tokens_per_batch=200)
    assert len(calls) == 2 * len(batches)
