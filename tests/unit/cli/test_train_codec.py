"""From nothing to a shard by commands, on tiny settings; mistakes are one line and leave no file."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from dynin import testing
from dynin.cli import app as apps
from dynin.cli import progress, speech_shard
from dynin.cli.progress import Progress, told_time
from dynin.data.emoji_world.splits import is_sentence_held_out
from dynin.data.utterances import Utterances
from dynin.pipeline.folder import load
from dynin.tokenizers.small.speech import SmallSpeechTokenizer, SpeechCodecConfig
from dynin.training.codec_speech import read_speech_codec, write_speech_codec

CONFIGS = Path(__file__).resolve().parents[3] / "configs" / "train"
needs_voices = pytest.mark.skipif(
    not (shutil.which("flite") and shutil.which("espeak-ng")),
    reason="flite or espeak-ng is not installed: apt-get install flite espeak-ng",
)
TINY = ["encoder_dim=16", "encoder_layers=1", "decoder_dim=16", "decoder_layers=1", "frame_dim=16", "frame_layers=1"]


def assignments(**values: object) -> list[str]:
    """`--set` for each setting; the dots of its path are written as two underscores."""
    return [part for key, value in values.items() for part in ("--set", f"{key.replace('__', '.')}={value}")]


@pytest.fixture
def codec(tmp_path: Path) -> Path:
    config = SpeechCodecConfig(styles=("slt",), default_style="slt", levels=(4, 3), encoder_dim=16, decoder_dim=16)
    write_speech_codec(tmp_path / "codec", SmallSpeechTokenizer(config))
    return tmp_path / "codec"


@pytest.mark.voices
@needs_voices
def test_speech_goes_from_nothing_to_a_shard_by_commands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    settings = assignments(
        output="codec", sentences__folder="corpus", sentences__world=4, sentences__general=2,
        training__num_steps=2, training__batch_size=2, training__save_every=1,
    )  # fmt: skip
    sizes = [part for size in TINY for part in ("--set", f"sizes.{size}")]
    command = ["train-codec", "speech", "--config", str(CONFIGS / "codec-speech.toml"), "--device", "cpu"]
    assert apps.main([*command, *settings, *sizes]) == 0, capsys.readouterr().err
    assert "speech tokenizer: codec" in capsys.readouterr().out
    shard = ["data", "speech", "--output", "made/here/codes.npz", "--codec", "codec", "--count", "12"]
    assert apps.main(shard) == 0, capsys.readouterr().err
    assert "12 sentences" in capsys.readouterr().out
    spoken = Utterances.read(tmp_path / "made" / "here" / "codes.npz")
    assert len(set(spoken.texts)) == 12
    assert not any(is_sentence_held_out(text) for text in spoken.texts)
    assert all(len(spoken.codes(index)) > 5 for index in range(12))
    with np.load(tmp_path / "made" / "here" / "codes.npz") as parts:
        assert str(parts["fingerprint"]) == read_speech_codec(tmp_path / "codec").fingerprint()


def test_the_image_codec_is_trained_by_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    settings = assignments(output="image", training__num_steps=2, training__batch_patches=16, sizes__hidden_dim=16)
    command = ["train-codec", "image", "--config", str(CONFIGS / "codec-image.toml"), "--device", "cpu"]
    assert apps.main([*command, *settings]) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    assert "step 2 of 2  loss" in out
    assert (tmp_path / "image" / "image.safetensors").stat().st_size > 0


def test_a_shard_can_be_made_with_the_tokenizer_of_a_model(tmp_path):
    home = testing.tiny_model(tmp_path / "model")
    assert speech_shard.read_encoder(home).fingerprint() == load(home).tokenizers.speech.fingerprint()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["train-codec", "imgae"], "did you mean 'image'"),
        (["train-codec", "image", "--config", "none.toml"], "none.toml"),
        (["train-codec", "speech", "--config", "SHIPPED", "--set", "training.nmu_steps=3"], "num_steps"),
        (["train-codec", "speech", "--config", "SHIPPED", "--set", "training.num_steps=x"], "training.num_steps"),
        (["data", "speech", "--output", "codes.txt"], ".npz"),
        (["data", "speech", "--count", "0"], "count is 0"),
        (["data", "speech", "--seed", "-1"], "seed is -1"),
        (["data", "speech", "--task", "t2s"], "--task"),
        (["data", "emoji-world", "--codec", "codec"], "--codec"),
    ],
)
def test_a_mistake_is_one_line_and_no_file(tmp_path, monkeypatch, capsys, arguments, told):
    monkeypatch.chdir(tmp_path)
    shipped = str(CONFIGS / "codec-speech.toml")
    assert apps.main([shipped if argument == "SHIPPED" else argument for argument in arguments]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert told in message
    assert list(tmp_path.iterdir()) == []


def test_a_missing_speech_program_is_told_before_anything_is_made(tmp_path, monkeypatch, capsys, codec):
    monkeypatch.setenv("PATH", "")
    assert apps.main(["data", "speech", "--output", str(tmp_path / "codes.npz"), "--codec", str(codec)]) == 2
    assert "apt-get install" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["codec"]


@needs_voices
def test_a_missing_codec_is_told_before_anything_is_spoken(tmp_path, capsys):
    assert apps.main(["data", "speech", "--output", str(tmp_path / "codes.npz"), "--codec", str(tmp_path / "no")]) == 2
    assert "train one first" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_lines_of_progress_tell_the_time_that_is_left(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    report = Progress("step", 100)
    for done, seconds in ((10, 0.0), (11, 1.0), (20, 30.0), (100, 31.0)):
        now[0] = seconds
        report(done, {"loss": 0.5})
    assert capsys.readouterr().out.splitlines() == [
        "step 10 of 100  loss 0.5",
        "step 20 of 100  loss 0.5  4 min left",
        "step 100 of 100  loss 0.5",
    ]
    assert [told_time(seconds) for seconds in (8.0, 150.0, 7500.0)] == ["8 s", "2 min", "2 h 05 min"]
