"""Video files to frames and back.

Enters: MP4, GIF or WebP as a file; frames to write. Leaves: `Video`, frames in [-1, 1] at a stated rate; files. Sound
tracks are ignored. Does not know tokens, tasks, or how many frames a model looks at.

Time is made even: an MP4 counts at its average rate; a GIF or WebP frame shown n times as long as the shortest one is
repeated n times, which also undoes the merging of equal frames by writers.
"""

import io
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from dynin.errors import MediaError
from dynin.media import containers, files, image


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoLimits:
    """What is refused, from the header where it says so, else while frames are counted and decoded."""

    max_s: float = 60.0
    """Longest video in seconds."""
    max_frames: int = 256
    """Most frames returned."""
    max_pictures: int = 6000
    """Most pictures in a GIF or WebP: as many as a GIF can show in a minute."""
    max_frame_px: int = 2_100_000
    """Largest width times height of a frame."""
    max_decoded_px: int = 1_000_000_000
    """Largest frame size times number of frames in the file."""
    max_returned_px: int = 1 << 26
    """Largest frame size times number of frames returned: 0.8 GB as float32."""
    max_bytes: int = 256 << 20


LIMITS = VideoLimits()
WRITE_SUFFIXES = {".mp4": "MP4", ".gif": "GIF", ".webp": "WebP"}

_SHOWABLE_SIDE_PX = 256
_DEFAULT_DURATION_MS = 100


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Video:
    """Frames at even distances in time."""

    frames: Float[Tensor, "T 3 Y X"]
    """Float32 RGB in [-1, 1], at least one frame."""
    rate_hz: float
    """Frames per second."""

    def __post_init__(self) -> None:
        """MediaError for a shape or rate that is no video."""
        shape = tuple(self.frames.shape)
        is_shape_right = len(shape) == 4 and shape[0] >= 1 and shape[1] == 3
        if not is_shape_right or not (math.isfinite(self.rate_hz) and self.rate_hz > 0):
            raise MediaError(
                f"frames of shape {shape} at {self.rate_hz} Hz were given, expected (frames, 3, rows, columns) with at "
                "least one frame and a rate above 0 Hz; correct them"
            )

    def __iter__(self) -> Iterator[Tensor | float]:
        """The frames, then the rate, so that `frames, rate_hz = value` reads well."""
        yield self.frames
        yield self.rate_hz

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.frames.shape[0] / self.rate_hz


def choose_frames(count: int, n: int) -> list[int]:
    """Indices of `n` of `count` frames, evenly spread from the first to the last; the last repeats where n > count.

    Raises:
        ValueError: If `count` or `n` is below 1.
    Parity:
        Evenly spread positions are truncated to integers, as in Dynin-Omni; so is the padding with the last frame.
    """
    if count < 1 or n < 1:
        raise ValueError(f"{n} of {count} frames were asked for, expected at least 1 of at least 1")
    if n > count:
        return [*range(count), *[count - 1] * (n - count)]
    return [int(at) for at in np.linspace(0, count - 1, n)]


def read(path: str | os.PathLike[str], num_frames: int | None = None) -> Video:
    """Read a video, its format told by its content.

    Args:
        num_frames: Number of frames, spread evenly over the whole video by `choose_frames`; all of them if None.
            The rate is such that the video lasts as long as before, except where the last frame is repeated.

    Raises:
        MediaError: If the file is missing, empty, damaged, cut short, no video, or over `LIMITS`.
    """
    return decode(files.read_bytes(path, LIMITS.max_bytes), str(path), num_frames)


def decode(data: bytes, name: str = "<bytes>", num_frames: int | None = None) -> Video:
    """The video in `data`; see `read`.

    Args:
        name: What error messages call the video.
    """
    kind = containers.sniff(data[: containers.HEAD_BYTES])
    if kind not in containers.VIDEOS:
        received = f"is {kind}" if kind else "is in no known format"
        raise MediaError(f"{name}: {received}, expected a video as {', '.join(containers.VIDEOS)}; convert it first")
    if num_frames is not None and not 1 <= num_frames <= LIMITS.max_frames:
        raise MediaError(f"{num_frames} frames were asked for, expected 1 to {LIMITS.max_frames}; correct the number")
    with files.decoding_untrusted(name, f"a {kind} video"):
        return _read_mp4(data, name, num_frames) if kind == "MP4" else _read_animation(data, name, kind, num_frames)


def _chosen(name: str, num_frames: int | None, count: int, rate_hz: float, size: tuple[int, int]) -> list[int]:
    """Indices to return, after every limit that size, count and rate can break."""
    width, height = size
    frame_px = width * height
    if not 1 <= frame_px <= LIMITS.max_frame_px:
        raise MediaError(
            f"{name}: frames of {width} x {height} pixels, expected at most {LIMITS.max_frame_px / 1e6:.1f} million "
            "pixels (1920 x 1080); make the video smaller"
        )
    if count < 1:
        raise MediaError(f"{name}: holds no frame, expected at least one; save it again")
    if count > LIMITS.max_s * rate_hz:
        raise MediaError(f"{name}: lasts {count / rate_hz:.0f} seconds, expected at most {LIMITS.max_s:.0f}; cut it")
    if count * frame_px > LIMITS.max_decoded_px:
        raise MediaError(
            f"{name}: {count} frames of {width} x {height} pixels, expected at most "
            f"{LIMITS.max_decoded_px / 1e9:.0f} billion pixels in all; make the video shorter or smaller"
        )
    num_returned = count if num_frames is None else num_frames
    if num_returned > LIMITS.max_frames or num_returned * frame_px > LIMITS.max_returned_px:
        most = min(LIMITS.max_frames, LIMITS.max_returned_px // frame_px)
        raise MediaError(
            f"{name}: {num_returned} frames of {width} x {height} pixels, expected at most {most} at a time; "
            "ask for fewer with num_frames"
        )
    return choose_frames(count, num_returned)


def _gather(frames: Iterator[np.ndarray], indices: list[int], rate_hz: float, count: int) -> Video:
    """The frames at the given ascending indices; IndexError where the file ends before them."""
    wanted = set(indices)
    kept = {at: frame for at, frame in enumerate(frames) if at in wanted}
    if len(kept) < len(wanted):
        raise IndexError("fewer frames than declared")
    is_padded = len(indices) > count > 1
    new_rate_hz = rate_hz if is_padded else rate_hz * len(indices) / count
    return Video(frames=image.from_levels(np.stack([kept[at] for at in indices])), rate_hz=new_rate_hz)


def _read_animation(data: bytes, name: str, kind: str, num_frames: int | None) -> Video:
    """A GIF or WebP; a picture that does not move is a video of one frame."""
    declared_ms = containers.animation_durations_ms(data, kind, LIMITS.max_pictures)
    if len(declared_ms) > LIMITS.max_pictures:
        raise MediaError(f"{name}: more than {LIMITS.max_pictures} pictures, the most that are read; cut it")
    durations_ms = [ms if ms > 0 else _DEFAULT_DURATION_MS for ms in declared_ms]
    shortest_ms = min(durations_ms)
    repeats = [round(ms / shortest_ms) for ms in durations_ms]
    size = containers.picture_size(data, kind)
    rate_hz = 1000 * sum(repeats) / sum(durations_ms)
    indices = _chosen(name, num_frames, sum(repeats), rate_hz, size)
    with Image.open(io.BytesIO(data), formats=[kind.upper()]) as animation:
        if animation.size != size or getattr(animation, "n_frames", 1) != len(durations_ms):
            raise ValueError("the decoder sees another animation than the header declares")
        return _gather(_animation_frames(animation, repeats), indices, rate_hz, sum(repeats))


def _animation_frames(animation: Image.Image, repeats: list[int]) -> Iterator[np.ndarray]:
    for at, times in enumerate(repeats):
        animation.seek(at)
        levels = image.to_levels(image.from_pil(animation))
        for _ in range(times):
            yield levels


def _read_mp4(data: bytes, name: str, num_frames: int | None) -> Video:
    av = files.import_optional("av")
    if not containers.is_complete(io.BytesIO(data), "MP4"):
        raise ValueError("a box is longer than the file")
    with av.open(io.BytesIO(data), format="mp4") as container:
        if not container.streams.video:
            raise MediaError(f"{name}: holds no picture track, expected a video; use media.audio for sound")
        stream = container.streams.video[0]
        size = (stream.codec_context.width, stream.codec_context.height)
        rate_hz = float(stream.average_rate or 0)
        if rate_hz <= 0:
            raise ValueError("no frame rate")
        _chosen(name, 1, max(1, stream.frames), rate_hz, size)  # limits by the header alone
        count = sum(packet.size > 0 and not packet.is_discard for packet in container.demux(stream))
        indices = _chosen(name, num_frames, count, rate_hz, size)
        container.seek(0)
        return _gather((levels for _, levels in decoded(container, stream)), indices, rate_hz, count)


def decoded(container: Any, stream: Any) -> Iterator[tuple[Any, UInt8[np.ndarray, "Y X 3"]]]:
    """Every frame of an open container as PyAV gives it, and its levels of RGB, upright.

    One converter serves all frames, in one thread: setting one up for a frame takes a hundred times as long as a small
    frame does.

    Raises:
        ValueError: If a frame is damaged.
    """
    from av.video.reformatter import VideoReformatter

    converter = VideoReformatter()
    for frame in container.decode(stream):
        if frame.is_corrupt:
            raise ValueError("damaged frame")
        quarter_turns = round(frame.rotation / 90)  # counter-clockwise, as the recording device noted
        levels = converter.reformat(frame, format="rgb24", threads=1).to_ndarray()
        yield frame, np.rot90(levels, quarter_turns)


def write(path: str | os.PathLike[str], video: Video, scale: int | None = None) -> None:
    """Write a video as MP4 (H.264), GIF (256 colours a frame) or WebP (without loss), by suffix; whole or not at all.

    GIF and WebP repeat for ever; a WebP in which nothing changes becomes a picture, without a duration. An MP4 with an
    odd side gains one row or column by repeating the last one.

    Args:
        scale: Every pixel becomes a square of this side. None enlarges an MP4 until its shorter side has 256 pixels,
            since players show smaller ones badly, and leaves GIF and WebP as they are.

    Raises:
        MediaError: If the suffix is none of these, a pixel is not finite, the scale is below 1, or the file cannot be
            written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in WRITE_SUFFIXES:
        raise MediaError(
            f"{path}: unknown suffix {suffix!r} for a video, expected one of {' '.join(WRITE_SUFFIXES)}; rename it"
        )
    if scale is not None and scale < 1:
        raise MediaError(f"the scale {scale} was given, expected a whole number of 1 or more; correct it")
    kind = WRITE_SUFFIXES[suffix]
    levels = image.to_levels(video.frames)  # (T, Y, X, 3)
    if scale is None:
        scale = max(1, math.ceil(_SHOWABLE_SIDE_PX / min(levels.shape[1:3]))) if kind == "MP4" else 1
    levels = levels.repeat(scale, axis=1).repeat(scale, axis=2)
    if kind == "MP4":
        _write_mp4(path, levels, video.rate_hz)
    else:
        _write_animation(path, levels, video.rate_hz, kind)


def _write_mp4(path: str | os.PathLike[str], levels: np.ndarray, rate_hz: float) -> None:
    av = files.import_optional("av")
    odd_rows, odd_columns = levels.shape[1] % 2, levels.shape[2] % 2
    levels = np.pad(levels, ((0, 0), (0, odd_rows), (0, odd_columns), (0, 0)), mode="edge")
    with (
        files.replace_whole(path) as temporary,
        av.open(str(temporary), "w", format="mp4", options={"movflags": "+faststart"}) as container,
    ):
        stream = container.add_stream("libx264", rate=Fraction(rate_hz).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = levels.shape[2], levels.shape[1], "yuv420p"
        stream.options = {"crf": "18", "threads": "1"}
        for frame in levels:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _write_animation(path: str | os.PathLike[str], levels: np.ndarray, rate_hz: float, kind: str) -> None:
    step_ms = 10 if kind == "GIF" else 1
    ends = [round(1000 / step_ms * at / rate_hz) for at in range(len(levels) + 1)]
    durations_ms = [max(1, stop - start) * step_ms for start, stop in zip(ends[:-1], ends[1:], strict=True)]
    pictures = [Image.fromarray(frame) for frame in levels]
    options = {"lossless": True, "exact": True} if kind == "WebP" else {}
    with files.replace_whole(path) as temporary:
        pictures[0].save(
            temporary,
            format=kind.upper(),
            save_all=True,
            append_images=pictures[1:],
            duration=durations_ms,
            loop=0,
            **options,
        )
