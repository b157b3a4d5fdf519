"""`dynin data emoji-world --task referring`: one sheet and one animation for every sentence."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dynin.cli import app as apps
from dynin.cli.referring_sheet import INNER, OUTER, write_sheets
from dynin.data.referring.emoji_world import EmojiReferring


def test_every_sentence_has_a_sheet_an_animation_and_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["data", "emoji-world", "--task", "referring", "--count", "1", "--seed", "7", "--output", str(tmp_path)]
    assert apps.main(command) == 0
    assert "sentences about 1 examples of referring" in capsys.readouterr().out
    lines = [json.loads(line) for line in (tmp_path / "sentences.jsonl").read_text().splitlines()]
    expected = EmojiReferring(7, num_videos=1, side_px=96).examples(0)
    assert [line["sentence"] for line in lines] == [example.sentence for example in expected]
    for line, example in zip(lines, expected, strict=True):
        assert example.read_mask is not None
        assert line["visible_px"] == [int(example.read_mask(index).sum()) for index in range(24)]
        with Image.open(tmp_path / line["sheet"]) as sheet:
            colours = {tuple(colour) for colour in np.array(sheet.convert("RGB")).reshape(-1, 3).tolist()}
        assert (OUTER in colours and INNER in colours) == (line["family"] != "none")
        with Image.open((tmp_path / line["sheet"]).with_suffix(".gif")) as animation:
            assert getattr(animation, "n_frames", 1) > 1


def test_stills_get_a_sheet_alone(tmp_path: Path) -> None:
    count = write_sheets(EmojiReferring(0, num_frames=1).examples(3), tmp_path)
    assert len(list(tmp_path.glob("*.png"))) == count
    assert not list(tmp_path.glob("*.gif"))


def test_a_file_in_place_of_the_folder_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    command = ["data", "emoji-world", "--task", "referring-still", "--output", str(tmp_path / "file")]
    assert apps.main(command) == 2
    assert "is a file; give a folder" in capsys.readouterr().err
