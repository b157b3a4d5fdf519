"""The real program as a process on a tiny model; and, in this process, everything a user can do wrong."""

import json
import os
import re
import struct
import subprocess
import sys
import time
import wave
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

import dynin
from dynin import testing
from dynin.cli import app as apps
from dynin.media import audio, image, video
from dynin.pipeline.policies import POLICIES
from dynin.types import Modality

ROOT = Path(__file__).resolve().parents[2]
STEPS = POLICIES["embedded"][Modality.IMAGE].num_steps
"""Network calls of a picture, where nothing else is wished."""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return testing.tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(arguments, home):
    device = [] if "--device" in arguments else ["--device", "cpu"]
    return apps.main(["generate", *arguments, "--model", str(home), *device])


def test_the_program_draws_as_a_process_and_says_so_in_json(home, tmp_path):
    command = [sys.executable, "-m", "dynin", "generate", "a dog", "--to", "image", "--output", "a.png", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [*command, "--model", str(home)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["task"] == "t2i"
    assert answer["output"] == "a.png"
    assert answer["finish_reason"] == "stop"
    assert answer["num_forwards"] == STEPS
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (64, 64)


def test_the_program_refuses_as_a_process_with_one_line_and_status_2(home, tmp_path):
    command = [sys.executable, "-m", "dynin", "generate", "what?", "--image", "none.png", "--model", str(home)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "none.png: no such file" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("name", "reader"),
    [("a.png", image.read), ("a.jpg", image.read), ("a.webp", image.read), ("a.mp4", video.read), ("a.gif", video.read),
     ("a.wav", audio.read), ("a.flac", audio.read), ("a.mp3", audio.read), ("a.ogg", audio.read)],
)  # fmt: skip
def test_the_suffix_of_the_output_says_what_to_make(here, home, name, reader, capsys):
    assert run(["a dog", "--output", name, "--steps", "1"], home) == 0, capsys.readouterr().err
    reader(here / name)


def test_without_output_a_picture_gets_a_speaking_name(here, home, capsys):
    assert run(["a dog", "--to", "image", "--seed", "3"], home) == 0
    assert capsys.readouterr().out == "dynin-t2i-seed3.png\n"
    assert (here / "dynin-t2i-seed3.png").exists()


def test_a_text_is_printed_and_written_where_asked(here, home, capsys):
    image.write(here / "a.png", testing.small_picture())
    assert run(["what?", "--image", "a.png", "--steps", "1", "--output", "a.txt"], home) == 0
    assert (here / "a.txt").read_text(encoding="utf-8").strip() in capsys.readouterr().out


def test_media_of_every_kind_are_understood(here, home, capsys):
    image.write(here / "a.png", testing.small_picture())
    audio.write(here / "a.wav", testing.small_sound(0.5))
    video.write(here / "a.mp4", testing.small_video())
    for given in (["--image", "a.png"], ["--audio", "a.wav"], ["--video", "a.mp4"]):
        assert run([*given, "--to", "text", "--steps", "1", "--json"], home) == 0
        assert json.loads(capsys.readouterr().out)["task"][1:] == "2t"


def test_a_trace_is_written_as_an_animation(here, home, capsys):
    assert run(["a dog", "--to", "image", "--trace", "t.gif"], home) == 0
    with Image.open(here / "t.gif") as animation:
        assert animation.n_frames == STEPS
    capsys.readouterr()


def test_a_part_of_a_picture_is_redone_and_the_rest_is_bit_for_bit(here, home, capsys):
    image.write(here / "a.png", testing.small_picture(100))
    assert run(["a dog", "--image", "a.png", "--redo", "0,0,50,100", "--output", "b.png"], home) == 0
    before, after = (np.asarray(Image.open(name)) for name in ("a.png", "b.png"))
    assert (before[:, 52:] == after[:, 52:]).all()
    assert (before[:, :50] != after[:, :50]).any()
    capsys.readouterr()


def test_a_stretch_of_a_sound_is_redone_and_the_rest_is_bit_for_bit(here, home, capsys):
    audio.write(here / "a.wav", testing.small_sound(1.0, 22050))
    assert run(["a dog", "--audio", "a.wav", "--redo", "0.4s-0.6s", "--output", "b.wav"], home) == 0
    before, after = (samples(name) for name in ("a.wav", "b.wav"))
    first, last = int(0.379 * 22050), int(0.621 * 22050)
    assert (before[:first] == after[:first]).all()
    assert (before[last:] == after[last:]).all()
    assert (before != after).any()
    capsys.readouterr()


@pytest.mark.parametrize(
    ("name", "subtype"),
    [("a.wav", "PCM_16"), ("a.wav", "PCM_24"), ("a.wav", "FLOAT"), ("a.flac", "PCM_16"), ("a.flac", "PCM_24")],
)
@pytest.mark.parametrize("num_channels", [1, 2])
def test_channels_and_depth_of_a_redone_sound_stay_and_the_rest_is_bit_for_bit(
    here, home, capsys, name, subtype, num_channels
):
    loud = 0.5 * np.random.default_rng(0).standard_normal((22050, num_channels)).clip(-1, 1)
    soundfile.write(name, loud, 22050, subtype)
    output = f"b{Path(name).suffix}"
    assert run(["a dog", "--audio", name, "--redo", "0.4s-0.6s", "--output", output], home) == 0
    assert soundfile.info(output).subtype == subtype
    before, after = (soundfile.read(path, dtype="float64", always_2d=True)[0] for path in (name, output))
    first, last = int(0.379 * 22050), int(0.621 * 22050)
    assert before.shape == after.shape == (22050, num_channels)
    assert (before[:first] == after[:first]).all()
    assert (before[last:] == after[last:]).all()
    assert (before[first:last] != after[first:last]).any(axis=0).all()
    capsys.readouterr()


def deep_colour_png() -> bytes:
    """64 x 64 pixels of 16 bits a channel, which Pillow cannot write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 64, 64, 16, 2, 0, 0, 0)
    rows = (b"\0" + bytes(range(6)) * 64) * 64
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def test_what_cannot_stay_bit_for_bit_is_not_redone(here, home, capsys):
    Image.new("RGBA", (64, 64), (10, 20, 30, 128)).save("see-through.png")
    assert run(["a dog", "--image", "see-through.png", "--redo", "0,0,32,32", "--output", "b.png"], home) == 2
    assert "transparent" in capsys.readouterr().err
    Image.new("I;16", (64, 64), 1000).save("deep.png")
    assert run(["a dog", "--image", "deep.png", "--redo", "0,0,32,32", "--output", "b.png"], home) == 2
    assert "more than 8 bits" in capsys.readouterr().err
    (here / "deep-colour.png").write_bytes(deep_colour_png())
    assert run(["a dog", "--image", "deep-colour.png", "--redo", "0,0,32,32", "--output", "b.png"], home) == 2
    assert "more than 8 bits" in capsys.readouterr().err
    soundfile.write("deep.wav", np.full(16000, 0.3), 16000, "PCM_32")
    assert run(["a dog", "--audio", "deep.wav", "--redo", "0.4s-0.6s", "--output", "b.wav"], home) == 2
    assert "PCM_32" in capsys.readouterr().err
    assert not list(here.glob("b.*"))


def test_an_opaque_picture_with_an_alpha_channel_is_redone(here, home, capsys):
    Image.new("RGBA", (64, 64), (10, 20, 30, 255)).save("opaque.png")
    assert run(["a dog", "--image", "opaque.png", "--redo", "0,0,32,32", "--output", "b.png"], home) == 0
    capsys.readouterr()


def test_a_huge_picture_is_refused_before_anything_slow_is_imported(tmp_path):
    chunk = struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    data = b"IHDR" + chunk
    header = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + data + struct.pack(">I", zlib.crc32(data))
    (tmp_path / "huge.png").write_bytes(header + bytes(1000))
    script = (
        "import sys; from dynin.cli.app import main\n"
        "status = main(['generate', 'what?', '--image', 'huge.png'])\n"
        "print(status, 'torch' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["2", "False"]
    assert "20000 x 20000 pixels" in done.stderr


def test_words_of_a_text_are_redone_and_the_rest_stays(here, home, capsys):
    image.write(here / "a.png", testing.small_picture())
    (here / "a.txt").write_text("a dog left of a cat", encoding="utf-8")
    assert run(["what?", "--image", "a.png", "--redo", "words:2-2@a.txt", "--json"], home) == 0
    text = json.loads(capsys.readouterr().out)["text"]
    assert text.startswith("a ")
    assert text.endswith(" left of a cat")


def samples(name):
    with wave.open(name) as sound:
        return np.frombuffer(sound.readframes(sound.getnframes()), dtype="<i2")


# --- what a user can do wrong ----------------------------------------------------------------------------------------


def png_header(width, height):
    chunk = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big") + b"\0" * 64


def long_wave(seconds):
    size = seconds * 8000 * 2
    head = b"RIFF" + (36 + size).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little")
    head += b"\1\0\1\0" + (8000).to_bytes(4, "little") + (16000).to_bytes(4, "little") + b"\2\0\x10\0"
    return head + b"data" + size.to_bytes(4, "little")


@pytest.fixture
def bad(here):
    image.write(here / "good.png", testing.small_picture())
    audio.write(here / "good.wav", testing.small_sound())
    video.write(here / "good.mp4", testing.small_video())
    for name in ("png", "wav", "mp4"):
        data = (here / f"good.{name}").read_bytes()
        (here / f"cut.{name}").write_bytes(data[: len(data) * 2 // 3])
        (here / f"empty.{name}").write_bytes(b"")
        (here / f"noise.{name}").write_bytes(bytes(range(256)) * 20)
    Image.new("RGB", (1, 1)).save(here / "one.png")
    (here / "huge.png").write_bytes(png_header(20_000, 20_000))
    with (here / "hours.wav").open("wb") as file:
        file.write(long_wave(7200))
        file.truncate(44 + 7200 * 16000)
    with wave.open(str(here / "silence.wav"), "wb") as sound:
        sound.setparams((1, 2, 16000, 0, "NONE", ""))
        sound.writeframes(b"\0" * 32000)
    (here / "noise.txt").write_bytes(b"\xff\xfe\xfd")
    (here / "large.txt").write_bytes(b"a " * 2**20)
    return here


MISTAKES = {
    "a missing picture": ["what?", "--image", "none.png"],
    "a missing sound": ["--audio", "none.wav", "--to", "text"],
    "a missing video": ["what?", "--video", "none.mp4"],
    "a missing text": ["a", "--redo", "words:1-1@none.txt"],
    "a folder instead of a picture": ["what?", "--image", "."],
    "an empty picture": ["what?", "--image", "empty.png"],
    "an empty sound": ["--audio", "empty.wav", "--to", "text"],
    "an empty video": ["what?", "--video", "empty.mp4"],
    "a picture cut short": ["what?", "--image", "cut.png"],
    "a sound cut short": ["--audio", "cut.wav", "--to", "text"],
    "a video cut short": ["what?", "--video", "cut.mp4"],
    "noise as a picture": ["what?", "--image", "noise.png"],
    "noise as a sound": ["--audio", "noise.wav", "--to", "text"],
    "noise as a video": ["what?", "--video", "noise.mp4"],
    "a text that is too large": ["a", "--redo", "words:1-1@large.txt"],
    "a box of no picture": ["a dog", "--redo", "0,0,8,8"],
    "noise as a text": ["a", "--redo", "words:1-1@noise.txt"],
    "a sound as a picture": ["what?", "--image", "good.wav"],
    "a picture as a sound": ["--audio", "good.png", "--to", "text"],
    "a sound as a video": ["what?", "--video", "good.wav"],
    "silence": ["--audio", "silence.wav", "--to", "text"],
    "a picture of one pixel": ["what?", "--image", "one.png"],
    "a huge picture": ["what?", "--image", "huge.png"],
    "a sound of two hours": ["--audio", "hours.wav", "--to", "text"],
    "a prompt longer than the model": ["dog " * 5000, "--to", "image"],
    "an empty prompt": ["", "--to", "image"],
    "a prompt with half a character": ["a \udcff dog", "--to", "image"],
    "nothing at all": [],
    "words alone": ["a dog"],
    "a picture alone": ["--image", "good.png"],
    "a pair that no task takes": ["a dog", "--audio", "good.wav", "--to", "image"],
    "an unknown target": ["a dog", "--to", "picture"],
    "an unknown device": ["a dog", "--to", "image", "--device", "gpu"],
    "steps below one": ["a dog", "--to", "image", "--steps", "0"],
    "guidance that is no number": ["a dog", "--to", "image", "--guidance", "nan"],
    "a negative seed": ["a dog", "--to", "image", "--seed", "-1"],
    "a box outside the picture": ["a dog", "--image", "good.png", "--redo", "60,60,10,10"],
    "a stretch outside the sound": ["a dog", "--audio", "good.wav", "--redo", "0.5s-9s"],
    "an output that contradicts": ["a dog", "--to", "speech", "--output", "a.png"],
    "an output without a folder": ["a dog", "--to", "image", "--output", "no/a.png"],
    "a redo that contradicts": ["a dog", "--image", "good.png", "--redo", "0,0,8,8", "--to", "video"],
}


@pytest.mark.parametrize("name", list(MISTAKES))
def test_a_mistake_gives_one_line_status_2_and_no_file(bad, home, capsys, name):
    before = sorted(bad.rglob("*"))
    started = time.monotonic()
    assert run([*MISTAKES[name], *(["--trace", "t.gif"] if "--redo" in MISTAKES[name] else [])], home) == 2
    seconds = time.monotonic() - started
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    assert shown.err.startswith("dynin: ")
    assert len(shown.err) < 600
    assert "Traceback" not in shown.err
    assert shown.out == ""
    assert sorted(bad.rglob("*")) == before
    assert seconds < 20


def test_a_huge_picture_is_refused_in_under_a_second(bad):
    started = time.process_time()
    with pytest.raises(dynin.DyninError, match="20000 x 20000"):
        image.read(bad / "huge.png")
    assert time.process_time() - started < 1


def test_a_damaged_weight_file_gives_one_line_status_2_and_no_file(here, capsys):
    home = testing.tiny_model(here / "model")
    shard = next((home / "backbone").glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-100])
    assert run(["a dog", "--output", "a.png"], home) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert re.search(r"backbone.*damaged or cut short", message)
    assert not (here / "a.png").exists()


def test_a_model_that_does_not_exist_gives_one_line_and_status_2(here, capsys):
    assert run(["a dog", "--to", "image"], here / "nothing" / "here") == 2
    assert "no such folder" in capsys.readouterr().err


def test_the_python_of_the_readme_runs(here, home, monkeypatch, capsys):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    code = re.search(r"^```python\n(import dynin\n.*?)^```", text, re.MULTILINE | re.DOTALL).group(1)
    monkeypatch.setattr("dynin.pipeline.folder.EMBEDDED_FOLDER", home)
    exec(compile(code, "README.md", "exec"), {})  # the README's own words are what is tested
    assert (here / "dog.png").exists()
    assert capsys.readouterr().out.strip()
