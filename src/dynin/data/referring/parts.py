"""Objects and their parts in the JSON of COCO: PACO-LVIS and PASCAL-Part; each class of a picture is one sentence.

Enters: one JSON of COCO and a folder of pictures. Leaves: a `ReferringSource`. Does not know which dataset it is.

A class is called "object" or "object:part". Parts are told in two ways, "dog ear" and "the ear of the dog", half each;
which one a picture gets follows from its id and that of the class.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from dynin.data.referring import annotation, outlines, pictures
from dynin.data.referring.example import ReferringExample
from dynin.data.referring.refcoco import size_of
from dynin.errors import DataError


class Parts:
    """A `ReferringSource` over the pictures that have annotations, in the order of their ids."""

    def __init__(self, path: Path, images: Path) -> None:
        """Read the JSON; DataError if it is missing or not laid out as published."""
        self._path, self._folder = path, images
        top = annotation.mapping(annotation.read_json(path), str(path))
        self._images = {self._id(entry, "images"): entry for entry in self._list(top, "images")}
        self._classes = {
            self._id(entry, "categories"): annotation.words(entry.get("name"), f"{path}, categories")
            for entry in self._list(top, "categories")
        }
        self._annotations: dict[int, dict[int, list[Mapping[str, object]]]] = {}
        for entry in self._list(top, "annotations"):
            place = f"{path}, annotation {entry.get('id')}"
            image_id, class_id = (annotation.field(entry, key, place) for key in ("image_id", "category_id"))
            if not isinstance(image_id, int) or image_id not in self._images:
                raise DataError(f"{place}: picture {image_id!r} is unknown; fetch the file again")
            if not isinstance(class_id, int) or class_id not in self._classes:
                raise DataError(f"{place}: class {class_id!r} is unknown; fetch the file again")
            self._annotations.setdefault(image_id, {}).setdefault(class_id, []).append(entry)
        self._image_ids = sorted(self._annotations)

    def _list(self, top: Mapping[str, object], key: str) -> list[Mapping[str, object]]:
        entries = annotation.items(annotation.field(top, key, str(self._path)), f"{self._path}, {key}")
        return [annotation.mapping(entry, f"{self._path}, {key}") for entry in entries]

    def _id(self, entry: Mapping[str, object], key: str) -> int:
        value = annotation.field(entry, "id", f"{self._path}, {key}")
        if not isinstance(value, int):
            raise DataError(f"{self._path}, {key}: id is {value!r}, expected a number; fetch the file again")
        return value

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self._image_ids)

    def examples(self, index: int) -> list[ReferringExample]:
        """One sentence for every class of a picture, which means everything of this class.

        Raises:
            DataError: When read, if a file is missing or of another size, or a segmentation is none.
            IndexError: If the index is outside the source.
        """
        if not 0 <= index < len(self._image_ids):
            raise IndexError(f"picture {index} of {len(self._image_ids)}; indices start with 0")
        image_id = self._image_ids[index]
        place = f"{self._path}, picture {image_id}"
        image = self._images[image_id]
        size = size_of(image, place)
        path = self._folder / str(annotation.field(image, "file_name", place))
        found = [
            (
                str(class_id),
                phrase(self._classes[class_id], image_id + class_id),
                "part" if ":" in self._classes[class_id] else "category",
                partial(_mask, tuple(entries), size, f"{place}, class {class_id}"),
            )
            for class_id, entries in sorted(self._annotations[image_id].items())
        ]
        return pictures.picture_examples(path, size, found, str(image_id))


def phrase(name: str, number: int) -> str:
    """A class in words: "trash_can" is a trash can, "dog:ear" a dog ear, or with odd numbers the ear of the dog.

    What stands in brackets is left out: "bus_(vehicle)" is a bus.
    """
    whole, _, part = (piece.split("_(")[0].replace("_", " ").strip() for piece in name.partition(":"))
    if not part:
        return whole
    return f"the {part} of the {whole}" if number % 2 else f"{whole} {part}"


def _mask(
    entries: tuple[Mapping[str, object], ...], size: tuple[int, int], place: str, _: int
) -> Bool[np.ndarray, "Y X"]:
    mask = np.zeros(size, dtype=bool)
    for entry in entries:
        at = f"{place}, annotation {entry.get('id')}"
        mask |= outlines.from_coco(annotation.field(entry, "segmentation", at), size, at)
    return mask
