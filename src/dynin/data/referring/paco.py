"""PACO-LVIS: objects and parts of COCO pictures.

Enters: a folder that holds `vlpart/paco` and `coco`. Leaves: a `Parts`. Does not know scores.

    vlpart/paco/annotations/paco_lvis_v1_{train,val,test}.json, coco/{train2017,val2017}/*.jpg

Source: facebookresearch/paco, in the folders of dvlab-research/LISA.
"""

from pathlib import Path

from dynin.data.referring.parts import Parts

SPLITS = ("val", "train", "test")


def read(root: Path, split: str) -> Parts:
    """Open a split; DataError if a file is missing or not laid out as published."""
    return Parts(root / "vlpart" / "paco" / "annotations" / f"paco_lvis_v1_{split}.json", root / "coco")
