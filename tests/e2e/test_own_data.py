"""One's own data, from a file of rows to a training: every fault found, none invented, exactly the good rows used."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import faulty_rows
import pytest
import torch

from dynin.cli import app as apps
from dynin.cli.own_data import load_encoder
from dynin.data.emoji_world.world import EmojiWorld
from dynin.data.records import demo_rows
from dynin.data.records.cache import TokenCache
from dynin.data.records.sources import SourceConfig, open_source
from dynin.errors import DataError
from dynin.media.video import Video
from dynin.sequence.task import EMBEDDED_TASKS
from dynin.testing import tiny_model
from dynin.types import Modality

NUM_ROWS, NUM_FAULTS = 10_000, 200
NUM_GOOD = NUM_ROWS - NUM_FAULTS


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("home") / "model")


@pytest.fixture(scope="module")
def faulty(tmp_path_factory) -> faulty_rows.FaultyFile:
    return faulty_rows.write_rows(tmp_path_factory.mktemp("faulty"), NUM_ROWS, NUM_FAULTS)


def outside(*command: str) -> subprocess.CompletedProcess:
    """Run a program in a process of its own, where shapes are not checked at every call: rows are many."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment, check=False)


@pytest.fixture(scope="module")
def cache(tmp_path_factory, faulty, home) -> Path:
    folder = tmp_path_factory.mktemp("cache") / "cache"
    command = ["data", "pretokenize", str(faulty.path), "-o", str(folder), "--model", str(home), "--on-bad", "skip"]
    done = outside("-m", "dynin", *command)
    assert done.returncode == 0, done.stderr
    assert f"{NUM_GOOD} of {NUM_ROWS} rows" in done.stdout
    return folder


def test_all_of_two_hundred_faults_in_ten_thousand_rows_are_found_with_line_and_field(faulty, home):
    done = outside("-m", "dynin", "data", "check", str(faulty.path), "--model", str(home), "--json")
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert (found["rows"], found["good"]) == (NUM_ROWS, NUM_GOOD)
    assert len(set(faulty.kinds.values())) == len(faulty_rows.FAULTS) + 1
    told = [(fault["line"], fault["field"]) for fault in found["faults"]]
    assert dict(told) == faulty.faults
    assert len(told) == NUM_FAULTS


def test_rows_without_a_fault_are_in_order(capsys, home, tmp_path):
    file = faulty_rows.write_rows(tmp_path, 60, 0, seed=1)
    assert apps.main(["data", "check", str(file.path), "--model", str(home)]) == 0
    assert "60 rows: 60 good" in capsys.readouterr().out


def test_a_fault_is_one_line_with_the_place_the_field_and_what_to_do(capsys, home, tmp_path):
    file = faulty_rows.write_rows(tmp_path, 30, 3, seed=2)
    assert apps.main(["data", "check", str(file.path), "--model", str(home)]) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if ", field " in line]
    assert len(lines) == 3
    for line, (number, place) in zip(lines, sorted(file.faults.items()), strict=True):
        assert line.startswith(f"{file.path}, line {number}, field {place}: ")


DRAW = """
import json, sys
from dynin.cli.own_data import load_encoder
from dynin.data.records.sources import SourceConfig, open_source
encoder = load_encoder(sys.argv[1])
for path in sys.argv[3:]:
    source = open_source(SourceConfig(path=path, on_bad="skip"), encoder, seed=0)
    print(json.dumps([example.truth.key for example in source.take(0, int(sys.argv[2]))]))
"""


def test_leaving_faults_out_gives_every_good_row_exactly_once(faulty, home, cache):
    """Of the file itself and of its cache."""
    done = outside("-c", DRAW, str(home), str(NUM_GOOD), str(faulty.path), str(cache))
    assert done.returncode == 0, done.stderr
    assert f"{NUM_FAULTS} of {NUM_ROWS} rows left out, the first: " in done.stderr
    drawn = [Counter(json.loads(line)) for line in done.stdout.splitlines()]
    assert len(drawn) == 2
    for lines in drawn:
        assert len(lines) == NUM_GOOD
        assert set(lines.values()) == {1}
        assert not set(lines) & set(faulty.faults)


def test_stopping_names_the_first_fault_before_anything_is_trained(capsys, home, tmp_path):
    file = faulty_rows.write_rows(tmp_path, 60, 4, seed=5)
    line = min(file.faults)
    place = f"line {line}, field {file.faults[line]}: "
    with pytest.raises(DataError) as caught:
        open_source(SourceConfig(path=str(file.path)), load_encoder(str(home)), seed=0)
    assert place in str(caught.value)
    command = ["data", "pretokenize", str(file.path), "-o", str(tmp_path / "cache"), "--model", str(home)]
    assert apps.main(command) == 2
    message = capsys.readouterr().err
    assert place in message
    assert "--on-bad skip" in message
    assert message.count("\n") == 1


TRAIN = """
import json, sys
from pathlib import Path
import torch
from dynin.cli.own_data import load_encoder
from dynin.data.records.blend import Blend
from dynin.data.records.sources import SourceConfig, open_source
from dynin.model.config import ModelConfig
from dynin.model.transformer import Transformer, initialise
from dynin.training import loop
from dynin.training.config import TrainConfig
from dynin.training.objective import Objective, ObjectiveConfig

home, path, output, count = sys.argv[1:]
encoder = load_encoder(home)
blend = Blend(
    sources={"own": open_source(SourceConfig(path=path), encoder, seed=0)}, weights={"own": 1.0},
    maker=encoder.maker(whole_prob=0.1), rows_per_step=int(count) // 4, drop_prob=0.1, seed=0,
)
sizes = {"d_model": 16, "num_heads": 2, "num_kv_heads": 2, "num_layers": 1, "mlp_dim": 16, "max_len": 512}
model = Transformer(ModelConfig(**sizes, num_rows=encoder.vocabulary.size))
initialise(model, torch.Generator().manual_seed(0))
counts, log = [], []

class Counting:
    def rows(self, step):
        rows = blend.rows(step)
        counts.append(len(rows))
        return rows

    fingerprint = blend.fingerprint

config = TrainConfig(
    name="run", steps=4, tasks={"t2t": 1.0}, tokens_per_batch=8192, output=Path(output), log_every=4, save_every=9
)
loop.train(model, Objective(encoder.vocabulary, ObjectiveConfig()), Counting(), config, loop.Hooks(report=log.append))
print(json.dumps([counts, sorted(name for name in log[-1] if name.startswith("loss/"))]))
"""


def test_a_training_on_a_cache_sees_every_good_row_in_an_epoch(home, cache, tmp_path):
    done = outside("-c", TRAIN, str(home), str(cache), str(tmp_path), str(NUM_GOOD))
    assert done.returncode == 0, done.stderr
    counts, losses = json.loads(done.stdout)
    assert sum(counts) == NUM_GOOD
    assert losses == sorted(f"loss/{task}" for task in EMBEDDED_TASKS)


def stands_still(video: Video) -> bool:
    """Whether two neighbouring frames are equal, which a file of a video keeps as one."""
    return bool((video.frames[1:] == video.frames[:-1]).flatten(1).all(dim=1).any())


WITH_VOICES = shutil.which("flite") is not None


@pytest.mark.parametrize("has_voices", [pytest.param(True, marks=pytest.mark.voices), False])
def test_the_example_data_are_in_order_and_hold_what_emoji_world_shows(capsys, tmp_path, monkeypatch, has_voices):
    if has_voices and not WITH_VOICES:
        pytest.skip("needs flite")
    if not has_voices:
        monkeypatch.setenv("PATH", "")
    folder = tmp_path / "demo"
    assert apps.main(["data", "make-demo", str(folder), "--count", "2"]) == 0
    told = capsys.readouterr().out
    assert ("without s2t" in told) == (not has_voices)
    assert apps.main(["data", "check", str(folder / "rows.jsonl")]) == 0
    num_tasks = 17 if has_voices else 10
    assert f"{2 * num_tasks} good" in capsys.readouterr().out
    assert apps.main(["data", "pretokenize", str(folder / "rows.jsonl"), "-o", str(tmp_path / "cache")]) == 0
    encoder = load_encoder(None)
    cache = TokenCache.open(tmp_path / "cache", encoder)
    world = EmojiWorld(0)
    tasks = Counter()
    for position in range(len(cache)):
        example = cache.example(position)
        expected = world.sentence(example.task, tasks[example.task])
        tasks[example.task] += 1
        for side in ("condition", "target"):
            for modality, value in getattr(expected, side).items():
                held = getattr(example, side)[modality]
                if modality == Modality.TEXT:
                    assert held == value
                elif modality == Modality.SPEECH or (modality == Modality.VIDEO and stands_still(value)):
                    assert len(held) > 0
                else:
                    assert torch.equal(held, encoder.tokenizers.encode(modality, value)), (example.task, modality)
    assert len(tasks) == num_tasks


def test_example_data_never_go_into_a_folder_that_holds_something(capsys, tmp_path):
    (tmp_path / "letter.txt").write_text("hello")
    assert apps.main(["data", "make-demo", str(tmp_path)]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert demo_rows.ROWS not in {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "none.jsonl"],
        ["check", "."],
        ["pretokenize", "none.jsonl", "-o", "cache"],
        ["pretokenize", "rows.jsonl", "-o", "cache", "--on-bad", "drop"],
        ["pretokenize", "rows.jsonl", "-o", "cache", "--workers", "0"],
        ["pretokenize", "rows.jsonl", "-o", "cache", "--limit", "0"],
        ["pretokenize", "rows.jsonl", "-o", "cache", "--workers", "2", "--limit", "3"],
        ["make-demo", "demo", "--count", "0"],
    ],
)
def test_a_mistake_is_one_line_and_no_file(capsys, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    assert apps.main(["data", *arguments]) == 2
    message = capsys.readouterr().err
    assert message.startswith("dynin: ")
    assert message.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
