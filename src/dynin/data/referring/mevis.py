"""MeViS: sentences about motion, by which several objects of a video may be meant.

Enters: the folder `mevis`, with `train`, `valid_u` and `valid`. Leaves: an `ExpressionVideos`. Does not know scores.

    mevis/SPLIT/JPEGImages/VIDEO/00000.jpg, meta_expressions.json
    mevis/SPLIT/mask_dict.json                                        not for `valid`, which a server scores

Source: henghuiding/MeViS.
"""

from collections.abc import Mapping
from pathlib import Path

from dynin.data.referring import annotation
from dynin.data.referring.annotation import MaskTable
from dynin.data.referring.expressions import Expression, ExpressionVideos, Masks, anno_ids, read_videos

SPLITS = ("valid_u", "train", "valid")
SCORED_BY_A_SERVER = ("valid",)


def read(root: Path, split: str) -> ExpressionVideos:
    """Open a split; DataError if a file is missing or not laid out as published."""
    folder = root / split
    is_public = split not in SCORED_BY_A_SERVER
    videos = read_videos(folder / "meta_expressions.json", _read_public if is_public else _read_hidden)
    masks = Masks(MaskTable(folder / "mask_dict.json")) if is_public else None
    return ExpressionVideos(folder / "JPEGImages", videos, masks)


def _read_public(_: str, sentence_id: str, entry: Mapping[str, object], place: str) -> Expression:
    words = annotation.words(annotation.field(entry, "exp", place), f"{place}, exp")
    return Expression(id=sentence_id, words=words, family="referring", anno_ids=anno_ids(entry, place))


def _read_hidden(_: str, sentence_id: str, entry: Mapping[str, object], place: str) -> Expression:
    words = annotation.words(annotation.field(entry, "exp", place), f"{place}, exp")
    return Expression(id=sentence_id, words=words, family="referring", anno_ids=())
