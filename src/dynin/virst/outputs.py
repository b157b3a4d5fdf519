"""Masks as files, one frame after another: laid over the video, as PNGs, as COCO run lengths, as a contact sheet.

Enters: paths, frames with their masks. Leaves: files that appear whole or not at all. Does not know models.

    *.mp4         the video with the mask laid over it               one frame in memory
    *.json        COCO run lengths, one line a frame                 one
    a folder      00000.png .., 0 and 255, at the video's size       one
    *.png ..      of a video: up to twelve frames on one sheet; of a picture: the mask laid over it
"""

import json
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Protocol, TextIO, runtime_checkable

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from dynin.errors import MediaError, RequestError
from dynin.media import files, image
from dynin.media.stream import Mp4Writer, writing_mp4
from dynin.optional import import_quietly

COLOUR = (255, 64, 32)
"""Of the mask, RGB."""
VIDEO, JSON = ".mp4", ".json"
SHEET_TILES = 12
SHEET_COLUMNS = 4
SHEET_TILE_PX = 240
"""Longer side of a frame on a contact sheet."""
SHEET_GAP_PX = 4


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FrameMask:
    """One frame with its mask."""

    index: int
    time_s: float
    levels: UInt8[np.ndarray, "Y X 3"]
    mask: Bool[np.ndarray, "Y X"]
    probability: float
    """Of the object being visible."""
    predicted_iou: float


@dataclass(frozen=True, kw_only=True, slots=True)
class About:
    """What is segmented, as files tell it."""

    name: str
    sentence: str
    num_frames: int
    height: int
    width: int
    rate_hz: float


@runtime_checkable
class Sink(Protocol):
    """Takes frames in time order."""

    def write(self, frame: FrameMask) -> None:
        """The next frame."""
        ...


def overlay(
    levels: UInt8[np.ndarray, "Y X 3"], mask: Bool[np.ndarray, "Y X"], *, opacity: float = 0.5
) -> UInt8[np.ndarray, "Y X 3"]:
    """A frame with its mask in colour, its outline opaque."""
    shown = levels.copy()
    if mask.any():
        shown[mask] = (levels[mask] * (1 - opacity) + np.array(COLOUR) * opacity).round()
        padded = np.pad(mask, 1)
        inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        shown[mask & ~inside] = COLOUR
    return shown


def kind_of(path: Path) -> str:
    """What a path asks for: a suffix, or an empty string for a folder.

    Raises:
        RequestError: If the suffix is none that masks are written as.
    """
    suffix = path.suffix.lower()
    known = ("", VIDEO, JSON, *image.WRITE_SUFFIXES)
    if suffix not in known:
        raise RequestError(
            f"{path}: masks are not written as {suffix}; choose .mp4 (laid over the video), .json (COCO run lengths), "
            ".png (a contact sheet; of a picture, the mask laid over it), or a folder without suffix (PNG masks)"
        )
    return suffix


def check(paths: Sequence[Path]) -> None:
    """Whether files can be written, before anything slow begins.

    Raises:
        RequestError: If there is no path, one comes twice, has an unknown suffix or no folder, is a folder that holds
            something, or needs a package that is missing.
    """
    if not paths or len({path.resolve() for path in paths}) < len(paths):
        raise RequestError(f"{len(paths)} outputs were named, expected at least one, each once; name a file")
    for path in paths:
        suffix = kind_of(path)
        if not path.resolve().parent.is_dir():
            raise RequestError(f"{path}: the folder {path.parent} does not exist; create it first")
        if suffix and path.is_dir():
            raise RequestError(f"{path} is a folder; give the name of a file")
        if not suffix and path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise RequestError(
                f"{path}: is there already; name a new folder for the PNG masks, or a file with a suffix"
            )
        if suffix == JSON:
            _coco()
        if suffix == VIDEO:
            files.import_optional("av")


@contextmanager
def writing(paths: Sequence[Path], about: About) -> Iterator[Sink]:
    """All files at once: they appear when the block ends well, and none of them does otherwise.

    Raises:
        RequestError: As in `check`; or if one frame is to become a video.
    """
    check(paths)
    with ExitStack() as stack:
        yield _All([stack.enter_context(_writing(path, about)) for path in paths])


@contextmanager
def _writing(path: Path, about: About) -> Iterator[Sink]:
    suffix = kind_of(path)
    if suffix == VIDEO:
        if about.num_frames == 1:
            raise RequestError(f"{path}: {about.name} is one picture; write its mask as .png, .json or into a folder")
        with writing_mp4(path, about.height, about.width, about.rate_hz) as video:
            yield _Overlay(video)
    elif suffix == JSON:
        with _writing_runs(path, about) as runs:
            yield runs
    elif suffix:
        picture = _Sheet(about)
        yield picture
        image.write(path, image.from_levels(picture.whole()))
    else:
        with _writing_masks(path, about) as masks:
            yield masks


@dataclass(frozen=True, slots=True)
class _All:
    sinks: Sequence[Sink]

    def write(self, frame: FrameMask) -> None:
        for sink in self.sinks:
            sink.write(frame)


class _Overlay:
    def __init__(self, video: Mp4Writer) -> None:
        self._video = video

    def write(self, frame: FrameMask) -> None:
        self._video.write(overlay(frame.levels, frame.mask), frame.time_s)


def _coco() -> ModuleType:
    try:
        return import_quietly("pycocotools.mask")
    except ImportError as error:
        raise RequestError(
            'run lengths need the package pycocotools; run: pip install "dynin[segmentation]"'
        ) from error


class _Runs:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._coco = _coco()
        self._count = 0

    def write(self, frame: FrameMask) -> None:
        runs = self._coco.encode(np.asfortranarray(frame.mask.astype(np.uint8)))
        line = {
            "frame": frame.index,
            "time_s": round(frame.time_s, 6),
            "probability": round(frame.probability, 4),
            "predicted_iou": round(frame.predicted_iou, 4),
            "area": int(frame.mask.sum()),
            "segmentation": {"size": list(runs["size"]), "counts": runs["counts"].decode("ascii")},
        }
        self._stream.write((",\n" if self._count else "\n") + "    " + json.dumps(line))
        self._count += 1


@contextmanager
def _writing_runs(path: Path, about: About) -> Iterator[_Runs]:
    head = {
        "video": about.name,
        "sentence": about.sentence,
        "num_frames": about.num_frames,
        "height": about.height,
        "width": about.width,
        "rate_hz": about.rate_hz,
    }
    with files.replace_whole(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        stream.write(json.dumps(head, ensure_ascii=False, indent=2).removesuffix("\n}") + ',\n  "masks": [')
        yield _Runs(stream)
        stream.write("\n  ]\n}\n")


class _Masks:
    def __init__(self, folder: Path, digits: int) -> None:
        self._folder = folder
        self._digits = digits

    def write(self, frame: FrameMask) -> None:
        levels = frame.mask.astype(np.uint8) * np.uint8(255)
        Image.fromarray(levels).save(self._folder / f"{frame.index:0{self._digits}}.png")


@contextmanager
def _writing_masks(folder: Path, about: About) -> Iterator[_Masks]:
    place = folder.resolve()
    staging = place.with_name(f".{place.name[:80]}.{secrets.token_hex(6)}")
    try:
        staging.mkdir()
        yield _Masks(staging, max(5, len(str(about.num_frames - 1))))
        if place.is_dir():
            place.rmdir()  # empty, as `check` saw
        staging.rename(place)
    except OSError as error:
        reason = error.strerror or "the system refused"
        raise MediaError(f"{folder}: could not be written ({reason}); check permissions and free space") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


class _Sheet:
    """Up to twelve frames, evenly spread; a picture alone keeps its size."""

    def __init__(self, about: About) -> None:
        count = min(SHEET_TILES, about.num_frames)
        self._wanted = {round(place) for place in np.linspace(0, about.num_frames - 1, count)}
        self._is_single = about.num_frames == 1
        self._tiles: list[UInt8[np.ndarray, "Y X 3"]] = []

    def write(self, frame: FrameMask) -> None:
        if frame.index in self._wanted:
            shown = overlay(frame.levels, frame.mask)
            self._tiles.append(shown if self._is_single else _tile(shown))

    def whole(self) -> UInt8[np.ndarray, "Y X 3"]:
        if self._is_single:
            return self._tiles[0]
        rows, columns = -(-len(self._tiles) // SHEET_COLUMNS), min(SHEET_COLUMNS, len(self._tiles))
        height, width = (side + SHEET_GAP_PX for side in self._tiles[0].shape[:2])
        sheet = np.full((rows * height + SHEET_GAP_PX, columns * width + SHEET_GAP_PX, 3), 255, dtype=np.uint8)
        for at, tile in enumerate(self._tiles):
            top, left = at // SHEET_COLUMNS * height + SHEET_GAP_PX, at % SHEET_COLUMNS * width + SHEET_GAP_PX
            sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
        return sheet


def _tile(levels: UInt8[np.ndarray, "Y X 3"]) -> UInt8[np.ndarray, "y x 3"]:
    height, width = levels.shape[:2]
    scale = SHEET_TILE_PX / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = Image.Resampling.BICUBIC if scale < 1 else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(levels).resize(size, how))
