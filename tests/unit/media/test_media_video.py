import io
import os
import struct

import av
import numpy as np
import pytest
import torch
from PIL import Image

from dynin.errors import MediaError
from dynin.media import audio, image, video
from dynin.media.video import Video, choose_frames


def grey_frames(count: int, side: int = 32) -> torch.Tensor:
    """Frame k is grey, brighter with k, so that a frame tells its own index."""
    return (torch.arange(count) / max(1, count - 1) * 1.6 - 0.8)[:, None, None, None].expand(count, 3, side, side)


def indices_of(clip: Video, count: int) -> list[int]:
    return [round((float(frame.mean()) + 0.8) / 1.6 * (count - 1)) for frame in clip.frames]


def animation(pictures: list[Image.Image], durations_ms: list[int], kind: str = "GIF") -> bytes:
    stream = io.BytesIO()
    pictures[0].save(stream, kind, save_all=True, append_images=pictures[1:], duration=durations_ms, loop=0)
    return stream.getvalue()


def colours(*names: str) -> list[Image.Image]:
    return [Image.new("RGB", (8, 8), name) for name in names]


@pytest.fixture
def mp4(tmp_path, clip) -> bytes:
    video.write(tmp_path / "fixture.mp4", clip)
    return (tmp_path / "fixture.mp4").read_bytes()


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_few_colours_survive_gif_and_webp_bit_for_bit(tmp_path, clip, suffix):
    video.write(tmp_path / f"a{suffix}", clip)
    result = video.read(tmp_path / f"a{suffix}")
    assert result.rate_hz == 4
    assert torch.equal(result.frames, clip.frames)


def test_every_colour_survives_webp_bit_for_bit(tmp_path):
    frames = torch.randint(0, 256, (3, 3, 16, 16), generator=torch.Generator().manual_seed(4)) / 127.5 - 1
    video.write(tmp_path / "a.webp", Video(frames=frames, rate_hz=10.0))
    assert torch.equal(video.read(tmp_path / "a.webp").frames, frames)


def test_an_mp4_keeps_count_rate_and_almost_the_colours(tmp_path, clip):
    video.write(tmp_path / "a.mp4", clip, scale=2)
    result = video.read(tmp_path / "a.mp4")
    assert (result.frames.shape, result.rate_hz) == ((4, 3, 64, 64), 4.0)
    assert (result.frames[:, :, ::2, ::2] - clip.frames).abs().mean() < 0.1


def test_an_mp4_is_h264_in_the_layout_that_players_know(tmp_path, clip):
    video.write(tmp_path / "a.mp4", clip)
    with av.open(str(tmp_path / "a.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt, context.width, context.height) == ("h264", "yuv420p", 256, 256)
        assert container.duration == 1_000_000  # microseconds


def test_the_scale_makes_every_pixel_a_square(tmp_path):
    frames = torch.tensor([[-1.0, 1.0], [1.0, -1.0]]).expand(1, 3, 2, 2)
    video.write(tmp_path / "a.webp", Video(frames=frames, rate_hz=1.0), scale=3)
    expected = frames.repeat_interleave(3, 2).repeat_interleave(3, 3)
    assert torch.equal(video.read(tmp_path / "a.webp").frames, expected)


def test_odd_sides_become_even_in_an_mp4(tmp_path):
    video.write(tmp_path / "a.mp4", Video(frames=torch.ones(2, 3, 33, 35), rate_hz=5.0), scale=1)
    frames = video.read(tmp_path / "a.mp4").frames
    assert frames.shape == (2, 3, 34, 36)
    assert frames.min() > 0.9


def test_a_video_that_stands_still_keeps_its_duration_and_can_be_asked_for_frames(tmp_path):
    still = Video(frames=torch.ones(4, 3, 8, 8), rate_hz=4.0)
    for suffix in (".gif", ".mp4"):
        video.write(tmp_path / f"a{suffix}", still)
        result = video.read(tmp_path / f"a{suffix}", 4)
        assert (result.frames.shape[0], result.rate_hz) == (4, 4.0)


def test_a_webp_that_stands_still_is_a_picture_that_can_be_asked_for_frames(tmp_path):
    video.write(tmp_path / "a.webp", Video(frames=torch.ones(4, 3, 8, 8), rate_hz=4.0))
    assert torch.equal(video.read(tmp_path / "a.webp", 4).frames, torch.ones(4, 3, 8, 8))


def test_frames_merged_by_a_writer_are_repeated(tmp_path):
    (tmp_path / "a.gif").write_bytes(animation(colours("red", "lime", "blue"), [250, 500, 250]))
    result = video.read(tmp_path / "a.gif")
    assert (result.frames.shape[0], result.rate_hz) == (4, 4.0)
    assert torch.equal(result.frames[1], result.frames[2])
    assert not torch.equal(result.frames[2], result.frames[3])


def test_a_gif_without_durations_runs_at_ten_frames_a_second(tmp_path):
    (tmp_path / "a.gif").write_bytes(animation(colours("red", "blue"), [0, 0]))
    assert video.read(tmp_path / "a.gif").rate_hz == 10


def test_a_rate_that_hundredths_cannot_hold_is_kept_on_average(tmp_path):
    video.write(tmp_path / "a.gif", Video(frames=grey_frames(24, 8), rate_hz=24.0))
    result = video.read(tmp_path / "a.gif")
    assert (result.frames.shape[0], result.rate_hz) == (24, 24.0)


@pytest.mark.parametrize("kind", ["GIF", "WebP"])
def test_a_single_picture_is_a_video_of_one_frame(tmp_path, kind):
    colours("red")[0].save(tmp_path / "a", kind)
    assert video.read(tmp_path / "a").frames.shape == (1, 3, 8, 8)


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp"])
def test_chosen_frames_are_the_evenly_spread_ones_and_the_duration_stays(tmp_path, suffix):
    video.write(tmp_path / f"a{suffix}", Video(frames=grey_frames(12), rate_hz=6.0))
    result = video.read(tmp_path / f"a{suffix}", 4)
    assert indices_of(result, 12) == [0, 3, 7, 11]
    assert result.duration_s == 2


def test_the_last_frame_is_repeated_where_there_are_too_few(tmp_path):
    video.write(tmp_path / "a.mp4", Video(frames=grey_frames(2), rate_hz=6.0))
    result = video.read(tmp_path / "a.mp4", 4)
    assert indices_of(result, 2) == [0, 1, 1, 1]
    assert result.rate_hz == 6


@pytest.mark.parametrize(
    ("count", "n", "expected"),
    [(10, 1, [0]), (10, 2, [0, 9]), (10, 4, [0, 3, 6, 9]), (9, 4, [0, 2, 5, 8]), (1, 3, [0, 0, 0]), (2, 3, [0, 1, 1])],
)
def test_positions_are_truncated_as_published(count, n, expected):
    assert choose_frames(count, n) == expected


@pytest.mark.parametrize(("count", "n"), [(0, 1), (1, 0)])
def test_no_frame_cannot_be_chosen(count, n):
    with pytest.raises(ValueError, match="at least 1"):
        choose_frames(count, n)


def test_the_rotation_noted_by_a_phone_is_applied(tmp_path):
    frames = torch.full((2, 3, 32, 64), -1.0)
    frames[:, :, :, :32] = 1  # bright on the left
    video.write(tmp_path / "a.mp4", Video(frames=frames, rate_hz=4.0), scale=1)
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    data[at : at + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)  # clockwise by 90 degrees
    (tmp_path / "b.mp4").write_bytes(data)
    result = video.read(tmp_path / "b.mp4").frames
    assert result.shape == (2, 3, 64, 32)
    assert result[:, :, :30].mean() > 0.9
    assert result[:, :, 34:].mean() < -0.9


@pytest.mark.parametrize("part", [0.01, 0.3, 0.6, 0.99])
@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp"])
def test_a_truncated_video_is_refused_in_our_words(tmp_path, clip, suffix, part):
    video.write(tmp_path / f"a{suffix}", clip)
    data = (tmp_path / f"a{suffix}").read_bytes()
    (tmp_path / "b.file").write_bytes(data[: max(3, int(len(data) * part))])
    with pytest.raises(MediaError, match=r"b\.file: (damaged|is in no known).* expected a .*; .*") as caught:
        video.read(tmp_path / "b.file")
    assert "0x" not in str(caught.value)
    assert "Invalid" not in str(caught.value)


def test_damaged_frames_in_a_whole_container_are_refused(tmp_path, mp4):
    start = mp4.index(b"mdat") + 4
    (tmp_path / "a.mp4").write_bytes(mp4[:start] + bytes(255 - byte for byte in mp4[start:]))
    with pytest.raises(MediaError, match=r"a\.mp4: damaged or cut short, expected a MP4 video"):
        video.read(tmp_path / "a.mp4")


def test_a_frame_that_the_decoder_had_to_guess_is_refused(tmp_path):
    noise = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    video.write(tmp_path / "a.mp4", Video(frames=noise, rate_hz=4.0))
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    middle = (data.index(b"mdat") + len(data)) // 2
    data[middle : middle + 64] = bytes(255 - byte for byte in data[middle : middle + 64])
    (tmp_path / "a.mp4").write_bytes(data)
    with pytest.raises(MediaError, match="damaged or cut short"):
        video.read(tmp_path / "a.mp4")


@pytest.mark.parametrize("content", [b"hello, I am no video", b"\x89PNG\r\n\x1a\n    IHDR", b"OggS            "])
def test_other_files_named_mp4_are_refused(tmp_path, content):
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(MediaError, match=r"a\.mp4: is .*, expected a video as MP4, GIF, WebP; convert it first"):
        video.read(tmp_path / "a.mp4")


def test_an_empty_file_and_a_missing_one_are_refused(tmp_path):
    (tmp_path / "a.mp4").touch()
    with pytest.raises(MediaError, match="is empty"):
        video.read(tmp_path / "a.mp4")
    with pytest.raises(MediaError, match="no such file"):
        video.read(tmp_path / "b.mp4")


def test_an_mp4_of_sound_alone_is_refused(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(MediaError, match="holds no picture track"):
        video.read(tmp_path / "a.mp4")


def test_frames_over_the_limit_are_refused_before_one_is_returned(tmp_path, monkeypatch):
    video.write(tmp_path / "a.mp4", Video(frames=torch.zeros(1, 3, 1002, 2100), rate_hz=4.0), scale=1)
    monkeypatch.setattr(video, "decoded", pytest.fail)
    with pytest.raises(MediaError, match=r"frames of 2100 x 1002 pixels, expected at most 2\.1 million"):
        video.read(tmp_path / "a.mp4", 1)


@pytest.mark.parametrize("kind", ["GIF", "WebP"])
def test_large_animations_are_refused_from_the_header(tmp_path, kind):
    pictures = [Image.new("RGB", (2100, 1001), name) for name in ("red", "blue")]
    (tmp_path / "a").write_bytes(animation(pictures, [100, 100], kind))
    with pytest.raises(MediaError, match="frames of 2100 x 1001 pixels, expected at most 2.1 million"):
        video.read(tmp_path / "a", 1)


def test_a_video_longer_than_a_minute_is_refused(tmp_path):
    video.write(tmp_path / "a.mp4", Video(frames=grey_frames(61), rate_hz=1.0), scale=1)
    (tmp_path / "b.gif").write_bytes(animation(colours("red", "blue"), [30_000, 31_000]))
    for name in ("a.mp4", "b.gif"):
        with pytest.raises(MediaError, match="lasts 61 seconds, expected at most 60; cut it"):
            video.read(tmp_path / name, 2)


def test_a_gif_of_far_too_many_pictures_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    one = animation(colours("red"), [10])
    start = one.index(b"\x2c")
    control = b"\x21\xf9\x04\x00\x01\x00\x00\x00"
    (tmp_path / "a.gif").write_bytes(one[:start] + (control + one[start:-1]) * 20_000 + b"\x3b")
    monkeypatch.setattr(Image, "open", pytest.fail)
    with pytest.raises(MediaError, match="more than 6000 pictures, the most that are read; cut it"):
        video.read(tmp_path / "a.gif", 1)


def test_too_many_frames_at_once_can_be_asked_for_in_part(tmp_path):
    video.write(tmp_path / "a.webp", Video(frames=grey_frames(257, 4), rate_hz=25.0))
    with pytest.raises(MediaError, match="257 frames of 4 x 4 pixels, expected at most 256 .* num_frames"):
        video.read(tmp_path / "a.webp")
    assert video.read(tmp_path / "a.webp", 5).frames.shape[0] == 5


@pytest.mark.parametrize("num_frames", [0, -1, 257])
def test_a_silly_number_of_frames_is_refused(tmp_path, mp4, num_frames):
    with pytest.raises(MediaError, match=f"{num_frames} frames were asked for, expected 1 to 256"):
        video.read(tmp_path / "fixture.mp4", num_frames)


def test_unknown_suffixes_list_the_known_ones(tmp_path, clip):
    with pytest.raises(MediaError, match=r"'\.avi' .* \.mp4 \.gif \.webp"):
        video.write(tmp_path / "a.avi", clip)
    with pytest.raises(MediaError, match="scale 0 was given"):
        video.write(tmp_path / "a.mp4", clip, scale=0)
    assert os.listdir(tmp_path) == []


def test_pixels_that_are_not_finite_write_nothing(tmp_path):
    with pytest.raises(MediaError, match="not finite"):
        video.write(tmp_path / "a.mp4", Video(frames=torch.full((1, 3, 8, 8), float("nan")), rate_hz=1.0))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("rate_hz", [0.0, -1.0, float("nan"), float("inf")])
def test_a_video_has_a_rate(rate_hz):
    with pytest.raises(MediaError, match="rate above 0 Hz"):
        Video(frames=torch.zeros(1, 3, 8, 8), rate_hz=rate_hz)


def test_a_video_has_a_frame():
    with pytest.raises(MediaError, match="at least one frame"):
        Video(frames=torch.zeros(0, 3, 8, 8), rate_hz=1.0)


def test_pictures_of_a_video_can_be_pasted_all_at_once(clip):
    result = image.paste(clip.frames, -clip.frames, (8, 8, 8, 8), 0)
    assert torch.equal(result[:, :, 8:16, 8:16], -clip.frames[:, :, 8:16, 8:16])
    assert torch.equal(result[:, :, 16:], clip.frames[:, :, 16:])


def test_a_sound_is_no_video(tmp_path):
    audio.write(tmp_path / "a.wav", audio.Audio(samples=torch.zeros(100), rate_hz=16000))
    with pytest.raises(MediaError, match="is WAV, expected a video"):
        video.read(tmp_path / "a.wav")


def test_a_video_of_the_most_pictures_is_counted_to_the_last(tmp_path, monkeypatch):
    (tmp_path / "a.gif").write_bytes(animation(colours("red", "lime", "blue"), [100, 100, 100]))
    monkeypatch.setattr(video, "LIMITS", video.VideoLimits(max_pictures=3))
    assert video.read(tmp_path / "a.gif").frames.shape[0] == 3


def test_a_video_unpacks_into_frames_and_rate():
    clip = Video(frames=torch.zeros(2, 3, 4, 4), rate_hz=4.0)
    frames, rate_hz = clip
    assert frames is clip.frames
    assert rate_hz == 4.0


def test_one_converter_gives_every_frame_the_levels_of_its_own(tmp_path):
    frames = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (5, 3, 48, 64)).astype(np.float32))
    video.write(tmp_path / "a.mp4", Video(frames=frames, rate_hz=4.0), scale=1)
    with av.open(str(tmp_path / "a.mp4")) as container:
        alone = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with av.open(str(tmp_path / "a.mp4")) as container:
        together = [levels for _, levels in video.decoded(container, container.streams.video[0])]
    assert np.array_equal(alone, together)
