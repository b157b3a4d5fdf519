"""From one layout of files to the other and back: the same model."""

import json
import shutil

import numpy as np
import pytest
import torch

import dynin
from dynin import testing
from dynin.cli.app import main
from dynin.errors import CheckpointError, RequestError
from dynin.model.convert import published_names
from dynin.pipeline.convert import convert, copy_media
from dynin.pipeline.folder import EMBEDDED_FOLDER
from dynin.pipeline.parts import MediaSources
from dynin.repository import open_repository, verify


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


@pytest.mark.parametrize("name", ["thesis.tex", "package.json"])
def test_a_folder_with_a_config_but_no_model_is_never_replaced(ours, tmp_path, name):
    place = tmp_path / "work"
    place.mkdir()
    (place / "config.json").write_text("{}")
    (place / name).write_text("years of it")
    with pytest.raises(CheckpointError, match=f"holds something that is no model .*{name}"):
        convert(ours, place, "published")
    assert (place / name).read_text() == "years of it"


def test_a_model_is_replaced_by_another(ours, theirs, tmp_path):
    convert(theirs, tmp_path / "new", "published")
    convert(ours, tmp_path / "new", "published")
    assert dynin.load(tmp_path / "new").vocabulary.name == "embedded"


def test_what_is_read_is_never_replaced(ours, tmp_path):
    copy = tmp_path / "models" / "copy"
    shutil.copytree(ours, copy)
    for place in (copy, copy.parent, copy / ".." / "copy"):
        with pytest.raises(CheckpointError, match="holds what is to be read .*; name another folder"):
            convert(copy, place, "published")
    assert (draw(copy) == draw(ours)).all()


def test_a_toml_file_says_what_is_converted(theirs, tmp_path):
    (tmp_path / "model.toml").write_text(f'backbone = "{theirs}"\ndtype = "float16"\n')
    convert(tmp_path / "model.toml", tmp_path / "new", "published")
    assert open_repository(tmp_path / "new").dtype == torch.float16
    (tmp_path / "model.toml").write_text(f'backbone = "{theirs}"\nweights = "int8"\n')
    with pytest.raises(RequestError, match=r"model\.toml: weights in int8 are not written; leave weights out"):
        convert(tmp_path / "model.toml", tmp_path / "small", "published")
    assert not (tmp_path / "small").exists()


def test_a_tokenizer_that_belongs_to_something_else_is_not_taken_along(ours, theirs, tmp_path):
    sources = MediaSources(image=ours / "speech")
    with pytest.raises(CheckpointError, match="holds speech, expected a tokenizer of image"):
        convert(theirs, tmp_path / "new", "published", sources=sources)
    with pytest.raises(CheckpointError, match="holds no image tokenizer but model.transformer"):
        convert(theirs, tmp_path / "new", "published", sources=MediaSources(image=theirs))
    with pytest.raises(RequestError, match="has the embedded kind of tokenizers"):
        convert(ours, tmp_path / "new", "published", sources=sources)
    assert not (tmp_path / "new").exists()


def test_tokenizers_go_along_without_code_and_with_checksums(theirs, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(theirs, source)
    (source / "image" / "modeling.py").write_text("raise SystemExit")
    (source / "image" / "SHA256SUMS").unlink()
    files = sorted(path.name for path in (source / "image").iterdir())
    media = tmp_path / "media"
    media.mkdir()
    copy_media(source / "image", media / "image")
    assert sorted(path.name for path in (media / "image").iterdir()) == sorted({*files, "SHA256SUMS"} - {"modeling.py"})
    shard = next((media / "image").glob("*.safetensors"))
    assert verify(media / "image", [shard]) == [shard]


@pytest.mark.parametrize("flag", ["--dtype=bfloat16", "--text-len=126464", "--to=dynin", "--image=x"])
def test_flags_that_rewriting_pickles_would_ignore_are_refused(ours, tmp_path, capsys, flag):
    assert main(["convert", str(ours), str(tmp_path / "new"), "--from-pickle", flag]) == 2
    assert f"leave {flag.split('=')[0]} to a second convert" in capsys.readouterr().err


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
