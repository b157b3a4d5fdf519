"""ADE20K as scene parsing has it: 150 classes, each class of a picture one sentence.

Enters: the folder `ade20k`. Leaves: a `LabelMaps`. Does not know scores.

    ade20k/images/{training,validation}/*.jpg, ade20k/annotations/{training,validation}/*.png
    ade20k/objectInfo150.txt                   classes: index, ratios and names, separated by tabs

Label 0 is void. A class is called by the first of its names: "building, edifice" is a building.

Source: CSAILVision/sceneparsing.
"""

from pathlib import Path

from dynin.data.referring import annotation
from dynin.data.referring.label_maps import LabelMaps, pairs_of
from dynin.errors import DataError

SPLITS = ("validation", "training")
CLASSES = "objectInfo150.txt"


def read(root: Path, split: str) -> LabelMaps:
    """Open a split; DataError if a file is missing or not laid out as published."""
    pairs = pairs_of(root / "images" / split, root / "annotations" / split, f"ADE20K {split}")
    return LabelMaps(pairs, _classes(root / CLASSES), void=(0,))


def _classes(path: Path) -> dict[int, str]:
    names = {}
    for number, line in enumerate(annotation.class_lines(path)[1:], start=2):
        cells = [cell.strip() for cell in line.split("\t") if cell.strip()]
        if not cells:
            continue
        if len(cells) < 2 or not cells[0].isdigit():
            raise DataError(f"{path}, line {number}: is {line[:40]!r}, expected an index, ratios and names")
        names[int(cells[0])] = cells[-1].split(",")[0].split(";")[0].strip()
    return names
