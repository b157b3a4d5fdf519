"""`dynin segment` on a tiny VIRST: files, and everything a user can do wrong."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from dynin import virst
from dynin.cli import app as apps
from dynin.media.stream import open_frames, writing_mp4
from dynin.testing import tiny_model
from dynin.training.config import LoraConfig
from dynin.virst import folder
from dynin.virst.build import build
from dynin.virst.config import BackboneConfig, BranchConfig
from tests.tiny_virst import CONFIG


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a VIRST whose weights mean nothing, and the model that it starts from beside it."""
    place = tmp_path_factory.mktemp("virst")
    backbone = BackboneConfig(start=str(tiny_model(place / "start")), lora=LoraConfig(rank=2))
    config = replace(CONFIG, backbone=backbone, branch=BranchConfig(image_px=32, hiera_width=8))
    folder.save(place / "model", build(config, seed=0))
    return place / "model"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with writing_mp4("clip.mp4", 36, 50, 8.0) as writer:
        for at in range(6):
            levels = np.random.default_rng(at).integers(0, 256, (36, 50, 3), dtype=np.uint8)
            writer.write(levels, at / 8)
    Image.fromarray(levels).save("dog.png")
    return tmp_path


def run(arguments, home):
    return apps.main(["segment", *arguments, "--model", str(home), "--device", "cpu"])


def test_a_video_becomes_every_kind_of_output(home, here, capsys) -> None:
    outputs = ["--output", "masks.mp4", "--output", "masks", "--output", "masks.json", "--output", "sheet.png"]
    assert run(["clip.mp4", "the dog that turns back", *outputs, "--json"], home) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["outputs"], values["num_frames"]) == (["masks.mp4", "masks", "masks.json", "sheet.png"], 6)
    assert open_frames("masks.mp4").num_frames == 6
    assert len(list((here / "masks").iterdir())) == 6
    masks = json.loads((here / "masks.json").read_text())["masks"]
    assert values["num_shown"] == sum(line["area"] > 0 for line in masks)
    with Image.open("masks/00000.png") as mask:
        assert mask.size == (400, 288)


def test_a_picture_becomes_a_picture_with_its_mask(home, here, capsys) -> None:
    assert run(["dog.png", "the dog"], home) == 0
    told = capsys.readouterr()
    assert told.out == "dog-mask.png\n"
    assert "found in" in told.err
    with Image.open("dog-mask.png") as made:
        assert made.size == (50, 36)


@pytest.mark.parametrize(
    "more", [["--anchors", "2", "--policy", "uniform"], ["--policy", "two-sided"], ["--attended", "1"]]
)
def test_anchors_are_chosen_as_said(home, here, more) -> None:
    assert run(["clip.mp4", "the dog", "--output", "masks.json", *more], home) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["clip.mp4", " "], "the sentence is empty"),
        (["clip.mp4", "?!"], "the sentence '?!' holds no word"),
        (["clip.mp4", "the dog", "--output", "masks.json", "--output", "./clip.mp4"], "would be written over"),
        (["none.mp4", "the dog"], "none.mp4: no such file"),
        (["broken.mp4", "the dog"], "damaged or cut short"),
        (["clip.mp4", "the dog", "--output", "a.avi"], "masks are not written as .avi"),
        (["clip.mp4", "the dog", "--output", "none/a.mp4"], "the folder none does not exist"),
        (["dog.png", "the dog", "--output", "a.mp4"], "dog.png is one picture"),
        (["clip.mp4", "the dog", "--anchors", "0"], "0 anchors were asked for"),
        (["clip.mp4", "the dog", "--attended", "0"], "num_attended is 0"),
        (["clip.mp4", "the dog", "--policy", "dynamc"], "did you mean 'dynamic'"),
        (["clip.mp4", "the dog", "--policy", "text"], "--policy text needs --likeness FOLDER"),
        (["clip.mp4", "the dog", "--policy", "oracle"], "oracle anchors need the true masks"),
        (["clip.mp4", "the dog", "--threshold", "2"], "expected 0 to 1"),
    ],
)
def test_a_mistake_gives_one_line_and_no_file(home, here, capsys, arguments, message) -> None:
    (here / "broken.mp4").write_bytes((here / "clip.mp4").read_bytes()[:-30])
    before = sorted(here.iterdir())
    assert run(arguments, home) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert sorted(here.iterdir()) == before


def test_a_folder_without_a_virst_is_told(here, capsys) -> None:
    (here / "empty").mkdir()
    assert run(["clip.mp4", "the dog"], here / "empty") == 2
    assert "empty" in capsys.readouterr().err


def test_without_a_model_the_one_that_ships_is_asked(here) -> None:
    assert apps.main(["segment", "clip.mp4", "the dog", "--output", "masks.json", "--device", "cpu"]) == 0
    written = json.loads((here / "masks.json").read_text())["masks"]
    found = list(virst.Segmenter(virst.load()).segment(virst.open_frames("clip.mp4"), "the dog"))
    assert [line["area"] for line in written] == [int(each.mask.sum()) for each in found]
    assert [line["probability"] for line in written] == [round(each.probability, 4) for each in found]


def test_words_that_the_small_virst_was_not_taught_are_noted(here, capsys) -> None:
    arguments = ["segment", "clip.mp4", "\u72d7", "--output", "masks.json", "--device", "cpu"]
    assert apps.main(arguments) == 0
    assert "taught English alone" in capsys.readouterr().err


def test_help_does_not_wait_for_torch() -> None:
    code = (
        "import sys, dynin.__main__\n"
        "assert dynin.__main__.main(['segment', '--help']) == 0\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
