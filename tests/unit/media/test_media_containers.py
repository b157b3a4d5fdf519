import io

import pytest
import soundfile

from dynin.media import containers, video


@pytest.fixture
def ogg(sound) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, sound.samples.numpy(), sound.rate_hz, format="OGG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"\xff\xd8\xff\xe0", "JPEG"),
        (b"GIF89a", "GIF"),
        (b"RIFF\0\0\0\0WEBP", "WebP"),
        (b"RIFF\0\0\0\0WAVE", "WAV"),
        (b"RIFF\0\0\0\0AVI ", None),
        (b"fLaC", "FLAC"),
        (b"OggS", "OGG"),
        (b"ID3\x04", "MP3"),
        (b"\xff\xfb\x90", "MP3"),
        (b"\0\0\0\x20ftypisom", "MP4"),
        (b"plain text", None),
        (b"", None),
    ],
)
def test_the_first_bytes_tell_the_format(head, kind):
    assert containers.sniff(head) == kind


def test_an_ogg_cut_between_pages_is_incomplete(ogg):
    last_page = ogg.rindex(b"OggS")
    assert containers.is_complete(io.BytesIO(ogg), "OGG")
    assert not containers.is_complete(io.BytesIO(ogg[:last_page]), "OGG")
    assert not containers.is_complete(io.BytesIO(ogg[:-1]), "OGG")


def test_bytes_after_the_end_of_an_ogg_are_harmless(ogg):
    assert containers.is_complete(io.BytesIO(ogg + b"TAG" * 20), "OGG")


def test_an_mp4_must_hold_every_box_whole(tmp_path, clip):
    video.write(tmp_path / "a.mp4", clip)
    data = (tmp_path / "a.mp4").read_bytes()
    assert containers.is_complete(io.BytesIO(data), "MP4")
    assert not containers.is_complete(io.BytesIO(data[:-1]), "MP4")
    assert not containers.is_complete(io.BytesIO(data[:20]), "MP4")


def test_a_wav_of_unknown_length_counts_as_complete():
    head = b"RIFF\xff\xff\xff\xffWAVEdata\xff\xff\xff\xff"
    assert containers.is_complete(io.BytesIO(head + bytes(100)), "WAV")
    assert not containers.is_complete(io.BytesIO(head[:-4] + b"\x65\0\0\0" + bytes(100)), "WAV")


def test_the_stream_is_left_at_its_start(ogg):
    stream = io.BytesIO(ogg)
    containers.is_complete(stream, "OGG")
    assert stream.tell() == 0
