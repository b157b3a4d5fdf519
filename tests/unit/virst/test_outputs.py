"""Masks as files: what is in them, and that they appear whole or not at all."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dynin.data.referring.outlines import from_rle
from dynin.errors import RequestError
from dynin.media.stream import open_frames
from dynin.virst.outputs import COLOUR, About, FrameMask, check, overlay, writing

HEIGHT, WIDTH = 20, 30


def about(count: int) -> About:
    return About(name="clip.mp4", sentence="the dog", num_frames=count, height=HEIGHT, width=WIDTH, rate_hz=10.0)


def frame(index: int) -> FrameMask:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[3 : 8 + index % 5, 4:20] = True
    return FrameMask(
        index=index,
        time_s=index / 10,
        levels=np.full((HEIGHT, WIDTH, 3), 90, dtype=np.uint8),
        mask=mask,
        probability=0.9,
        predicted_iou=0.8,
    )


def write(paths: list[Path], count: int) -> None:
    with writing(paths, about(count)) as sink:
        for index in range(count):
            sink.write(frame(index))


def test_every_kind_of_file_is_written_at_once(tmp_path) -> None:
    places = [tmp_path / name for name in ("masks.mp4", "masks", "masks.json", "sheet.png")]
    write(places, 30)
    assert open_frames(places[0]).num_frames == 30
    names = sorted(path.name for path in places[1].iterdir())
    assert names == [f"{index:05d}.png" for index in range(30)]
    with Image.open(places[1] / "00007.png") as mask:
        assert mask.mode == "L"
        assert np.array_equal(np.asarray(mask) == 255, frame(7).mask)
        assert set(np.unique(np.asarray(mask))) == {0, 255}
    values = json.loads(places[2].read_text())
    assert (values["sentence"], values["num_frames"], len(values["masks"])) == ("the dog", 30, 30)
    for index, line in enumerate(values["masks"]):
        mask = from_rle(line["segmentation"], (HEIGHT, WIDTH), "here")
        assert np.array_equal(mask, frame(index).mask)
        assert line["area"] == mask.sum()
    with Image.open(places[3]) as sheet:
        assert sheet.size == (4 * 244 + 4, 3 * 164 + 4)


def test_the_mask_of_a_picture_is_laid_over_it(tmp_path) -> None:
    write([tmp_path / "a.png"], 1)
    with Image.open(tmp_path / "a.png") as picture:
        assert np.array_equal(np.asarray(picture), overlay(frame(0).levels, frame(0).mask))


def test_an_overlay_colours_the_mask_and_nothing_else() -> None:
    shown = overlay(frame(0).levels, frame(0).mask)
    assert (shown[~frame(0).mask] == 90).all()
    assert tuple(shown[3, 4]) == COLOUR, "the outline is opaque"
    assert tuple(shown[5, 10]) == tuple(round((90 + colour) / 2) for colour in COLOUR)
    assert np.array_equal(overlay(frame(0).levels, np.zeros((HEIGHT, WIDTH), dtype=bool)), frame(0).levels)


def break_off(sink) -> None:
    sink.write(frame(0))
    raise KeyboardInterrupt


def test_nothing_appears_when_the_work_is_broken_off(tmp_path) -> None:
    places = [tmp_path / name for name in ("masks.mp4", "masks", "masks.json", "sheet.png")]
    with pytest.raises(KeyboardInterrupt), writing(places, about(3)) as sink:
        break_off(sink)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_filled(tmp_path) -> None:
    (tmp_path / "masks").mkdir()
    write([tmp_path / "masks"], 2)
    assert len(list((tmp_path / "masks").iterdir())) == 2


def test_places_that_cannot_be_written_are_named_before_any_work(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").write_text("kept")
    for path, message in [
        ("a.avi", r"a\.avi: masks are not written as \.avi; choose \.mp4"),
        ("none/a.png", "the folder none does not exist; create it first"),
        ("full", "full: is there already; name a new folder"),
    ]:
        with pytest.raises(RequestError, match=message):
            check([Path(path)])
    with pytest.raises(RequestError, match="2 outputs were named, expected at least one, each once"):
        check([Path("a.png"), Path("./a.png")])
    with pytest.raises(RequestError, match=r"clip\.mp4 is one picture; write its mask as \.png"):
        write([Path("a.mp4")], 1)
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
