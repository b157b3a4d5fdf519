"""Checkpoint folders: what is written comes back, every damage is one clear error, a killed save harms nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dynin.checkpoint import Checkpoint, load, load_model, require_fit, resolve, save, save_model
from dynin.errors import CheckpointError
from dynin.vocabulary import EMBEDDED, PUBLISHED

SHARD = 4096


def example(value: float = 1.0, kind: str = "backbone") -> Checkpoint:
    tensors = {f"layer.{index}": torch.full((20, 30), value + index, dtype=torch.bfloat16) for index in range(8)}
    return Checkpoint(
        kind=kind,
        config={"width": 30},
        tensors={**tensors, "steps": torch.tensor([3])},
        vocabulary=EMBEDDED,
        fingerprints={"image": "abc"},
        provenance={"steps": 3, "data": "emoji-world"},
        files={"tokenizer.json": b'{"a": 1}'},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(tmp_path / "model", example(), max_shard_bytes=SHARD)
    return tmp_path / "model"


def flip_bit(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def refresh_sums(folder: Path) -> None:
    """Make the checksums agree with the files, so that what lies behind them is tested."""
    lines = subprocess.run(
        ["sha256sum", *sorted(path.name for path in folder.iterdir() if path.name != "SHA256SUMS")],
        cwd=folder,
        capture_output=True,
        check=True,
    )
    (folder / "SHA256SUMS").write_bytes(lines.stdout)


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    refresh_sums(path.parent)


def test_what_was_saved_comes_back_bit_for_bit(folder):
    before, after = example(), load(folder, vocabulary=EMBEDDED)
    assert list(after.tensors) == list(before.tensors)
    assert all(torch.equal(after.tensors[name], before.tensors[name]) for name in before.tensors)
    assert after.tensors["layer.0"].dtype == torch.bfloat16
    for key in ("kind", "config", "fingerprints", "provenance", "files"):
        assert getattr(after, key) == getattr(before, key)
    assert after.vocabulary is not None
    assert after.vocabulary.to_dict() == EMBEDDED.to_dict()


def test_a_further_file_without_a_checksum_is_refused(folder):
    (folder.parent / "outside.txt").write_text("not part of it")
    edit_json(folder / "config.json", files=["../outside.txt"])
    with pytest.raises(CheckpointError, match=r"names \.\./outside\.txt, SHA256SUMS does not"):
        load(folder)


def test_only_floating_point_tensors_are_cast_on_request(folder):
    tensors = load(folder, dtype=torch.float32).tensors
    assert tensors["layer.0"].dtype == torch.float32
    assert tensors["steps"].dtype == torch.int64


def test_no_shard_exceeds_the_limit_and_the_checksums_are_the_usual_format(folder):
    shards = sorted(folder.glob("*.safetensors"))
    assert [path.name for path in shards] == [f"model-{n:05d}-of-00004.safetensors" for n in (1, 2, 3, 4)]
    assert all(path.stat().st_size <= SHARD for path in shards)
    assert subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, check=False).returncode == 0


def test_a_tensor_larger_than_a_shard_is_named_and_nothing_is_left(tmp_path):
    with pytest.raises(CheckpointError, match=r"layer\.0 has 1200 bytes.*raise max_shard_bytes"):
        save(tmp_path / "model", example(), max_shard_bytes=1000)
    assert list(tmp_path.iterdir()) == []


def test_a_save_replaces_the_old_checkpoint_and_leaves_nothing_beside_it(folder):
    save(folder, example(9.0))
    assert float(load(folder).tensors["layer.0"][0, 0]) == 9.0
    assert len(list(folder.glob("*.safetensors"))) == 1
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_parts_of_a_model_are_saved_and_loaded_together(tmp_path):
    parts = {"backbone": example(), "image": example(5.0, "image"), "text": Checkpoint(kind="text", config={})}
    save_model(tmp_path / "m", parts)
    loaded = load_model(tmp_path / "m", vocabulary=EMBEDDED)
    assert {name: part.kind for name, part in loaded.items()} == {
        "backbone": "backbone",
        "image": "image",
        "text": "text",
    }
    assert torch.equal(load(tmp_path / "m" / "image").tensors["layer.0"], parts["image"].tensors["layer.0"])
    with pytest.raises(CheckpointError, match="one part"):
        load_model(tmp_path / "m" / "image")


def test_a_missing_shard_is_named(folder):
    (folder / "model-00002-of-00004.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model-00002-of-00004\.safetensors: missing.*fetch"):
        load(folder)


def test_a_truncated_shard_is_named(folder):
    path = folder / "model-00003-of-00004.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"model-00003-of-00004\.safetensors: damaged or cut short.*fetch"):
        load(folder)


@pytest.mark.parametrize("name", ["model-00001-of-00004.safetensors", "config.json", "model.safetensors.index.json"])
@pytest.mark.parametrize("at", [0, 57, -1])
def test_one_flipped_bit_is_found(folder, name, at):
    flip_bit(folder / name, at)
    with pytest.raises(CheckpointError, match=f"{name}: damaged"):
        load(folder)


@pytest.mark.parametrize("at", [0, 70, 66])
def test_a_damaged_list_of_checksums_is_found(folder, at):
    flip_bit(folder / "SHA256SUMS", at)
    with pytest.raises(CheckpointError, match="fetch the checkpoint again"):
        load(folder)


def test_missing_checksums_are_named(folder):
    (folder / "SHA256SUMS").unlink()
    with pytest.raises(CheckpointError, match="SHA256SUMS: missing"):
        load(folder)


def test_a_missing_folder_says_what_is_expected(tmp_path):
    with pytest.raises(CheckpointError, match=r"no such folder; expected a checkpoint with config\.json"):
        load(tmp_path / "nothing")


def test_another_vocabulary_is_refused_with_the_difference(folder):
    with pytest.raises(CheckpointError, match=r"config\.json: vocabulary layouts differ in 'size'"):
        load(folder, vocabulary=PUBLISHED)


def test_another_format_version_is_refused(folder):
    edit_json(folder / "config.json", format_version=99)
    with pytest.raises(CheckpointError, match="format version 99, expected 1"):
        load(folder)


def test_an_index_that_disagrees_with_its_shards_is_refused(folder):
    path = folder / "model.safetensors.index.json"
    weight_map = json.loads(path.read_text())["weight_map"]
    del weight_map["layer.3"]
    edit_json(path, weight_map=weight_map)
    with pytest.raises(CheckpointError, match=r"index and shard disagree about layer\.3"):
        load(folder)


def test_a_shard_that_is_no_safetensors_file_is_refused(folder):
    (folder / "model-00001-of-00004.safetensors").write_bytes(b"not tensors at all")
    refresh_sums(folder)
    with pytest.raises(CheckpointError, match="no safetensors file"):
        load(folder)


def test_missing_unknown_and_misshaped_tensors_are_all_listed():
    tensors = {"a": torch.zeros(2, 3), "c": torch.zeros(1)}
    with pytest.raises(
        CheckpointError, match=r"missing: b; unknown: c; wrong shapes: a is \(2, 3\), expected \(3, 2\)"
    ):
        require_fit({"a": (3, 2), "b": (1,)}, tensors)


def test_a_local_folder_is_resolved_to_itself(folder):
    assert resolve(str(folder)) == folder
    with pytest.raises(CheckpointError, match="no such folder"):
        resolve(folder.parent / "missing")


def test_an_id_that_is_not_cached_is_refused_when_offline(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match="some-org/some-model: no such folder, and it could not be fetched"):
        resolve("some-org/some-model")


KILLED_SAVES = """
import os, signal, sys
from pathlib import Path
import torch
from dynin.checkpoint import Checkpoint, load, save

def example(value):
    return Checkpoint(kind="backbone", config={}, tensors={str(i): torch.full((500,), value) for i in range(6)})

folder = Path(sys.argv[1]) / "model"
old = 0.0
save(folder, example(old), max_shard_bytes=5000)
for deadline in range(1, 200):
    child = os.fork()
    if child == 0:
        events = 0
        def count(event, arguments):
            global events
            if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"):
                events += 1
                if events == deadline:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(count)
        save(folder, example(float(deadline)), max_shard_bytes=5000)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    values = {float(value) for tensor in load(folder).tensors.values() for value in tensor}
    assert len(values) == 1 and values <= {old, float(deadline)}, (deadline, old, values)
    old = values.pop()
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0 and old == deadline
        break
print(deadline, sorted(path.name for path in folder.parent.iterdir()))
"""


def test_a_save_killed_at_any_step_leaves_a_whole_checkpoint(tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", KILLED_SAVES, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    num_steps, left = result.stdout.split(" ", 1)
    assert int(num_steps) > 20
    assert left.strip() == "['model']"
