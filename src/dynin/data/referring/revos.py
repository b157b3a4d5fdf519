"""ReVOS: sentences that refer, sentences that need reasoning, and sentences about nothing that is there.

Enters: the folder `ReVOS`. Leaves: an `ExpressionVideos`, and per frame the union of everything that is annotated, by
which robustness is scored. Does not know scores.

    ReVOS/JPEGImages/SOURCE/VIDEO/FRAME.jpg, meta_expressions_{train,valid}_.json, mask_dict.json,
    mask_dict_foreground.json {VIDEO: {"masks_rle": [...], "foreground_ratio": [...]}}

Source: cilinyan/ReVOS-api.

Parity:
    Code built on this dataset means to leave out videos of TAO or of Charades but asks for both at once, so that it
    leaves out none. Here all are read as published, and none is left out.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from dynin.data.referring import annotation, outlines
from dynin.data.referring.annotation import MaskTable
from dynin.data.referring.example import ReferringExample
from dynin.data.referring.expressions import (
    Expression,
    ExpressionVideos,
    Masks,
    anno_ids,
    read_videos,
)
from dynin.errors import DataError

SPLITS = ("valid", "train")
FAMILIES = {0: "referring", 1: "reasoning", 2: "none"}
"""By `type_id`."""


class ReVOS(ExpressionVideos):
    """A `ReferringSource` whose examples also tell the foreground."""

    def __init__(self, root: Path, split: str) -> None:
        """Open a split; DataError if a file is missing or not laid out as published."""
        videos = read_videos(root / f"meta_expressions_{split}_.json", _read_expression)
        super().__init__(root / "JPEGImages", videos, Masks(MaskTable(root / "mask_dict.json")))
        self._path = root / "mask_dict_foreground.json"

    @cached_property
    def _foreground(self) -> Mapping[str, object]:
        return annotation.mapping(annotation.read_json(self._path), str(self._path))

    def examples(self, index: int) -> list[ReferringExample]:
        """As `ExpressionVideos.examples`, with the union of all annotated objects of the video.

        Raises:
            DataError: Also when the foreground is read, if it lacks the video or has not one mask for each frame.
        """
        return [
            replace(example, read_foreground=partial(self._read_union, example.video, example.frame_names, size))
            for example in super().examples(index)
            for size in [(example.height, example.width)]
        ]

    def _read_union(
        self, video: str, frames: tuple[str, ...], size: tuple[int, int], index: int
    ) -> Bool[np.ndarray, "Y X"]:
        place = f"{self._path}, video {video!r}"
        entry = annotation.mapping(annotation.field(self._foreground, video, str(self._path)), place)
        track = annotation.items(annotation.field(entry, "masks_rle", place), f"{place}, masks_rle")
        if len(track) != len(frames):
            raise DataError(f"{place}: {len(track)} masks for {len(frames)} frames; fetch the file again")
        if track[index] is None:
            return np.zeros(size, dtype=bool)
        return outlines.from_rle(track[index], size, f"{place}, frame {frames[index]!r}")


def read(root: Path, split: str) -> ReVOS:
    """Open a split; DataError if a file is missing or not laid out as published."""
    return ReVOS(root, split)


def _read_expression(_: str, sentence_id: str, entry: Mapping[str, object], place: str) -> Expression:
    kind = annotation.field(entry, "type_id", place)
    if not isinstance(kind, int) or kind not in FAMILIES:
        raise DataError(f"{place}: type_id is {kind!r}, expected one of {', '.join(map(str, FAMILIES))}; correct it")
    words = annotation.words(annotation.field(entry, "exp", place), f"{place}, exp")
    ids = () if FAMILIES[kind] == "none" else anno_ids(entry, place)
    return Expression(id=sentence_id, words=words, family=FAMILIES[kind], anno_ids=ids)
