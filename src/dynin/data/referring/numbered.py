"""Annotation ids that no file writes down: Ref-YouTube-VOS and Ref-DAVIS17 number their sentences.

Enters: the videos of a whole annotation file, and the folder of their masks. Leaves: the same videos, each sentence
with its id, and where its masks are. Does not know which dataset it is.

The id of a sentence is its place among all sentences: videos sorted by name, and within a video sentences sorted by id
as strings ("0", "1", "10", "2"). So ids are given over the whole file, before any video is left out.

    mask_dict.pkl or mask_dict.json            {id: [run lengths or null, one for each frame]}
    Annotations/VIDEO/FRAME.png                where neither is there: maps with the number of the object at every pixel
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from dynin.data.referring import annotation, pictures
from dynin.data.referring.annotation import MaskTable
from dynin.data.referring.expressions import Expression, FrameMask, Masks, MaskSource, VideoEntry
from dynin.errors import DataError


def read_expression(_: str, sentence_id: str, entry: Mapping[str, object], place: str) -> Expression:
    """A sentence before it has an annotation id."""
    words = annotation.words(annotation.field(entry, "exp", place), f"{place}, exp")
    number = str(entry.get("obj_id", ""))
    object_id = int(number) if number.isdigit() else None
    return Expression(id=sentence_id, words=words, family="referring", anno_ids=(), object_id=object_id)


def number(videos: Sequence[VideoEntry]) -> list[VideoEntry]:
    """Give every sentence its annotation id."""
    count = 0
    numbered = []
    for video in sorted(videos, key=lambda video: video.name):
        expressions = []
        for expression in sorted(video.expressions, key=lambda expression: expression.id):
            expressions.append(replace(expression, anno_ids=(str(count),)))
            count += 1
        numbered.append(replace(video, expressions=tuple(expressions)))
    return numbered


class NumberedMasks(MaskTable):
    """A table of masks that must have as many ids as the annotation file has sentences, or the numbers mean nothing."""

    def __init__(self, path: Path, videos: Sequence[VideoEntry]) -> None:
        """Expect one id for every sentence."""
        super().__init__(path)
        self._expected = sum(len(video.expressions) for video in videos)

    def track(self, anno_id: str, num_frames: int, place: str) -> list:
        """As `MaskTable.track`; DataError also where the numbers of sentences and ids differ."""
        if len(self) != self._expected:
            raise DataError(
                f"{self.path}: {len(self)} annotations for {self._expected} sentences; sentences are numbered by their "
                "place in the file, so both must be published together; fetch both again"
            )
        return super().track(anno_id, num_frames, place)


class ObjectMaps:
    """A `MaskSource`: maps that number the objects of a video, as YouTube-VOS and DAVIS publish them."""

    def __init__(self, folder: Path) -> None:
        """Take them from a folder of folders."""
        self._folder = folder

    def reader(self, video: VideoEntry, expression: Expression, size: tuple[int, int]) -> FrameMask:
        """What reads the mask of a frame by its index; DataError where the sentence names no object."""
        place = f"video {video.name!r}, sentence {expression.id!r}"
        if expression.object_id is None:
            raise DataError(f"{place}: has no obj_id with a number, which {self._folder} needs; fetch the file again")
        paths = tuple(self._folder / video.name / f"{frame}.png" for frame in video.frames)
        return partial(_read_object, paths, expression.object_id, size, place)


def _read_object(
    paths: tuple[Path, ...], object_id: int, size: tuple[int, int], place: str, index: int
) -> Bool[np.ndarray, "Y X"]:
    return pictures.read_labels(paths[index], size, place) == object_id


def masks_of(folder: Path, videos: Sequence[VideoEntry]) -> MaskSource:
    """The masks of a split: run lengths by id where they are there, else maps of objects."""
    path = annotation.first_file(folder, "mask_dict.pkl", "mask_dict.json")
    if not path.is_file() and (folder / "Annotations").is_dir():
        return ObjectMaps(folder / "Annotations")
    return Masks(NumberedMasks(path, videos))
