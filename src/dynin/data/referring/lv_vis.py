"""LV-VIS with names as sentences: every category of a video, and all objects of it.

Enters: the folder `lvvis`, with `train`. Leaves: an `ExpressionVideos`. Does not know scores.

    lvvis/train/JPEGImages/VIDEO/FRAME.jpg, meta_expressions.json, mask_dict.json

Underscores in the names become spaces: "piano_accordion" is a piano accordion.

Source: haochenheheda/LVVIS, with the two JSON files of cilinyan/VISA.
"""

from collections.abc import Mapping
from pathlib import Path

from dynin.data.referring import annotation
from dynin.data.referring.annotation import MaskTable
from dynin.data.referring.expressions import Expression, ExpressionVideos, Masks, anno_ids, read_videos

SPLITS = ("train",)


def read(root: Path, split: str) -> ExpressionVideos:
    """Open a split; DataError if a file is missing or not laid out as published."""
    folder = root / split
    videos = read_videos(folder / "meta_expressions.json", _read_expression)
    return ExpressionVideos(folder / "JPEGImages", videos, Masks(MaskTable(folder / "mask_dict.json")))


def _read_expression(_: str, sentence_id: str, entry: Mapping[str, object], place: str) -> Expression:
    words = annotation.words(annotation.field(entry, "exp", place), f"{place}, exp").replace("_", " ").strip()
    return Expression(id=sentence_id, words=words, family="category", anno_ids=anno_ids(entry, place))
