"""Pickled weights become safetensors on request, and nothing but tensors is ever built from them."""

import json
import os

import pytest
import torch
from safetensors.torch import load_file

from dynin.errors import CheckpointError
from dynin.pickled import to_safetensors

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b.bias": torch.ones(2, dtype=torch.bfloat16)}


class Harmful:
    def __reduce__(self):
        return os.system, ("touch /tmp/dynin-was-here",)


def read(folder):
    return {name: value for shard in folder.glob("*.safetensors") for name, value in load_file(shard).items()}


def test_tensors_and_json_files_come_along(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    torch.save(TENSORS, source / "pytorch_model.bin")
    (source / "config.json").write_text("{}")
    to_safetensors(source, tmp_path / "new")
    found = read(tmp_path / "new")
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name], value) for name, value in TENSORS.items())
    assert (tmp_path / "new" / "config.json").read_text() == "{}"


def test_shards_are_put_together_by_their_index(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    names = dict(zip(TENSORS, ("pytorch_model-1.bin", "pytorch_model-2.bin"), strict=True))
    for name, value in TENSORS.items():
        torch.save({name: value}, source / names[name])
    (source / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": names}))
    to_safetensors(source, tmp_path / "new")
    assert read(tmp_path / "new").keys() == TENSORS.keys()


@pytest.mark.parametrize("content", [{"a": Harmful()}, {"a": 3}, [1, 2], {}])
def test_what_is_no_tensor_is_refused_and_nothing_is_written(tmp_path, content):
    source = tmp_path / "source"
    source.mkdir()
    torch.save(content, source / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        to_safetensors(source, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert not os.path.exists("/tmp/dynin-was-here")


def test_a_damaged_pickle_is_named(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    torch.save(TENSORS, source / "pytorch_model.bin")
    data = (source / "pytorch_model.bin").read_bytes()
    (source / "pytorch_model.bin").write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match="cannot be read as plain tensors"):
        to_safetensors(source, tmp_path / "new")


def test_a_folder_without_pickles_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no pickled weights"):
        to_safetensors(tmp_path, tmp_path / "new")
