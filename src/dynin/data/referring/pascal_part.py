"""PASCAL-Part: parts of the objects of VOC 2010.

Enters: a folder that holds `vlpart/pascal_part`. Leaves: a `Parts`. Does not know scores.

    vlpart/pascal_part/{train,val}.json, vlpart/pascal_part/VOCdevkit/VOC2010/JPEGImages/*.jpg

Source: facebookresearch/VLPart, in the folders of dvlab-research/LISA.
"""

from pathlib import Path

from dynin.data.referring.parts import Parts

SPLITS = ("val", "train")


def read(root: Path, split: str) -> Parts:
    """Open a split; DataError if a file is missing or not laid out as published."""
    folder = root / "vlpart" / "pascal_part"
    return Parts(folder / f"{split}.json", folder / "VOCdevkit" / "VOC2010" / "JPEGImages")
