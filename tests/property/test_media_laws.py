"""Laws of media files: damaged bytes give a MediaError or media within the limits; edits are exact outside."""

import functools
import io

import numpy as np
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynin.errors import MediaError
from dynin.media import audio, image, video
from dynin.media.audio import Audio
from dynin.media.video import Video

EXAMPLES = settings(max_examples=60, deadline=None)


@functools.cache
def picture_bytes(kind: str) -> bytes:
    levels = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    stream = io.BytesIO()
    image.to_pil(image.from_levels(levels)).save(stream, kind)
    return stream.getvalue()


@functools.cache
def sound_bytes(kind: str) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, np.random.default_rng(0).normal(0, 0.1, 4000), 16000, format=kind)
    return stream.getvalue()


@functools.cache
def video_bytes(suffix: str, folder: str) -> bytes:
    frames = torch.randint(0, 2, (3, 3, 16, 16), generator=torch.Generator().manual_seed(0)) * 2.0 - 1
    video.write(f"{folder}/whole{suffix}", Video(frames=frames, rate_hz=4.0), scale=1)
    with open(f"{folder}/whole{suffix}", "rb") as file:
        return file.read()


@st.composite
def damage(draw, whole: bytes) -> bytes:
    data = bytearray(whole)
    for _ in range(draw(st.integers(0, 8))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(1, len(data)))]) if draw(st.booleans()) else bytes(data)


@EXAMPLES
@given(data=st.data(), kind=st.sampled_from(["PNG", "JPEG", "WEBP", "GIF"]))
def test_a_damaged_picture_is_a_picture_or_a_media_error(data, kind):
    try:
        pixels = image.decode(data.draw(damage(picture_bytes(kind))))
    except MediaError:
        return
    assert pixels.shape[1] * pixels.shape[2] <= image.LIMITS.max_px
    assert pixels.abs().max() <= 1


@EXAMPLES
@given(data=st.data(), kind=st.sampled_from(["WAV", "FLAC", "MP3", "OGG"]))
def test_a_damaged_sound_is_a_sound_or_a_media_error(data, kind):
    try:
        sound = audio.decode(data.draw(damage(sound_bytes(kind))))
    except MediaError:
        return
    assert 0 < sound.duration_s <= audio.LIMITS.max_s
    assert sound.samples.abs().max() <= 1


@EXAMPLES
@given(data=st.data(), suffix=st.sampled_from([".mp4", ".gif", ".webp"]))
def test_a_damaged_video_is_a_video_or_a_media_error(data, suffix, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp()
    (folder / "damaged").write_bytes(data.draw(damage(video_bytes(suffix, str(folder)))))
    try:
        clip = video.read(folder / "damaged", 2)
    except MediaError:
        return
    assert clip.frames.shape[0] == 2
    assert clip.duration_s <= video.LIMITS.max_s


@EXAMPLES
@given(data=st.data(), height=st.integers(1, 12), width=st.integers(1, 12), margin_px=st.integers(0, 5))
def test_pasting_is_exact_inside_the_box_and_beyond_the_margin(data, height, width, margin_px):
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    box_width, box_height = data.draw(st.integers(1, width - x)), data.draw(st.integers(1, height - y))
    original, replacement = (
        torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1
    ).unbind()
    result = image.paste(original, replacement, (x, y, box_width, box_height), margin_px)
    rows, columns = slice(y, y + box_height), slice(x, x + box_width)
    assert torch.equal(result[:, rows, columns], replacement[:, rows, columns])
    is_outside = torch.ones(height, width, dtype=torch.bool)
    is_outside[max(0, y - margin_px) : rows.stop + margin_px, max(0, x - margin_px) : columns.stop + margin_px] = False
    assert torch.equal(result[:, is_outside], original[:, is_outside])
    assert result.abs().max() <= 1


@EXAMPLES
@given(data=st.data(), num_samples=st.integers(1, 60), margin=st.integers(0, 70))
def test_splicing_is_exact_inside_the_stretch_and_beyond_the_margin(data, num_samples, margin):
    start = data.draw(st.integers(0, num_samples - 1))
    stop = data.draw(st.integers(start + 1, num_samples))
    old, new = (torch.rand(2, num_samples, generator=torch.Generator().manual_seed(2)) * 2 - 1).unbind()
    original, replacement = Audio(samples=old, rate_hz=8000), Audio(samples=new, rate_hz=8000)
    result = audio.splice(original, replacement, start / 8000, stop / 8000, margin / 8000).samples
    assert torch.equal(result[start:stop], new[start:stop])
    assert torch.equal(result[: max(0, start - margin)], old[: max(0, start - margin)])
    assert torch.equal(result[stop + margin :], old[stop + margin :])
    assert result.abs().max() <= 1


@given(count=st.integers(1, 500), n=st.integers(1, 300))
def test_chosen_frames_ascend_from_the_first_to_the_last(count, n):
    indices = video.choose_frames(count, n)
    assert len(indices) == n
    assert indices == sorted(indices)
    assert indices[0] == 0
    assert indices[-1] == (count - 1 if n > 1 else 0)
    assert len(set(indices)) == min(count, n)
