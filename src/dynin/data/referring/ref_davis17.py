"""Ref-DAVIS17: for every object of DAVIS 2017 sentences of several annotators.

Enters: the folder `davis17`. Leaves: an `ExpressionVideos`. Does not know scores.

    {train,valid}/JPEGImages/VIDEO/FRAME.jpg, {train,valid}/mask_dict.pkl (or .json, or Annotations/VIDEO/FRAME.png)
    meta_expressions/{train,valid}/meta_expressions.json

Every sentence is one example, so a score over them is the mean over sentences. The customary protocol, which merges the
objects of one annotator, is another one.

Source: wjn922/ReferFormer, docs/data.md.
"""

from pathlib import Path

from dynin.data.referring import numbered
from dynin.data.referring.expressions import ExpressionVideos, read_videos

SPLITS = ("valid", "train")


def read(root: Path, split: str) -> ExpressionVideos:
    """Open a split; DataError if a file is missing or not laid out as published."""
    path = root / "meta_expressions" / split / "meta_expressions.json"
    videos = numbered.number(read_videos(path, numbered.read_expression))
    return ExpressionVideos(root / split / "JPEGImages", videos, numbered.masks_of(root / split, videos))
