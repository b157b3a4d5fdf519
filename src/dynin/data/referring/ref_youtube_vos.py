"""Ref-YouTube-VOS: sentences about single objects of YouTube-VOS.

Enters: its folder. Leaves: an `ExpressionVideos`. Does not know scores.

    train/JPEGImages/VIDEO/FRAME.jpg, train/mask_dict.pkl (or .json, or Annotations/VIDEO/FRAME.png)
    valid/JPEGImages/VIDEO/FRAME.jpg                                   masks are not public: a server scores
    meta_expressions/{train,valid,test}/meta_expressions.json

`valid` has the videos of its file that the file of `test` does not list, 202 of them. The pickle holds plain values and
is read as such (`plain_pickle`).

Source: skynbe/Refer-Youtube-VOS.
"""

from pathlib import Path

from dynin.data.referring import annotation, numbered
from dynin.data.referring.expressions import ExpressionVideos, read_videos

SPLITS = ("valid", "train")


def read(root: Path, split: str) -> ExpressionVideos:
    """Open a split; DataError if a file is missing or not laid out as published."""
    folder = root / "meta_expressions"
    videos = numbered.number(read_videos(folder / split / "meta_expressions.json", numbered.read_expression))
    if split == "valid":
        path = folder / "test" / "meta_expressions.json"
        test = annotation.mapping(annotation.read_json(path), str(path))
        in_test = annotation.mapping(annotation.field(test, "videos", str(path)), f"{path}, videos")
        kept = [video for video in videos if video.name not in in_test]
        return ExpressionVideos(root / "valid" / "JPEGImages", kept, None)
    return ExpressionVideos(root / split / "JPEGImages", videos, numbered.masks_of(root / split, videos))
