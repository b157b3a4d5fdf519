"""Published models through the ordinary commands: tiny ones, with the embedded codecs in place of the large ones."""

import shutil

import pytest
import torch

import dynin
from dynin import testing
from dynin.cli.app import main
from dynin.errors import CheckpointError, ConfigError, RequestError
from dynin.pipeline.dynin import _prompt
from dynin.pipeline.folder import EMBEDDED_FOLDER
from dynin.pipeline.parts import MediaSources


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny Dynin-Omni that carries media tokenizers with it."""
    folder = testing.tiny_published(tmp_path_factory.mktemp("published") / "model")
    for name in ("image", "speech"):
        shutil.copytree(EMBEDDED_FOLDER / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return dynin.load(folder, dtype="float32")


def test_a_chat_needs_no_tokenizers_of_media(tmp_path):
    folder = testing.tiny_published(tmp_path / "model", "llada")
    result = dynin.load(folder).generate("hello", to="text", steps=1)
    assert result.task == "t2t"
    assert isinstance(result.text, str)
    with pytest.raises(RequestError, match="no task makes image from text; this model has no such task"):
        dynin.load(folder).generate("a dog", to="image")


def test_every_published_task_runs_from_media_to_media(model):
    picture, sound, video = testing.small_picture(400), testing.small_sound(), testing.small_video(size_px=400)
    drawn = model.generate("a dog", to="image", steps=2)
    assert (drawn.image.size, drawn.num_forwards) == ((512, 512), 2)
    edited = model.generate("make it red", image=picture, to="image", steps=2)
    assert edited.image.size == (336, 336)
    for wishes in ({"image": picture}, {"video": video}, {"audio": sound}):
        assert model.generate(**wishes, to="text", steps=1).finish_reason in ("stop", "length")
    spoken = model.generate("hello", to="speech", steps=1)
    assert spoken.audio.samples.numel() > 0 or spoken.finish_reason == "stop"
    both = model.generate("say it", image=picture, to="image+text", steps=1)
    assert both.image.size == (336, 336)


def test_reasoning_is_switched_on_only_where_it_is_asked_for(model):
    prompts = [_prompt(model.tasks["t2t"], "hello", thinking) for thinking in (None, True, False)]
    assert prompts == ["hello", "hello /think", "hello /no_think"]


def test_an_unknown_style_lists_the_known_ones(model):
    with pytest.raises(RequestError, match="unknown style 'whisper'.*known: awb"):
        model.generate("hello", to="speech", steps=1, style="whisper")
    with pytest.raises(RequestError, match="t2i makes no speech; leave `style`"):
        model.generate("hello", to="image", steps=1, style="slt")


def test_a_model_without_its_media_tokenizers_says_so_when_they_are_needed(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = testing.tiny_published(tmp_path / "model")
    sources = MediaSources(image=tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="nowhere: no such folder"):
        dynin.load(folder, sources=sources).generate("a dog", to="image", steps=1)


def test_a_file_tells_of_a_model(folder, tmp_path):
    told = tmp_path / "model.toml"
    told.write_text(f'backbone = "{folder}"\ndtype = "float16"\n')
    assert dynin.load(told).model.embed.weight.dtype == torch.float16
    assert dynin.load(told, dtype="float32").model.embed.weight.dtype == torch.float32
    told.write_text('backbone = "x"\nimagee = "y"\n')
    with pytest.raises(ConfigError, match="imagee"):
        dynin.load(told)


def test_the_command_line_takes_a_published_model(folder, tmp_path, capsys):
    output = tmp_path / "dog.png"
    status = main(
        ["generate", "a dog", "--to", "image", "--output", str(output), "--model", str(folder), "--steps", "1",
         "--dtype", "bfloat16", "--device", "cpu"]
    )  # fmt: skip
    assert (status, output.is_file()) == (0, True)
    assert "t2i" in capsys.readouterr().err
