"""Frames of a video one at a time, read and written, so that a long video needs no more memory than a short one.

Enters: MP4, GIF, WebP, or a picture as a file; frames to write. Leaves: frames as levels with the time of each; an MP4
with the same times. Sound tracks are ignored. Does not know tokens, masks, or how many frames a model looks at.

Frames come as the file has them: those of variable rate keep their times, a picture that is shown for a second is one
frame. `media.video` makes time even instead, and returns all frames at once.
"""

import io
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from dynin.errors import MediaError
from dynin.media import containers, files, image, video

MAX_FRAME_PX = 8_900_000
"""Largest width times height of a frame: 4096 x 2160."""
MAX_ANIMATION_BYTES = 256 << 20
MAX_ANIMATION_PICTURES = 20_000
SHOWABLE_SIDE_PX = 256
MAX_SCALED_SIDE_PX = 2048
TICKS_PER_S = 90_000
"""In which times are written; a frame at any usual rate begins at a whole one."""
_DEFAULT_DURATION_MS = 100


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Frame:
    """One frame."""

    levels: UInt8[np.ndarray, "Y X 3"]
    """RGB, upright."""
    time_s: float
    """When it is shown first, from the start of the video."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameFile:
    """A file whose frames can be gone through, any number of times."""

    path: Path
    kind: str
    """By its content: MP4, GIF, WebP, PNG or JPEG."""
    num_frames: int
    height: int
    """Rows in pixels, once a recording is turned upright."""
    width: int
    rate_hz: float
    """Frames per second in the mean; 1 for a single frame."""

    @property
    def is_picture(self) -> bool:
        """Whether there is one frame alone."""
        return self.num_frames == 1

    def __iter__(self) -> Iterator[Frame]:
        """The frames from the first to the last, each decoded when it is asked for.

        Raises:
            MediaError: If the file is damaged, has changed, or its frames differ in size.
        """
        count = 0
        for frame in _frames(self.path, self.kind):
            if frame.levels.shape[:2] != (self.height, self.width):
                raise MediaError(
                    f"{self.path}: frame {count} has {frame.levels.shape[1]} x {frame.levels.shape[0]} pixels, the "
                    f"first {self.width} x {self.height}; expected one size, save it again"
                )
            if count == self.num_frames:
                raise MediaError(f"{self.path}: holds more than the {self.num_frames} frames that it declares")
            yield frame
            count += 1
        if count != self.num_frames:
            raise MediaError(
                f"{self.path}: ends after {count} of the {self.num_frames} frames that it declares; save or download "
                "it again"
            )


def open_frames(path: str | os.PathLike[str]) -> FrameFile:
    """Look at a file: its kind, how many frames, their size. The first frame is decoded, no other.

    Raises:
        MediaError: If it is missing, empty, damaged, in no known format, without frames, or its frames are too large.
    """
    place = Path(path)
    with files.opened(place) as stream:
        kind = containers.sniff(stream.read(containers.HEAD_BYTES))
    if kind not in (*containers.VIDEOS, *containers.PICTURES):
        received = f"is {kind}" if kind else "is in no known format"
        known = ", ".join(dict.fromkeys((*containers.VIDEOS, *containers.PICTURES)))
        raise MediaError(f"{place}: {received}, expected a video or picture as {known}; convert it first")
    with files.decoding_untrusted(str(place), f"a {kind} video"):
        num_frames, duration_s = _count_mp4(place) if kind == "MP4" else _count_pictures(place, kind)
    if num_frames < 1:
        raise MediaError(f"{place}: holds no frame, expected at least one; save it again")
    first = next(_frames(place, kind))
    height, width = first.levels.shape[:2]
    return FrameFile(
        path=place,
        kind=kind,
        num_frames=num_frames,
        height=height,
        width=width,
        rate_hz=num_frames / duration_s if duration_s > 0 else 1.0,
    )


def _require_size(path: Path, width: int, height: int) -> None:
    if not 1 <= width * height <= MAX_FRAME_PX:
        raise MediaError(
            f"{path}: frames of {width} x {height} pixels, expected at most {MAX_FRAME_PX / 1e6:.1f} million pixels; "
            "make the video smaller"
        )


def _count_mp4(path: Path) -> tuple[int, float]:
    """Frames and seconds, from the packets alone."""
    av = files.import_optional("av")
    with path.open("rb") as whole:
        if not containers.is_complete(whole, "MP4"):
            raise ValueError("a box is longer than the file")
    with av.open(str(path), format="mp4") as container:
        if not container.streams.video:
            raise MediaError(f"{path}: holds no picture track, expected a video; use media.audio for sound")
        stream = container.streams.video[0]
        _require_size(path, stream.codec_context.width, stream.codec_context.height)
        count = sum(packet.size > 0 and not packet.is_discard for packet in container.demux(stream))
        length_s = float(stream.duration * stream.time_base) if stream.duration else 0.0
        return count, length_s or count / float(stream.average_rate or 1)


def _count_pictures(path: Path, kind: str) -> tuple[int, float]:
    """Pictures and seconds of an animation, from its headers alone; a picture lasts a second."""
    if kind in ("PNG", "JPEG"):
        return 1, 1.0
    durations_ms = _durations_ms(path, kind)
    return len(durations_ms), sum(durations_ms) / 1000 if len(durations_ms) > 1 else 1.0


def _durations_ms(path: Path, kind: str) -> list[int]:
    data = files.read_bytes(path, MAX_ANIMATION_BYTES)
    declared = containers.animation_durations_ms(data, kind, MAX_ANIMATION_PICTURES)
    if len(declared) > MAX_ANIMATION_PICTURES:
        raise MediaError(f"{path}: more than {MAX_ANIMATION_PICTURES} pictures, the most that are read; cut it")
    _require_size(path, *containers.picture_size(data, kind))
    return [duration if duration > 0 else _DEFAULT_DURATION_MS for duration in declared]


def _frames(path: Path, kind: str) -> Iterator[Frame]:
    """Every frame; whatever a decoder raises becomes a MediaError, and nothing that the consumer raises does."""
    decoder = _decoded(path, kind)
    while True:
        with files.decoding_untrusted(str(path), f"a {kind} video"):
            frame = next(decoder, None)
        if frame is None:
            return
        yield frame


def _decoded(path: Path, kind: str) -> Iterator[Frame]:
    if kind == "MP4":
        yield from _decoded_mp4(path)
    elif kind in ("PNG", "JPEG"):
        yield Frame(levels=image.to_levels(image.read(path)), time_s=0.0)
    else:
        yield from _decoded_animation(path, kind)


def _decoded_mp4(path: Path) -> Iterator[Frame]:
    av = files.import_optional("av")
    with av.open(str(path), format="mp4") as container:
        stream = container.streams.video[0]
        stream.thread_count = 1  # so that what decoders hold does not grow with the machine
        start_s: float | None = None
        for count, (frame, levels) in enumerate(video.decoded(container, stream)):
            time_s = float(frame.pts * frame.time_base) if frame.pts is not None else count / float(stream.average_rate)
            start_s = time_s if start_s is None else start_s
            yield Frame(levels=np.ascontiguousarray(levels), time_s=time_s - start_s)


def _decoded_animation(path: Path, kind: str) -> Iterator[Frame]:
    starts_ms = accumulate(_durations_ms(path, kind), initial=0)
    data = io.BytesIO(files.read_bytes(path, MAX_ANIMATION_BYTES))
    with Image.open(data, formats=[kind.upper()]) as animation:
        for at, (start_ms, _) in enumerate(pairwise(starts_ms)):
            animation.seek(at)
            yield Frame(levels=image.to_levels(image.from_pil(animation)), time_s=start_ms / 1000)


class Mp4Writer:
    """Writes one frame after another; see `writing_mp4`."""

    def __init__(self, container: Any, stream: Any, scale: int) -> None:
        """A stream that is open in a container."""
        self._container = container
        self._stream = stream
        self._scale = scale
        self._last = -1

    def write(self, levels: UInt8[np.ndarray, "Y X 3"], time_s: float) -> None:
        """The next frame, shown from a time on that lies behind that of the frame before."""
        av = files.import_optional("av")
        large = levels.repeat(self._scale, axis=0).repeat(self._scale, axis=1)
        odd = ((0, self._stream.height - large.shape[0]), (0, self._stream.width - large.shape[1]), (0, 0))
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.pad(large, odd, mode="edge")), format="rgb24")
        self._last = max(self._last + 1, round(time_s * TICKS_PER_S))
        frame.pts, frame.time_base = self._last, Fraction(1, TICKS_PER_S)
        self._container.mux(self._stream.encode(frame))


@contextmanager
def writing_mp4(path: str | os.PathLike[str], height: int, width: int, rate_hz: float) -> Iterator[Mp4Writer]:
    """An MP4 (H.264) that appears when the block ends well, and does not otherwise.

    Small frames are enlarged by a whole number until the shorter side has 256 pixels, since players show smaller ones
    badly; an odd side gains one row or column by repeating the last one.

    Args:
        rate_hz: In the mean; the last frame is shown as long as it says.

    Raises:
        MediaError: If the suffix is another, or the file cannot be written.
    """
    if Path(path).suffix.lower() != ".mp4":
        raise MediaError(f"{path}: a long video is written as .mp4 alone; rename it")
    av = files.import_optional("av")
    scale = max(1, min(math.ceil(SHOWABLE_SIDE_PX / min(height, width)), MAX_SCALED_SIDE_PX // max(height, width)))
    rows, columns = (side * scale + side * scale % 2 for side in (height, width))
    with (
        files.replace_whole(path) as temporary,
        av.open(str(temporary), "w", format="mp4", options={"movflags": "+faststart"}) as container,
    ):
        stream = container.add_stream("libx264", rate=Fraction(rate_hz).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = columns, rows, "yuv420p"
        stream.options = {"crf": "18", "preset": "veryfast", "threads": "1"}
        stream.codec_context.time_base = Fraction(1, TICKS_PER_S)
        writer = Mp4Writer(container, stream, scale)
        yield writer
        container.mux(stream.encode())
