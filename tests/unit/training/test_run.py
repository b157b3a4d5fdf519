"""A run put together: it starts from a model folder alone, and what it exports is a model."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dynin.data.records.sources import SourceConfig
from dynin.errors import CheckpointError, ConfigError, DataError
from dynin.media.image import write
from dynin.model.config import EMBEDDED as EMBEDDED_MODEL
from dynin.model.transformer import Transformer, initialise
from dynin.pipeline.dynin import Dynin
from dynin.pipeline.folder import load, save
from dynin.testing import tiny
from dynin.training import parallel, state
from dynin.training import run as runs
from dynin.training import start as starts
from dynin.training.config import TrainConfig
from dynin.vocabulary import EMBEDDED


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A model of the embedded sizes with tiny tokenizers."""
    folder = tmp_path_factory.mktemp("start") / "model"
    network = Transformer(EMBEDDED_MODEL)
    initialise(network, torch.Generator().manual_seed(0))
    save(folder, Dynin.assemble(network, tiny().tokenizers, EMBEDDED))
    return folder


def settings(start, output) -> TrainConfig:
    return TrainConfig(
        name="run", steps=2, tasks={"t2i": 1.0}, rows_per_step=2, tokens_per_batch=80, init=str(start), output=output
    )


def test_a_run_starts_from_a_model_folder_and_exports_one_with_its_tokenizers(start, tmp_path):
    config = settings(start, tmp_path)
    model, average = runs.run(config, device=torch.device("cpu"), report=lambda figures: None)
    before = load(start)
    moved = [(value - before.model.state_dict()[name]).abs().max() for name, value in model.state_dict().items()]
    assert 0 < max(moved) < 0.1
    runs.export(config, tmp_path / "model", {"data": "test"})
    after = load(tmp_path / "model")
    told = json.loads((tmp_path / "model" / "backbone" / "config.json").read_text())["provenance"]
    assert (told["data"], told["steps"], told["settings"]["rows_per_step"]) == ("test", 2, 2)
    assert after.tokenizers.fingerprints() == before.tokenizers.fingerprints()
    for name, value in after.model.state_dict().items():
        assert torch.allclose(value, average.tensors[name], atol=1e-2), name


def test_tokenizers_that_are_not_read_are_told(start, tmp_path, caplog):
    config = replace(settings(start, tmp_path), tokenizers="elsewhere")
    starts.side_of(config, torch.device("cpu"))
    assert "'tokenizers' is not read" in caplog.text


def test_a_start_that_is_no_model_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="none"):
        runs.run(settings(tmp_path / "none", tmp_path), device=torch.device("cpu"), report=lambda figures: None)


def test_exporting_a_run_that_saved_nothing_says_so(start, tmp_path):
    with pytest.raises(CheckpointError, match="no step was saved yet"):
        runs.export(settings(start, tmp_path), tmp_path / "model", {})


@pytest.mark.skipif(not any(map(shutil.which, parallel.COMPILERS)), reason="needs a C++ compiler")
def test_compiled_blocks_learn_the_same_and_keep_their_names(start, tmp_path):
    """A process of its own, without the test run's checks of shapes, which would be compiled too."""
    plain, _ = runs.run(settings(start, tmp_path / "a"), device=torch.device("cpu"), report=lambda figures: None)
    script = """
import sys
from dataclasses import replace
from pathlib import Path
import torch
from dynin.training import parallel, state
from dynin.training import run as runs
from dynin.training import start as starts
from tests.unit.training.test_run import settings
config = replace(settings(sys.argv[1], Path(sys.argv[2])), compile=True)
runs.run(config, device=torch.device("cpu"), report=lambda figures: None)
"""
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"}
    command = [sys.executable, "-c", script, str(start), str(tmp_path / "b")]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    compiled = state.read_tensors(tmp_path / "b" / "run" / "state", "model")
    assert compiled.keys() == plain.state_dict().keys()
    for name, value in plain.state_dict().items():
        assert torch.allclose(value, compiled[name], atol=1e-3), name


def test_a_shard_of_another_tokenizer_is_refused(start, tmp_path):
    shard = tmp_path / "codes.npz"
    np.savez(
        shard, text=np.array(["a dog"]), voice=np.array(["slt"]), codes=np.zeros(3, np.uint16),
        offsets=np.array([0, 3]), fingerprint=np.array("another"),
    )  # fmt: skip
    config = replace(settings(start, tmp_path), speech_shard=str(shard))
    with pytest.raises(CheckpointError, match="another speech tokenizer"):
        runs.run(config, device=torch.device("cpu"), report=lambda figures: None)


def test_without_a_compiler_compiling_is_refused(start, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    config = replace(settings(start, tmp_path), compile=True)
    with pytest.raises(ConfigError, match="compile=false"):
        runs.run(config, device=torch.device("cpu"), report=lambda figures: None)


def own_rows(folder, count):
    """A file of rows in the schema, pictures beside it."""
    write(folder / "dot.png", torch.zeros(3, 64, 64))
    rows = [
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": f"dot {index}"}]},
                {"role": "assistant", "content": [{"type": "image", "path": "dot.png"}]},
            ]
        }
        for index in range(count)
    ]
    path = folder / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


def test_a_run_learns_from_own_rows_alone_or_beside_the_world(start, tmp_path):
    own = {"dots": SourceConfig(path=str(own_rows(tmp_path, 5)), weight=1.0)}
    alone = replace(settings(start, tmp_path / "a"), tasks={}, data=own)
    runs.run(alone, device=torch.device("cpu"), report=lambda figures: None)
    both = replace(settings(start, tmp_path / "b"), data=own, rows_per_step=20)
    source = runs.source_of(both, starts.side_of(both, torch.device("cpu")))
    names = {row.name.partition(" ")[0] for row in source.rows(0)}
    assert "t2i" in names
    assert any("rows.jsonl" in name for name in names), names
    with open(tmp_path / "rows.jsonl", "a") as file:
        file.write("{}\n")
    with pytest.raises(DataError, match="rows.jsonl"):
        runs.run(alone, device=torch.device("cpu"), report=lambda figures: None)


def test_a_run_goes_on_with_the_same_own_rows_alone(start, tmp_path):
    own = {"dots": SourceConfig(path=str(own_rows(tmp_path, 5)))}
    config = replace(settings(start, tmp_path / "a"), tasks={}, data=own)
    runs.run(config, device=torch.device("cpu"), report=lambda figures: None)
    own_rows(tmp_path, 6)
    with pytest.raises(CheckpointError, match="other data"):
        runs.run(config, device=torch.device("cpu"), report=lambda figures: None)


def test_an_empty_mixture_is_told():
    with pytest.raises(ConfigError, match="names nothing"):
        TrainConfig(name="x", steps=1)
    with pytest.raises(ConfigError, match="nothing is drawn"):
        TrainConfig(name="x", steps=1, tasks={"t2i": 0.0})


def test_a_run_goes_on_beside_the_same_start_alone(start, tmp_path):
    """What is frozen is read from the start again, so another start would end elsewhere."""
    copy = tmp_path / "start"
    shutil.copytree(start, copy)
    config = replace(settings(copy, tmp_path / "a"), frozen=("text",))
    runs.run(config, device=torch.device("cpu"), report=lambda figures: None)
    other = load(copy)
    other.model.load_state_dict({name: value + 0.1 for name, value in other.model.state_dict().items()})
    save(copy, other)
    with pytest.raises(CheckpointError, match="another content of the model that it started from"):
        runs.run(config, device=torch.device("cpu"), report=lambda figures: None)


def test_exporting_replaces_no_folder_but_a_model(start, tmp_path):
    config = settings(start, tmp_path)
    runs.run(config, device=torch.device("cpu"), report=lambda figures: None)
    taken = tmp_path / "photos"
    taken.mkdir()
    (taken / "dog.jpg").write_bytes(b"1")
    with pytest.raises(CheckpointError, match="dog.jpg"):
        runs.export(config, taken, {})
    assert (taken / "dog.jpg").exists()
