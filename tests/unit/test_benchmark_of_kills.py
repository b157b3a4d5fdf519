"""The benchmark of kills: what was hit, and that two runs that differ anywhere do not count as equal."""

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest

from tests.unit.training.test_loop import run

spec = importlib.util.spec_from_file_location("kills", Path(__file__).parents[2] / "benchmarks" / "kills.py")
assert spec is not None
assert spec.loader is not None
kills = importlib.util.module_from_spec(spec)
sys.modules["kills"] = kills
spec.loader.exec_module(kills)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    run(folder, 5, name=kills.NAME, log_every=1)
    return folder


def test_equal_runs_are_equal_and_other_weights_data_figures_and_models_are_told(whole, tmp_path):
    run(tmp_path / "again", 5, name=kills.NAME, log_every=1)
    assert kills.differences(whole, tmp_path / "again") == ()
    run(tmp_path / "other", 5, name=kills.NAME, log_every=1, seed=7)
    assert kills.differences(whole, tmp_path / "other") == ("model", "average", "optimizer", "figures of a step")


def test_a_step_that_was_made_twice_has_to_come_out_alike(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "twice")
    log = tmp_path / "twice" / kills.NAME / "log.jsonl"
    last = log.read_text().splitlines()[-1]
    log.write_text(f"{log.read_text()}{last}\n")
    assert kills.differences(whole, tmp_path / "twice") == ()
    log.write_text(log.read_text() + last.replace('"grad_norm": ', '"grad_norm": 1') + "\n")
    assert kills.differences(whole, tmp_path / "twice") == ("figures of a step",)


def test_an_exported_model_is_compared_by_its_files(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "more")
    place = tmp_path / "more" / kills.NAME / "model"
    place.mkdir()
    (place / "model.safetensors").write_bytes(b"1")
    assert kills.differences(whole, tmp_path / "more") == ("exported weights",)


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ([], "before the first save"),
        (["step-00000004.tmp/"], "inside a save: nothing yet"),
        (["step-00000004.tmp/shard-00001.safetensors"], "inside a save: shard"),
        (["step-00000004/position.json"], "inside a save: renamed, LATEST not yet"),
        (["LATEST", "step-00000004/position.json"], "between saves"),
        (
            ["LATEST", *(f"step-0000000{step}/position.json" for step in (2, 3, 4))],
            "inside a save: the oldest step not yet removed",
        ),
    ],
)
def test_what_lies_there_tells_what_was_hit(tmp_path, files, told):
    for name in files:
        path = tmp_path / name
        if name.endswith("/"):
            path.mkdir()
            continue
        path.parent.mkdir(exist_ok=True)
        path.write_text("step-00000004")
    assert kills.where(tmp_path) == told
