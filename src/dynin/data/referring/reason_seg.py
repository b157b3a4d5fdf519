"""ReasonSeg: implicit questions about pictures, with polygons.

Enters: the folder `reason_seg`. Leaves: a `ReferringSource` of pictures. Does not know scores.

    reason_seg/{train,val,test}/*.jpg and *.json of the same stem
    {"text": [sentences], "is_sentence": bool, "shapes": [{"label": "target", "points": [[x, y], ...]}]}

Polygons are laid over one another from the largest to the smallest. Those labelled "flag" are left out; those whose
label contains "ignore" are void: they are in no mask and told by `read_void`, and scores leave them out.

Source: dvlab-research/LISA, utils/data_processing.py.

Parity:
    Of val and test only the first text of a picture is scored there, so only that one is an example here; of train all
    are. Files in cp1252 are read as such. A picture without an explanation is an ordinary picture.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from dynin.data.referring import annotation, outlines, pictures
from dynin.data.referring.example import ReferringExample
from dynin.errors import DataError

SPLITS = ("val", "train", "test")


class ReasonSeg:
    """A `ReferringSource` over the pictures of a split, in the order of their names."""

    def __init__(self, root: Path, split: str) -> None:
        """Open a split; DataError if its folder is missing or empty, or a picture has no JSON."""
        folder = root / split
        self._paths = list(pictures.pictures_of(folder, f"ReasonSeg {split}").values())
        self._is_first_alone = split != "train"
        if not self._paths:
            raise DataError(f"{folder}: holds no pictures; extract the split there")
        for path in self._paths:
            if not path.with_suffix(".json").is_file():
                raise DataError(f"{path}: has no {path.with_suffix('.json').name} beside it; extract the split again")

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self._paths)

    def examples(self, index: int) -> list[ReferringExample]:
        """The sentences about a picture.

        Raises:
            DataError: If its JSON is not as published; when read, if the picture or a polygon is damaged.
            IndexError: If the index is outside the source.
        """
        if not 0 <= index < len(self._paths):
            raise IndexError(f"picture {index} of {len(self._paths)}; indices start with 0")
        path = self._paths[index]
        source = path.with_suffix(".json")
        value = annotation.mapping(annotation.read_json(source, fallback="cp1252"), str(source))
        texts = annotation.items(annotation.field(value, "text", str(source)), f"{source}, text")
        shapes = annotation.items(annotation.field(value, "shapes", str(source)), f"{source}, shapes")
        size = pictures.picture_size(path, f"picture {path.stem!r}")
        kept = texts[:1] if self._is_first_alone else texts
        found = [
            (
                str(number),
                annotation.words(text, f"{source}, text {number}"),
                "reasoning",
                partial(read_shapes, shapes, size, str(source)),
            )
            for number, text in enumerate(kept)
        ]
        read_void = partial(_read_void, shapes, size, str(source))
        return [
            replace(example, read_void=read_void) for example in pictures.picture_examples(path, size, found, path.stem)
        ]


def _drawn(shapes: list, size: tuple[int, int], place: str) -> Bool[np.ndarray, "2 Y X"]:
    """What is meant and what is void."""
    polygons = []
    for number, value in enumerate(shapes):
        at = f"{place}, shape {number}"
        shape: Mapping[str, object] = annotation.mapping(value, at)
        label = annotation.words(annotation.field(shape, "label", at), f"{at}, label").lower()
        if label != "flag":
            mask = outlines.from_points(annotation.field(shape, "points", at), size, at)
            polygons.append((int(mask.sum()), "ignore" in label, mask))
    drawn = np.zeros((2, *size), dtype=bool)
    for _, is_void, mask in sorted(polygons, key=lambda polygon: -polygon[0]):
        drawn[int(is_void)] |= mask
        drawn[int(not is_void)] &= ~mask
    return drawn


def read_shapes(shapes: list, size: tuple[int, int], place: str, _: int) -> Bool[np.ndarray, "Y X"]:
    """The mask of what is meant; DataError where a shape is none."""
    return _drawn(shapes, size, place)[0]


def _read_void(shapes: list, size: tuple[int, int], place: str, _: int) -> Bool[np.ndarray, "Y X"]:
    return _drawn(shapes, size, place)[1]


def read(root: Path, split: str) -> ReasonSeg:
    """Open a split; DataError if a file is missing or not laid out as published."""
    inner = root / "ReasonSeg"
    return ReasonSeg(inner if inner.is_dir() else root, split)
