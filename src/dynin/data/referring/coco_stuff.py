"""COCO-Stuff: things and stuff of COCO pictures, each class of a picture one sentence.

Enters: a folder that holds `cocostuff` and `coco`. Leaves: a `LabelMaps`. Does not know scores.

    cocostuff/{train2017,val2017}/*.png, coco/{train2017,val2017}/*.jpg
    cocostuff/labels.txt (or cocostuff_classes.txt)    "0: unlabeled", "1: person", ...

A map counts from 0 where the list counts from 1, and has 255 where nothing is labelled. Classes with "-" in their name
("wall-brick") are void.

Source: nightrome/cocostuff.
"""

from pathlib import Path

from dynin.data.referring import annotation
from dynin.data.referring.label_maps import LabelMaps, pairs_of
from dynin.errors import DataError

SPLITS = ("val2017", "train2017")
UNLABELLED = 255


def read(root: Path, split: str) -> LabelMaps:
    """Open a split; DataError if a file is missing or not laid out as published."""
    folder = root / "cocostuff"
    names = _classes(annotation.first_file(folder, "labels.txt", "cocostuff_classes.txt"))
    pairs = pairs_of(root / "coco" / split, folder / split, f"COCO-Stuff {split}")
    void = [UNLABELLED, *(label for label, name in names.items() if "-" in name)]
    return LabelMaps(pairs, names, void)


def _classes(path: Path) -> dict[int, str]:
    names = {}
    for number, line in enumerate(annotation.class_lines(path), start=1):
        if not line.strip():
            continue
        index, _, name = line.partition(":")
        if not index.strip().isdigit() or not name.strip():
            raise DataError(f"{path}, line {number}: is {line[:40]!r}, expected a number, a colon and a name")
        names[int(index) - 1] = name.strip()
    names.pop(-1, None)
    return names
