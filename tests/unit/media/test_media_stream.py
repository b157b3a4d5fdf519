"""Frames one at a time: as many as the file has, when it shows them, and no more of them held than one."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from dynin.errors import MediaError
from dynin.media import stream, video
from dynin.media.stream import open_frames, writing_mp4


def levels(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    cells = np.random.default_rng(seed).integers(0, 2, (height // 16, width // 16, 3), dtype=np.uint8) * 255
    return cells.repeat(16, axis=0).repeat(16, axis=1)


def write(path, times, *, height=48, width=64, rate_hz=10.0) -> None:
    with writing_mp4(path, height, width, rate_hz) as writer:
        for at, time_s in enumerate(times):
            writer.write(levels(at, 48, 64)[:height, :width], time_s)


@pytest.mark.parametrize(
    "times", [[0.0, 0.1, 0.2, 0.3], [0.0, 0.1, 0.5, 0.6, 1.5]], ids=["even times", "variable frame rate"]
)
def test_an_mp4_gives_its_frames_back_with_their_times(tmp_path, times) -> None:
    write(tmp_path / "a.mp4", times)
    source = open_frames(tmp_path / "a.mp4")
    assert (source.kind, source.num_frames, source.is_picture) == ("MP4", len(times), False)
    assert (source.height, source.width) == (288, 384)  # enlarged to 256 pixels at least
    found = list(source)
    assert [frame.time_s for frame in found] == pytest.approx(times, abs=1e-4)
    for at, frame in enumerate(found):
        expected = levels(at).repeat(6, axis=0).repeat(6, axis=1).astype(int)
        assert np.abs(frame.levels.astype(int) - expected).mean() < 12
    assert [frame.time_s for frame in source] == [frame.time_s for frame in found]


def test_even_times_make_an_even_rate(tmp_path) -> None:
    write(tmp_path / "a.mp4", [0.0, 0.1, 0.2, 0.3])
    assert open_frames(tmp_path / "a.mp4").rate_hz == pytest.approx(10.0, rel=1e-3)
    assert video.read(tmp_path / "a.mp4").rate_hz == pytest.approx(10.0, rel=1e-3)


def test_an_odd_size_gains_a_row_and_a_column(tmp_path) -> None:
    write(tmp_path / "a.mp4", [0.0, 0.5], height=47, width=33)
    source = open_frames(tmp_path / "a.mp4")
    assert (source.height, source.width) == (47 * 8, 33 * 8)
    big = np.zeros((301, 259, 3), dtype=np.uint8)
    with writing_mp4(tmp_path / "b.mp4", 301, 259, 5.0) as writer:
        writer.write(big, 0.0)
    assert (open_frames(tmp_path / "b.mp4").height, open_frames(tmp_path / "b.mp4").width) == (302, 260)


@pytest.mark.parametrize("kind", ["GIF", "WebP"])
def test_an_animation_shows_each_picture_once_at_its_time(tmp_path, kind) -> None:
    pictures = [Image.fromarray(levels(seed)) for seed in range(3)]
    path = tmp_path / f"a.{kind.lower()}"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=[100, 300, 200], lossless=True)
    source = open_frames(path)
    assert (source.num_frames, source.height, source.width) == (3, 48, 64)
    assert source.rate_hz == pytest.approx(5.0)
    assert [frame.time_s for frame in source] == pytest.approx([0.0, 0.1, 0.4])
    assert all(np.array_equal(frame.levels, levels(seed)) for seed, frame in enumerate(source))


def test_a_picture_is_one_frame_and_what_is_transparent_turns_white(tmp_path) -> None:
    picture = Image.new("RGBA", (5, 9), (255, 0, 0, 0))
    picture.save(tmp_path / "a.png")
    source = open_frames(tmp_path / "a.png")
    assert (source.num_frames, source.height, source.width, source.is_picture) == (1, 9, 5, True)
    assert all((frame.levels == 255).all() for frame in source)


def test_a_recording_that_was_held_upright_is_turned(tmp_path) -> None:
    bright_left = np.zeros((256, 300, 3), dtype=np.uint8)
    bright_left[:, :150] = 255
    with writing_mp4(tmp_path / "a.mp4", 256, 300, 4.0) as writer:
        writer.write(bright_left, 0.0)
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    data[at : at + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)  # clockwise by 90 degrees
    (tmp_path / "b.mp4").write_bytes(data)
    source = open_frames(tmp_path / "b.mp4")
    assert (source.height, source.width) == (300, 256)
    frame = next(iter(source))
    assert frame.levels[:140].mean() > 240
    assert frame.levels[160:].mean() < 15


def mp4(tmp_path) -> bytes:
    write(tmp_path / "whole.mp4", [0.0, 0.1, 0.2])
    return (tmp_path / "whole.mp4").read_bytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda whole: b"", r"the file is empty \(0 bytes\)"),
        (lambda whole: b"no video at all", "is in no known format, expected a video or picture as MP4, GIF, WebP"),
        (lambda whole: whole[:-40], "damaged or cut short, expected a MP4 video"),
        (lambda whole: whole[:200], "damaged or cut short, expected a MP4 video"),
        (lambda whole: whole.replace(b"avc1", b"zzzz"), "damaged or cut short, expected a MP4 video"),
    ],
    ids=["empty", "text", "cut at the end", "header alone", "unknown codec"],
)
def test_what_is_no_whole_video_is_told(tmp_path, content, message) -> None:
    (tmp_path / "bad.mp4").write_bytes(content(mp4(tmp_path)))
    with pytest.raises(MediaError, match=message):
        list(open_frames(tmp_path / "bad.mp4"))


def test_a_missing_file_and_a_folder_are_told(tmp_path) -> None:
    with pytest.raises(MediaError, match="no such file"):
        open_frames(tmp_path / "none.mp4")
    with pytest.raises(MediaError, match="is a folder or a device"):
        open_frames(tmp_path)


def test_frames_that_are_too_large_are_refused_before_any_is_decoded(tmp_path, monkeypatch) -> None:
    write(tmp_path / "a.mp4", [0.0])
    monkeypatch.setattr(stream, "MAX_FRAME_PX", 1000)
    with pytest.raises(MediaError, match="frames of 384 x 288 pixels, expected at most 0.0 million pixels"):
        open_frames(tmp_path / "a.mp4")


def write_and_fail(writer) -> None:
    writer.write(levels(0), 0.0)
    raise RuntimeError


def test_a_video_that_is_not_finished_leaves_no_file(tmp_path) -> None:
    with (
        pytest.raises(RuntimeError),
        writing_mp4(tmp_path / "a.mp4", 48, 64, 10.0) as writer,
    ):
        write_and_fail(writer)
    assert list(tmp_path.iterdir()) == []


def test_a_long_video_is_written_as_mp4_alone(tmp_path) -> None:
    with pytest.raises(MediaError, match=r"a long video is written as \.mp4 alone"), writing_mp4("a.gif", 8, 8, 1.0):
        pass


def consume_and_fail(frames) -> None:
    for _ in frames:
        raise KeyError


def test_what_the_consumer_raises_is_not_taken_for_a_damaged_file(tmp_path) -> None:
    picture = io.BytesIO()
    Image.fromarray(levels(0)).save(picture, "PNG")
    (tmp_path / "a.png").write_bytes(picture.getvalue())
    with pytest.raises(KeyError):
        consume_and_fail(open_frames(tmp_path / "a.png"))
