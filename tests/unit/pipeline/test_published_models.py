"""Published models through the ordinary commands: tiny ones, with the embedded codecs in place of the large ones."""

import json
import math
import shutil
from dataclasses import replace

import pytest
import torch

import dynin
from dynin import testing
from dynin.cli.app import main
from dynin.errors import CheckpointError, ConfigError, RequestError
from dynin.pipeline.dynin import _prompt
from dynin.pipeline.folder import EMBEDDED_FOLDER
from dynin.pipeline.parts import MediaSources
from dynin.tokenizers.magvit2.convert import expected_shapes
from dynin.tokenizers.small.speech import SmallSpeechTokenizer
from dynin.types import Modality


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
    assert model.generate("a dog", to="image", steps=1, size=256).image.size == (256, 256)
    with pytest.raises(RequestError, match=r"size is 500, .* such as 496 or 512"):
        model.generate("a dog", to="image", size=500)
    with pytest.raises(RequestError, match=r"the model's length is 4096; give a size of at most 992"):
        model.generate("a dog", to="image", size=1024)
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


@pytest.mark.parametrize(("to", "what"), [("image", "image"), ("speech", "speech")])
def test_what_is_missing_for_the_result_is_told_before_the_work(tmp_path, monkeypatch, to, what):
    model = dynin.load(testing.tiny_published(tmp_path / "model"), sources=MediaSources(**{what: tmp_path / "nowhere"}))
    monkeypatch.setattr(type(model.model), "hidden", lambda *_: pytest.fail("the network was called"))
    with pytest.raises(CheckpointError, match="nowhere: no such folder"):
        model.generate("a dog", to=to, steps=1)


def hollow(path, shapes):
    """A safetensors file whose header is right and whose tensors are a hole on the disk."""
    header, at = {}, 0
    for name, shape in shapes.items():
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, at := at + 4 * math.prod(shape)]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + at)


def test_the_large_picture_tokenizer_is_read_when_a_picture_is_asked_for(tmp_path):
    folder = testing.tiny_published(tmp_path / "model")
    (folder / "image").mkdir()
    shapes = {name: shape for name, shape in expected_shapes().items() if not name.startswith("quantize.")}
    hollow(folder / "image" / "model.safetensors", shapes)
    model = dynin.load(folder)
    assert model.tokenizers.image._read is None
    model.generate("hello", to="text", steps=1)
    assert model.tokenizers.image._read is None
    model.tokenizers.prepare([Modality.VIDEO])
    assert model.tokenizers.image.inner().codebook_size == 8192
    (folder / "image" / "SHA256SUMS").write_text(f"{'0' * 64}  model.safetensors\n")
    with pytest.raises(CheckpointError, match=r"image/model\.safetensors: damaged .*SHA-256"):
        dynin.load(folder).generate("a dog", to="image", steps=1)
    shutil.move(folder / "image" / "model.safetensors", folder / "image" / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pickled \(pytorch_model\.bin\).*--from-pickle"):
        dynin.load(folder).generate("a dog", to="image", steps=1)


def test_a_tokenizer_with_more_codes_than_the_model_knows_is_refused(folder, tmp_path):
    copy = testing.tiny_published(tmp_path / "model", "mmada")
    with pytest.raises(CheckpointError, match=r"speech: this speech tokenizer has 1,000 codes, the model knows 0"):
        dynin.load(copy, sources=MediaSources(speech=folder / "speech"))


def test_an_unknown_style_of_many_names_the_nearest(model):
    styles = tuple(f"gender-{gender}_speed-{number}" for gender in ("female", "male") for number in range(20))
    config = replace(model.tokenizers.speech.config, styles=styles, default_style=styles[0])
    tokenizers = replace(model.tokenizers, speech=SmallSpeechTokenizer(config))
    with pytest.raises(RequestError, match="unknown style 'male 3', one of 40; the nearest are .*male_speed-3"):
        tokenizers.require_style("male 3")
    tokenizers.require_style(styles[3])


@pytest.mark.parametrize("frames", [3, {"frames": 3}, {"num_frames": 0}, {"rate_hz": "fast"}])
def test_frames_that_make_no_sense_are_named(folder, tmp_path, frames):
    copy = tmp_path / "model"
    shutil.copytree(folder, copy)
    (copy / "SHA256SUMS").unlink()
    values = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**values, "dynin_video": frames}))
    with pytest.raises(CheckpointError, match=r"config\.json: dynin_video is .*, expected num_frames and rate_hz"):
        dynin.load(copy)


def test_a_damaged_text_tokenizer_is_named(folder, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(folder, copy)
    path = copy / "tokenizer.json"
    path.write_text(path.read_text() + " ")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: damaged .*SHA-256"):
        dynin.load(copy)


@pytest.mark.parametrize("content", ["{}", '{"_class_name": "MAGVITv2"}', None])
def test_a_folder_of_something_else_is_told(tmp_path, content, capsys):
    (tmp_path / "letter.txt").write_text("dear")
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(
        CheckpointError, match=r"config\.json: (missing|names no model_type).*expected a published model"
    ):
        dynin.load(tmp_path)
    assert main(["plan", "--model", str(tmp_path)]) == 2
    assert "expected a published model (dynin_omni" in capsys.readouterr().err


def test_settings_that_would_be_passed_over_are_refused(folder, tmp_path):
    with pytest.raises(CheckpointError, match="begin at 126,349, but text_len is 126,464; .*dynin convert"):
        dynin.load(folder, text_len=126_464)
    ours = testing.tiny_model(tmp_path / "ours")
    with pytest.raises(RequestError, match="begin at 364, but text_len is 5"):
        dynin.load(ours, text_len=5)
    with pytest.raises(RequestError, match="has the embedded kind of tokenizers"):
        dynin.load(ours, sources=MediaSources(image=folder / "image"))


def test_a_model_whose_replacement_was_killed_is_found_again(tmp_path):
    folder = testing.tiny_published(tmp_path / "model", "llada")
    folder.rename(tmp_path / ".model.old")
    assert dynin.load(folder).vocabulary.name == "llada"


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
