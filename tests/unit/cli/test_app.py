import inspect
import json
import subprocess
import sys
import typing

import pytest

from dynin import testing
from dynin.cli import app as apps
from dynin.cli import device as devices
from dynin.cli.data import data
from dynin.cli.generate import generate
from dynin.errors import RequestError

FLAGS = (
    "prompt to image audio video output seed steps guidance preset think redo style size model device dtype trace "
    "as_json"
).split()


def test_the_flags_of_generate_are_a_contract():
    assert list(inspect.signature(generate).parameters) == FLAGS


@pytest.mark.parametrize(
    ("arguments", "near"),
    [
        (["generate", "a dog", "--guidence", "2"], "--guidance"),
        (["genrate", "a dog"], "generate"),
        (["generate", "a dog", "--to", "imgae"], "image"),
        (["data", "emoji-wrld"], "emoji-world"),
        (["data", "emoji-world", "--task", "t2x"], "t2"),
        (["data", "emoji-world", "--split", "heldout"], "held_out"),
        (["evaluate", "emojiworld"], "emoji-world"),
    ],
)
def test_a_wrong_word_is_one_line_that_names_the_nearest_right_one(capsys, arguments, near):
    assert apps.main(arguments) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert near in message


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", "a dog", "--seed", "x"],
        ["generate", "a dog", "--to", "image", "--output", "a.wav"],
        ["generate", "a dog", "--output", "a.xyz"],
        ["generate", "a dog", "--to", "image", "--output", "no/such/folder/a.png"],
        ["generate", "a dog", "--to", "image", "--output", "."],
        ["generate", "a dog", "--to", "image", "--trace", "a.mp4"],
        ["generate", "a dog", "--to", "video", "--output", "a.gif", "--trace", "./a.gif"],
        ["generate", "a dog", "--redo", "1,2,3"],
        ["generate", "a dog", "--to", "image", "--output", "a" * 5000 + ".png"],
        ["generate", "a dog", "--to", "image", "--model", "a" * 5000],
        ["evaluate", "emoji-world", "--output", "."],
        ["evaluate", "restoration", "--limit", "0"],
        ["evaluate", "restoration", "--steps", "3"],
        ["demo", "--hero", "a.jpg"],
        ["data", "emoji-world", "--count", "0"],
        ["train", "no-such.toml"],
    ],
)
def test_a_mistake_is_one_line_and_no_file(capsys, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    assert apps.main(arguments) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert message.startswith("dynin: ")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_device_names_the_nearest():
    with pytest.raises(RequestError, match="did you mean 'cuda'"):
        devices.resolve("cudda")


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(RequestError, match="--device cpu"):
        devices.resolve("cuda:99")


def test_help_and_import_do_not_wait_for_torch():
    code = (
        "import sys, dynin, dynin.__main__\n"
        "assert dynin.__main__.main(['--help']) == 0\n"
        "assert dynin.__main__.main(['generate', '--help']) == 0\n"
        "sys.exit(3 if 'torch' in sys.modules else 0)"
    )
    environment = {"PYTHONPATH": ":".join(filter(None, sys.path)), "PATH": ""}
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=False).returncode == 0
    )


def test_examples_are_written_as_media_with_captions(capsys, tmp_path):
    for task in ("t2i", "v2t", "i2i"):
        assert apps.main(["data", "emoji-world", "--task", task, "--count", "2", "--output", str(tmp_path / task)]) == 0
        lines = [json.loads(line) for line in (tmp_path / task / "captions.jsonl").read_text().splitlines()]
        assert [line["index"] for line in lines] == [0, 1]
        named = [value for line in lines for side in ("condition", "target") for value in line[side].values()]
        files = [name for name in named if name.endswith((".png", ".gif"))]
        assert files
        assert all((tmp_path / task / name).stat().st_size > 0 for name in files)
    capsys.readouterr()


def test_the_doctor_says_that_a_model_can_be_used(capsys, tmp_path):
    home = testing.tiny_model(tmp_path / "model")
    assert apps.main(["doctor", "--model", str(home)]) == 0
    assert "17 tasks" in capsys.readouterr().out


def test_the_doctor_says_that_a_model_is_missing(capsys, tmp_path):
    assert apps.main(["doctor", "--model", str(tmp_path / "none")]) == 1
    assert "cannot be used" in capsys.readouterr().out


def test_no_option_is_named_by_its_metavar():
    """typer 0.27.0 takes an upper-case metavar that equals the parameter for the option's name, so it is given."""
    for commands in (apps.app, data):
        for command in commands.registered_commands:
            hints = typing.get_type_hints(command.callback, include_extras=True)
            for name, hint in hints.items():
                for told in getattr(hint, "__metadata__", ()):
                    is_alike = (getattr(told, "metavar", None) or "").lower() == name
                    assert not is_alike or f"--{name}" in (told.default, *told.param_decls), (command, name)
