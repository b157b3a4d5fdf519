"""What is saved is whole or absent, and every damage is found and named."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from dynin.errors import CheckpointError
from dynin.training import optim, resume, state
from dynin.training.config import OptimizerConfig
from tests.unit.training.test_loop import CHANGED, run, small_model

ROOT = Path(__file__).parents[3]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
PREVIOUS = resume.Policy(is_previous=True)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Two saved steps, 5 and 10, of a run of 10."""
    folder = tmp_path_factory.mktemp("saved")
    run(folder, 10)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    shutil.copytree(saved / "run", tmp_path / "run")
    return tmp_path


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def exchange(path: Path) -> None:
    shutil.copy(path.parents[1] / "step-00000005" / path.name, path)


@pytest.mark.parametrize("damage", [flip, cut, exchange, Path.unlink])
@pytest.mark.parametrize("name", ["shard", "position.json", "MANIFEST.json"])
def test_every_damaged_file_is_named_and_the_step_before_offered(folder, name, damage):
    place = folder / "run" / "state" / "step-00000010"
    (path,) = [path for path in place.iterdir() if path.name.startswith(name)]
    damage(path)
    changed = path.name if name != "MANIFEST.json" else "(MANIFEST|shard|position)"
    with pytest.raises(CheckpointError, match=rf"{changed}.*--resume previous to go on from step-00000005"):
        run(folder, 10)
    run(folder, 10, resuming=PREVIOUS)
    assert state.read_step(folder / "run" / "state") == 10
    state.verify(place)


@pytest.mark.parametrize("content", [b"", b"step-000", b"\xff\x00"])
def test_where_latest_names_no_step_nothing_begins_anew(folder, content):
    latest = folder / "run" / "state" / "LATEST"
    latest.write_bytes(content)
    for resuming in (resume.EXACT, PREVIOUS):
        with pytest.raises(CheckpointError, match=r"LATEST: damaged.*delete this file to go on from step-00000010"):
            run(folder, 10, resuming=resuming)
    latest.unlink()
    run(folder, 10)
    assert state.read_step(latest.parent) == 10


def test_where_latest_names_a_step_that_is_not_there_the_one_before_is_offered(folder):
    (folder / "run" / "state" / "LATEST").write_text("step-00000011")
    with pytest.raises(CheckpointError, match=r"MANIFEST.json: missing.*--resume previous to go on from step-00000010"):
        run(folder, 10)


def test_a_file_that_does_not_belong_is_named(folder):
    (folder / "run" / "state" / "step-00000010" / "more.bin").write_bytes(b"1")
    with pytest.raises(CheckpointError, match="more.bin: does not belong"):
        run(folder, 10)


def test_going_back_ends_where_the_unbroken_run_ends(saved, folder):
    before = state.read_tensors(saved / "run" / "state", "model")
    run(folder, 10, resuming=PREVIOUS)
    after = state.read_tensors(folder / "run" / "state", "model")
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_without_a_step_before_going_back_says_so(tmp_path):
    run(tmp_path, 5)
    with pytest.raises(CheckpointError, match="no step before step-00000005"):
        run(tmp_path, 5, resuming=PREVIOUS)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"seed": 7}, r"other settings \(seed: 0, now 7\)"),
        ({"tokens_per_batch": 300}, r"tokens_per_batch: 200, now 300"),
        (
            {"optimizer": OptimizerConfig(learning_rate=1e-3, warmup_steps=2)},
            r"other settings \(optimizer.learning_rate: 0.005, now 0.001\)",
        ),
    ],
)
def test_other_settings_are_told_and_refused(folder, changed, told):
    with pytest.raises(CheckpointError, match=told):
        run(folder, 10, **changed)
    run(folder, 10, resuming=CHANGED, **changed)


def test_settings_that_change_nothing_may_change(folder):
    run(folder, 10, save_every=2, log_every=1)


@pytest.mark.parametrize("mark", ["code", "data"])
def test_other_code_and_other_data_are_told_and_refused(folder, mark, monkeypatch):
    real = resume.marks

    def other(config, data):
        return real(config, data) | {mark: "other"}

    monkeypatch.setattr(resume, "marks", other)
    with pytest.raises(CheckpointError, match=resume.TOLD[mark]):
        run(folder, 10)


def test_two_steps_are_kept_and_nothing_else(saved):
    assert sorted(path.name for path in (saved / "run" / "state").iterdir()) == [
        "LATEST", "step-00000005", "step-00000010",
    ]  # fmt: skip


def test_a_full_disk_leaves_the_step_before(folder):
    """The system itself refuses to write further, as it does on a full disk."""
    script = """
import resource, signal, sys
from pathlib import Path
from tests.unit.training.test_loop import CHANGED, run
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
run(Path(sys.argv[1]), 15, resuming=CHANGED)
"""
    command = [sys.executable, "-c", script, str(folder)]
    done = subprocess.run(command, env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "step 15 could not be saved" in done.stderr
    assert "File too large" in done.stderr
    kept = folder / "run" / "state"
    assert state.read_step(kept) == 10
    assert not list(kept.glob("*.tmp"))
    state.verify(kept / "step-00000010")


KILLED = """
import os, signal, sys, threading
from pathlib import Path
from dynin.training import state
from tests.unit.training.test_loop import run
where = sys.argv[3]
if where == "saving":
    moment = int(sys.argv[2])
    count = iter(range(10**9))
    def watch(event, arguments):
        if event in ("open", "os.rename", "shutil.rmtree") and "step-" in str(arguments[0]):
            if next(count) == moment:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(watch)
print("ready", flush=True)
run(Path(sys.argv[1]), 15)
"""


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    run(folder, 15)
    return {part: state.read_tensors(folder / "run" / "state", part) for part in ("model", "average", "optimizer")}


@pytest.mark.parametrize("moment", [3, 7, 11])
def test_killed_inside_a_save_it_restarts_and_ends_bit_for_bit_where_the_unbroken_run_ends(tmp_path, moment, unbroken):
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(moment), "saving"]
    killed = subprocess.run(command, env=ENVIRONMENT, cwd=ROOT, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    run(tmp_path, 15)
    for part, tensors in unbroken.items():
        after = state.read_tensors(tmp_path / "run" / "state", part)
        assert all(torch.equal(value, after[name]) for name, value in tensors.items())


def test_killed_between_steps_it_ends_bit_for_bit_where_the_unbroken_run_ends(tmp_path, unbroken):
    command = [sys.executable, "-c", KILLED, str(tmp_path), "0", "anywhere"]
    for pause in (0.5, 1.0):
        with subprocess.Popen(command, env=ENVIRONMENT, cwd=ROOT, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(pause)
            process.kill()
    run(tmp_path, 15)
    for part, tensors in unbroken.items():
        after = state.read_tensors(tmp_path / "run" / "state", part)
        assert all(torch.equal(value, after[name]) for name, value in tensors.items())


def test_a_run_that_never_stepped_can_be_saved_and_read_in_parts(tmp_path):
    model = small_model()
    optimizers, average = optim.build(model, OptimizerConfig()), optim.Average(model, 0.9)
    state.save(tmp_path, 0, model, average, optimizers)
    again = small_model()
    assert state.load(tmp_path, again, optim.Average(again, 0.9), optim.build(again, OptimizerConfig())) == 0
    with pytest.raises(CheckpointError, match="holds no voice; its parts: average, model, optimizer"):
        state.read_tensors(tmp_path, "voice")
