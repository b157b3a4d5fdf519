import os
import sys

import pytest

from dynin.errors import MediaError
from dynin.media import audio, files, video


def test_a_missing_file_is_named_with_advice(tmp_path):
    with (
        pytest.raises(MediaError, match=r"nothing\.png: no such file; check the path"),
        files.opened(tmp_path / "nothing.png"),
    ):
        pass


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "empty.wav").touch()
    with pytest.raises(MediaError, match=r"empty\.wav: the file is empty"):
        files.read_bytes(tmp_path / "empty.wav", 10)


def test_a_folder_is_refused_as_input_and_as_output(tmp_path):
    with pytest.raises(MediaError, match="is a folder or a device"):
        files.read_bytes(tmp_path, 10)
    with pytest.raises(MediaError, match="is a folder or a device"), files.replace_whole(tmp_path):
        pass


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_forbidden_file_is_refused(tmp_path):
    place = tmp_path / "secret.png"
    place.write_bytes(b"x")
    place.chmod(0)
    with pytest.raises(MediaError, match="may not be read"):
        files.read_bytes(place, 10)


def test_a_file_is_read_up_to_the_limit_and_not_beyond(tmp_path):
    place = tmp_path / "data"
    place.write_bytes(bytes(1 << 20))
    assert len(files.read_bytes(place, 1 << 20)) == 1 << 20
    place.write_bytes(bytes((1 << 20) + 1))
    with pytest.raises(MediaError, match="more than 1 MiB"):
        files.read_bytes(place, 1 << 20)


@pytest.mark.parametrize("error", [SyntaxError, ValueError, IndexError, OSError, MemoryError, RuntimeError, EOFError])
def test_whatever_a_decoder_raises_becomes_a_media_error_without_its_text(error):
    with (
        pytest.raises(MediaError, match=r"^a\.png: damaged .* expected a PNG picture; .*again$") as caught,
        files.decoding_untrusted("a.png", "a PNG picture"),
    ):
        raise error("address 0x7ffd")
    assert "0x7ffd" not in str(caught.value)
    assert isinstance(caught.value.__cause__, error)


def test_a_media_error_passes_the_boundary_unchanged():
    original = MediaError("too large")
    with pytest.raises(MediaError) as caught, files.decoding_untrusted("a.png", "a picture"):
        raise original
    assert caught.value is original


def test_a_file_is_replaced_when_the_block_ends_well(tmp_path):
    place = tmp_path / "out.png"
    place.write_text("old")
    with files.replace_whole(place) as temporary:
        temporary.write_text("new")
        assert place.read_text() == "old"
        assert (temporary.parent, temporary.suffix) == (tmp_path, ".png")
    assert place.read_text() == "new"
    assert os.listdir(tmp_path) == ["out.png"]


def test_an_error_leaves_the_old_file_and_no_other(tmp_path):
    place = tmp_path / "out.png"
    place.write_text("old")
    with pytest.raises(UnicodeEncodeError), files.replace_whole(place) as temporary:
        temporary.write_text("half, then \ud800")
    assert place.read_text() == "old"
    assert os.listdir(tmp_path) == ["out.png"]


def test_a_link_is_followed(tmp_path):
    (tmp_path / "real.png").write_text("old")
    (tmp_path / "link.png").symlink_to(tmp_path / "real.png")
    with files.replace_whole(tmp_path / "link.png") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "link.png").is_symlink()
    assert (tmp_path / "real.png").read_text() == "new"


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(MediaError, match="does not exist; create it first"), files.replace_whole(tmp_path / "a/b.png"):
        pass


def test_a_full_disk_is_told_in_our_words_and_nothing_is_left(tmp_path):
    with pytest.raises(MediaError, match=r"out\.wav: could not be written"), files.replace_whole(tmp_path / "out.wav"):
        raise OSError(28, "No space left on device")
    assert os.listdir(tmp_path) == []


def test_a_missing_codec_package_names_the_extra():
    with pytest.raises(MediaError, match=r'no_such_codec is missing .*pip install "dynin\[media\]"'):
        files.import_optional("no_such_codec")


def test_media_without_codec_packages_say_what_to_install(tmp_path, sound, clip, monkeypatch):
    audio.write(tmp_path / "a.wav", sound)
    video.write(tmp_path / "a.mp4", clip)
    for package in ("soundfile", "soxr", "av"):
        monkeypatch.setitem(sys.modules, package, None)
    attempts = [
        lambda: audio.read(tmp_path / "a.wav"),
        lambda: audio.write(tmp_path / "b.wav", sound),
        lambda: audio.resample(sound, 8000),
        lambda: video.read(tmp_path / "a.mp4"),
        lambda: video.write(tmp_path / "b.mp4", clip),
    ]
    for attempt in attempts:
        with pytest.raises(MediaError, match=r'pip install "dynin\[media\]"'):
            attempt()
    assert sorted(os.listdir(tmp_path)) == ["a.mp4", "a.wav"]
