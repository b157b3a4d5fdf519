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


@pytest.mark.parametrize("content", [{"a": Harmful()}, {"a": 3}, {"a": torch.eye(2).to_sparse()}, [1, 2], {}])
def test_what_is_no_tensor_is_refused_and_nothing_is_written(tmp_path, content):
    source = tmp_path / "source"
    source.mkdir()
    torch.save(content, source / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        to_safetensors(source, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert not os.path.exists("/tmp/dynin-was-here")


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    torch.save(TENSORS, folder / "pytorch_model.bin")
    return folder


def test_a_folder_that_is_no_model_is_never_replaced(source, tmp_path):
    letters = tmp_path / "letters"
    letters.mkdir()
    (letters / "letter.txt").write_text("dear")
    for place in (letters, source, tmp_path):
        with pytest.raises(CheckpointError, match="holds something that is no model|holds what is to be read"):
            to_safetensors(source, place)
    assert (letters / "letter.txt").read_text() == "dear"
    assert (source / "pytorch_model.bin").is_file()


def test_files_of_the_oldest_format_are_read(source, tmp_path):
    torch.save(TENSORS, source / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    to_safetensors(source, tmp_path / "new")
    assert all(torch.equal(value, TENSORS[name]) for name, value in read(tmp_path / "new").items())


def test_tensors_that_share_memory_come_apart(source, tmp_path):
    whole = torch.arange(6.0)
    tensors = {"a": whole, "b": whole, "c": whole[:2], "d": whole.reshape(2, 3).T, "e": torch.nn.Parameter(whole)}
    torch.save(tensors, source / "pytorch_model.bin")
    to_safetensors(source, tmp_path / "new")
    found = read(tmp_path / "new")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], value) for name, value in tensors.items())


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"a.weight": "1.bin", "b.bias": "2.bin"}, r"source: 2\.bin missing, though .*index\.json names it"),
        ({"a.weight": "1.bin", "c.bias": "1.bin"}, r"1\.bin: .* and the file disagree about c\.bias"),
        ({"a.weight": "../1.bin"}, r"puts a\.weight into '\.\./1\.bin', expected a \.bin file beside the index"),
        ({"a.weight": 3}, r"puts a\.weight into 3, expected a \.bin file"),
        (["a.weight"], "has no weight_map"),
    ],
)
def test_an_index_that_contradicts_its_pickles_is_refused(source, tmp_path, weight_map, message):
    torch.save({"a.weight": TENSORS["a.weight"]}, source / "1.bin")
    (source / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(CheckpointError, match=message):
        to_safetensors(source, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_tensor_in_two_pickles_is_refused(source, tmp_path):
    torch.save({"a.weight": TENSORS["a.weight"]}, source / "1.bin")
    torch.save(TENSORS, source / "2.bin")
    index = {"weight_map": {"a.weight": "1.bin", "b.bias": "2.bin"}}
    (source / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"2\.bin: .* and the file disagree about a\.weight"):
        to_safetensors(source, tmp_path / "new")


def test_a_pickle_that_differs_from_its_checksum_is_refused(source, tmp_path):
    (source / "SHA256SUMS").write_text(f"{'0' * 64}  pytorch_model.bin\n")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: damaged .*SHA-256"):
        to_safetensors(source, tmp_path / "new")


def test_a_damaged_pickle_is_named(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    torch.save(TENSORS, source / "pytorch_model.bin")
    data = (source / "pytorch_model.bin").read_bytes()
    (source / "pytorch_model.bin").write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match="cannot be read as plain tensors"):
        to_safetensors(source, tmp_path / "new")


class Command:
    """Something that a pickle runs when it is read as Python reads it."""

    def __reduce__(self):
        return pytest.fail, ("code of a pickle was run",)


def test_a_pickle_with_code_is_refused_without_advice_to_run_it(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    torch.save({"a.weight": Command()}, source / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"plain tensors \(damaged, or more than tensors\); fetch") as caught:
        to_safetensors(source, tmp_path / "new")
    assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "new").exists()


def test_a_folder_without_pickles_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no pickled weights"):
        to_safetensors(tmp_path, tmp_path / "new")


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_tensors_beside_other_things_are_found_under_any_usual_name_and_in_any_single_file(tmp_path, key):
    source = tmp_path / "source"
    source.mkdir()
    torch.save({key: TENSORS, "step": 3}, source / "sam2.1_hiera_tiny.pt")
    to_safetensors(source, tmp_path / "new")
    assert read(tmp_path / "new").keys() == TENSORS.keys()


def test_one_of_two_files_is_not_guessed(tmp_path):
    for name in ("a.pt", "b.pt"):
        torch.save(TENSORS, tmp_path / name)
    with pytest.raises(CheckpointError, match="no pickled weights"):
        to_safetensors(tmp_path, tmp_path / "new")
