"""Videos with sentences as MeViS lays them out, and most benchmarks after it: frames, sentences, run lengths.

Enters: entries made of `meta_expressions.json` and a folder of frames. Leaves: `ReferringExample` values. Does not know
where a dataset keeps its files, nor what it calls its sentences.

    JPEGImages/VIDEO/FRAME.jpg
    meta_expressions.json   {"videos": {VIDEO: {"frames": [FRAME, ...],
                                                "expressions": {ID: {"exp": WORDS, "anno_id": [...]}}}}}
    mask_dict.json          {ANNO_ID: [run lengths or null, one for each frame]}
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool

from dynin.data.referring import annotation, outlines, pictures
from dynin.data.referring.annotation import MaskTable
from dynin.data.referring.example import ReferringExample
from dynin.errors import DataError

FrameMask = Callable[[int], Bool[np.ndarray, "Y X"]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Expression:
    """One sentence about a video."""

    id: str
    words: str
    family: str
    anno_ids: tuple[str, ...]
    """Annotations that together are what is meant; none where nothing is."""
    object_id: int | None = None
    """The object that is meant, where a video's objects are numbered."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoEntry:
    """One video of an annotation file."""

    name: str
    frames: tuple[str, ...]
    expressions: tuple[Expression, ...]
    size: tuple[int, int] | None = None
    """Height and width where the annotation tells them."""


ReadExpression = Callable[[str, str, Mapping[str, object], str], Expression]
"""Makes an expression of the video's name, the sentence's id, its entry and what errors call it."""


def read_videos(path: Path, read_expression: ReadExpression) -> list[VideoEntry]:
    """The videos of `meta_expressions.json`, sorted by name, their sentences by id as strings.

    Raises:
        DataError: If the file is missing or not laid out as published; if a video has no frames, names a frame twice,
            or lists them out of order.
    """
    top = annotation.mapping(annotation.read_json(path), str(path))
    videos = annotation.mapping(annotation.field(top, "videos", str(path)), f"{path}, videos")
    entries = []
    for name in sorted(videos):
        place = f"{path}, video {name!r}"
        video = annotation.mapping(videos[name], place)
        frames = annotation.items(annotation.field(video, "frames", place), f"{place}, frames")
        check_frames(frames, place)
        sentences = annotation.mapping(annotation.field(video, "expressions", place), f"{place}, expressions")
        expressions = []
        for sentence_id in sorted(sentences):
            at = f"{place}, sentence {sentence_id!r}"
            expressions.append(read_expression(name, sentence_id, annotation.mapping(sentences[sentence_id], at), at))
        size = (video.get("height"), video.get("width"))
        is_known = all(isinstance(side, int) for side in size)
        entries.append(
            VideoEntry(
                name=name,
                frames=tuple(frames),
                expressions=tuple(expressions),
                size=size if is_known else None,  # type: ignore[arg-type]
            )
        )
    return entries


def check_frames(frames: Sequence[object], place: str) -> None:
    """DataError unless these are names of frames, in time order, each once."""
    if not frames or not all(isinstance(name, str) and name for name in frames):
        raise DataError(f"{place}: its frames are {str(frames)[:60]}, expected a list of names; correct it")
    names = [str(name) for name in frames]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{place}: frame {twice!r} is listed twice; correct the list")
    ordered = sorted(names, key=pictures.natural_key)
    if ordered != names:
        wrong = next(name for name, right in zip(names, ordered, strict=True) if name != right)
        raise DataError(
            f"{place}: its frames are not in time order, the first one out of place is {wrong!r}; masks belong to "
            "places in this list, so fetch the file again, or sort frames and masks together"
        )


def anno_ids(entry: Mapping[str, object], place: str) -> tuple[str, ...]:
    """The entry's "anno_id", a list of ids or one; DataError where it is neither."""
    value = annotation.field(entry, "anno_id", place)
    ids = value if isinstance(value, list) else [value]
    if not all(isinstance(one, int | str) for one in ids):
        raise DataError(f"{place}: anno_id is {str(value)[:40]}, expected a list of ids; correct it")
    return tuple(str(one) for one in ids)


@runtime_checkable
class MaskSource(Protocol):
    """Where the masks of sentences come from."""

    def reader(self, video: VideoEntry, expression: Expression, size: tuple[int, int]) -> FrameMask:
        """What reads the mask of a frame, of this height and width, by its index."""
        ...


class ExpressionVideos:
    """A `ReferringSource` over a folder of frames; a video's folder is looked at when its examples are asked for."""

    def __init__(self, images: Path, videos: Sequence[VideoEntry], masks: "MaskSource | None") -> None:
        """Join entries, frames and masks.

        Args:
            masks: None where they are not public.
        """
        self._images, self._videos, self._masks = images, tuple(videos), masks

    def __len__(self) -> int:
        """Number of videos."""
        return len(self._videos)

    def examples(self, index: int) -> list[ReferringExample]:
        """Every sentence about a video.

        Raises:
            DataError: If a frame is missing, lies there unlisted, or the annotation tells another size; when masks or
                frames are read, if one is damaged or of another size.
            IndexError: If the index is outside the source.
        """
        if not 0 <= index < len(self._videos):
            raise IndexError(f"video {index} of {len(self._videos)}; indices start with 0")
        video = self._videos[index]
        place = f"video {video.name!r}"
        paths = self._paths(video, place)
        size = pictures.picture_size(paths[0], place)
        if video.size is not None and video.size != size:
            raise DataError(
                f"{place}: {paths[0]} is {size[1]} x {size[0]} px, but the annotation says {video.size[1]} x "
                f"{video.size[0]}; fetch the published frames"
            )
        return [
            ReferringExample(
                video=video.name,
                sentence_id=expression.id,
                sentence=expression.words,
                family=expression.family,
                frame_names=video.frames,
                height=size[0],
                width=size[1],
                read_frame=partial(_read_frame, paths, size, place),
                read_mask=None if self._masks is None else self._masks.reader(video, expression, size),
            )
            for expression in video.expressions
        ]

    def _paths(self, video: VideoEntry, place: str) -> tuple[Path, ...]:
        """The files of the frames; DataError where folder and list differ."""
        found = pictures.pictures_of(self._images / video.name, place)
        missing = [name for name in video.frames if name not in found]
        if missing:
            raise DataError(
                f"{place}: frame {missing[0]!r} of the annotation is missing in {self._images / video.name} "
                f"({len(missing)} of {len(video.frames)} are); extract all frames there"
            )
        listed = set(video.frames)
        extra = [name for name in found if name not in listed]
        if extra:
            raise DataError(
                f"{place}: {found[extra[0]]} is not listed in the annotation ({len(extra)} such frames); masks "
                "belong to the listed frames, so move the others elsewhere"
            )
        return tuple(found[name] for name in video.frames)


def _read_frame(paths: tuple[Path, ...], size: tuple[int, int], place: str, index: int) -> np.ndarray:
    return pictures.read_rgb(paths[index], size, place)


class Masks:
    """A `MaskSource`: the run lengths of a sentence's annotation ids."""

    def __init__(self, table: MaskTable) -> None:
        """Take them from a table."""
        self.table = table

    def reader(self, video: VideoEntry, expression: Expression, size: tuple[int, int]) -> FrameMask:
        """What reads the mask of a frame by its index: everything that the sentence's ids stand for, together."""
        place = f"video {video.name!r}, sentence {expression.id!r}"
        return partial(self._read, expression.anno_ids, video.frames, size, place)

    def _read(
        self, ids: tuple[str, ...], frames: tuple[str, ...], size: tuple[int, int], place: str, index: int
    ) -> Bool[np.ndarray, "Y X"]:
        mask = np.zeros(size, dtype=bool)
        for anno_id in ids:
            entry = self.table.track(anno_id, len(frames), place)[index]
            if entry is not None:
                at = f"{self.table.path}, {place}, annotation {anno_id!r}, frame {frames[index]!r}"
                mask |= outlines.from_rle(entry, size, at)
        return mask
