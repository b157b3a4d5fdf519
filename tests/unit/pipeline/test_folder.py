import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import dynin
from dynin import checkpoint, testing
from dynin.errors import CheckpointError, RequestError
from dynin.pipeline import folder as folders
from dynin.vocabulary import PUBLISHED, embedded


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return testing.tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def test_a_model_that_was_written_makes_what_it_made_before(tiny, home):
    before, after = (model.generate("a dog", to="image").image for model in (tiny, dynin.load(home)))
    assert (np.asarray(before) == np.asarray(after)).all()


def test_a_model_in_bfloat16_is_half_as_large_and_reads_as_float32(tiny, home, tmp_path):
    folders.save(tmp_path / "half", tiny)
    sizes = [sum(path.stat().st_size for path in place.rglob("*.safetensors")) for place in (home, tmp_path / "half")]
    assert sizes[1] < 0.6 * sizes[0]
    assert dynin.load(tmp_path / "half").model.embed.weight.dtype == torch.float32


@pytest.mark.parametrize("part", ["backbone", "image", "speech"])
def test_a_damaged_weight_file_is_named(tiny, tmp_path, part):
    home = testing.tiny_model(tmp_path / "model")
    shard = next((home / part).glob("*.safetensors"))
    data = bytearray(shard.read_bytes())
    data[-5] ^= 1
    shard.write_bytes(data)
    with pytest.raises(CheckpointError, match=f"{part}.*safetensors: damaged"):
        dynin.load(home)


def test_a_vocabulary_that_does_not_fit_the_network_is_refused(tmp_path):
    parts = checkpoint.load_model(testing.tiny_model(tmp_path / "model"))
    wrong = {**parts["backbone"].config, "network": {**parts["backbone"].config["network"], "num_rows": 7}}
    backbone = checkpoint.Checkpoint(
        kind="backbone",
        config=wrong,
        tensors=parts["backbone"].tensors,
        vocabulary=parts["backbone"].vocabulary,
        fingerprints=parts["backbone"].fingerprints,
    )
    checkpoint.save_model(tmp_path / "wrong", {**parts, "backbone": backbone})
    with pytest.raises(CheckpointError, match="embed"):
        dynin.load(tmp_path / "wrong")


@pytest.mark.parametrize(
    ("sizes", "words"),
    [((301, 64, 120), "rows, but its vocabulary"), ((298, 66, 120), "text tokenizer has 300 codes")],
)
def test_a_layout_that_fits_neither_network_nor_tokenizers_is_refused(tmp_path, sizes, words):
    parts = checkpoint.load_model(testing.tiny_model(tmp_path / "model"))
    text_size, image_codes, speech_codes = sizes
    layout = embedded(text_size=text_size, image_codes=image_codes, speech_codes=speech_codes)
    backbone = replace(parts["backbone"], vocabulary=layout)
    checkpoint.save_model(tmp_path / "wrong", {**parts, "backbone": backbone})
    with pytest.raises(CheckpointError, match=words):
        dynin.load(tmp_path / "wrong")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"soi": 306, "eoi": 305}, "differ in 'special soi': embedded has 305, embedded has 306"),
        ({"t2j": 340}, "differ in 'special t2j': embedded has none, embedded has 340"),
    ],
)
def test_a_special_id_at_another_place_is_refused_and_named(tmp_path, change, words):
    parts = checkpoint.load_model(testing.tiny_model(tmp_path / "model"))
    layout = parts["backbone"].vocabulary
    backbone = replace(parts["backbone"], vocabulary=replace(layout, special={**layout.special, **change}))
    checkpoint.save_model(tmp_path / "wrong", {**parts, "backbone": backbone})
    with pytest.raises(CheckpointError, match=words):
        dynin.load(tmp_path / "wrong")


def test_a_published_layout_whose_specials_were_exchanged_is_refused(tmp_path):
    parts = checkpoint.load_model(testing.tiny_model(tmp_path / "model"))
    special = {**PUBLISHED.special, "soi": PUBLISHED["eoi"], "eoi": PUBLISHED["soi"]}
    backbone = replace(parts["backbone"], vocabulary=replace(PUBLISHED, special=special))
    checkpoint.save_model(tmp_path / "wrong", {**parts, "backbone": backbone})
    with pytest.raises(CheckpointError, match="no published layout .*special soi"):
        dynin.load(tmp_path / "wrong")


def test_tokenizers_of_another_model_are_refused(tmp_path):
    one, other = (checkpoint.load_model(testing.tiny_model(tmp_path / str(seed), seed)) for seed in (0, 1))
    checkpoint.save_model(tmp_path / "mixed", {**one, "image": other["image"]})
    with pytest.raises(CheckpointError, match="the image tokenizer is not the one"):
        dynin.load(tmp_path / "mixed")


def test_a_part_that_is_missing_is_named(tmp_path):
    parts = checkpoint.load_model(testing.tiny_model(tmp_path / "model"))
    checkpoint.save_model(tmp_path / "less", {name: part for name, part in parts.items() if name != "speech"})
    with pytest.raises(CheckpointError, match="lacks speech"):
        dynin.load(tmp_path / "less")


def test_a_folder_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no such folder"):
        dynin.load(tmp_path / "nothing")


def test_the_provenance_is_kept(home):
    config = json.loads((home / "backbone" / "config.json").read_text())
    assert config["provenance"] == {"data": "none, weights are random"}


def test_a_dtype_may_be_named_and_an_unknown_one_is_met_by_the_nearest(home):
    assert dynin.load(home, dtype="bfloat16").model.embed.weight.dtype == torch.bfloat16
    with pytest.raises(RequestError, match="unknown dtype 'bfloat'; did you mean 'bfloat16'"):
        dynin.load(home, dtype="bfloat")
    with pytest.raises(RequestError, match="unknown dtype 'int8'"):
        dynin.load(home, dtype="int8")
