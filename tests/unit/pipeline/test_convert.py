"""From one layout of files to the other and back: the same model."""

import json
import shutil

import numpy as np
import pytest
import torch

import dynin
from dynin import testing
from dynin.cli.app import main
from dynin.errors import CheckpointError
from dynin.model.convert import published_names
from dynin.pipeline.convert import convert
from dynin.pipeline.folder import EMBEDDED_FOLDER
from dynin.repository import open_repository


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    return testing.tiny_model(tmp_path_factory.mktemp("convert") / "tiny")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    folder = testing.tiny_published(tmp_path_factory.mktemp("convert") / "published")
    shutil.copytree(EMBEDDED_FOLDER / "image", folder / "image")
    return folder


def draw(folder):
    return np.asarray(dynin.load(folder, dtype="float32").generate("a dog", to="image", steps=2, seed=1).image)


def test_our_model_in_the_published_layout_draws_the_same_picture(ours, tmp_path):
    convert(ours, tmp_path / "new", "published")
    assert (draw(tmp_path / "new") == draw(ours)).all()
    convert(tmp_path / "new", tmp_path / "again", "dynin")
    assert (draw(tmp_path / "again") == draw(ours)).all()
    before, after = (
        json.loads((folder / "backbone" / "config.json").read_text()) for folder in (ours, tmp_path / "again")
    )
    assert all(before[key] == after[key] for key in ("config", "vocabulary", "fingerprints"))


def test_a_published_model_comes_back_with_equal_bytes(theirs, tmp_path):
    convert(theirs, tmp_path / "ours", "dynin")
    assert (draw(tmp_path / "ours") == draw(theirs)).all()
    convert(tmp_path / "ours", tmp_path / "again", "published")
    before, after = (dict(open_repository(folder).stream()) for folder in (theirs, tmp_path / "again"))
    assert before.keys() == after.keys() == published_names(dynin.load(theirs).model.config).keys()
    assert all(torch.equal(after[name], value) and after[name].dtype == value.dtype for name, value in before.items())
    assert (tmp_path / "again" / "tokenizer.json").read_bytes() == (theirs / "tokenizer.json").read_bytes()


def test_rows_may_be_moved_on_the_way(theirs, tmp_path):
    convert(theirs, tmp_path / "moved", "published", text_len=126_464)
    model = dynin.load(tmp_path / "moved")
    assert model.vocabulary.image.start == 126_464
    assert (draw(tmp_path / "moved") == draw(theirs)).all()


def test_a_folder_that_is_no_model_is_never_replaced(ours, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "letter.txt").write_text("dear")
    with pytest.raises(CheckpointError, match="holds something that is no model"):
        convert(ours, tmp_path / "letters", "published")
    assert (tmp_path / "letters" / "letter.txt").read_text() == "dear"


def test_the_command_line_converts_and_unpickles(ours, theirs, tmp_path, capsys):
    assert main(["convert", str(ours), str(tmp_path / "new")]) == 0
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(theirs / name, pickled / name)
    torch.save(dict(open_repository(theirs).stream()), pickled / "pytorch_model.bin")
    assert main(["generate", "hi", "--to", "text", "--steps", "1", "--model", str(pickled), "--device", "cpu"]) == 2
    assert "--from-pickle" in capsys.readouterr().err
    assert main(["convert", str(pickled), str(tmp_path / "plain"), "--from-pickle"]) == 0
    assert (
        main(["generate", "hi", "--to", "text", "--steps", "1", "--model", str(tmp_path / "plain"), "--device", "cpu"])
        == 0
    )
    assert main(["convert", str(ours), str(tmp_path / "x"), "--to", "publishd"]) == 2
    assert "did you mean 'published'" in capsys.readouterr().err
