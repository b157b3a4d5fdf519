"""RefCOCO, RefCOCO+, RefCOCOg, RefCLEF and gRefCOCO: sentences about one picture, in the layout of the REFER API.

Enters: the folder `refer_seg`, or whatever holds the datasets' folders beside `images`. Leaves: a `ReferringSource` of
pictures. Does not know scores.

    refcoco/refs(unc).p, refcoco/instances.json            the same for refcoco+ and refclef; refcocog has refs(umd).p
    grefcoco/grefs(unc).json, grefcoco/instances.json      several annotations a sentence; -1 for none
    images/mscoco/images/train2014/*.jpg, images/saiapr_tc-12/*.jpg (refclef)

`refs(...).p` is a pickle of plain values and is read as such (`plain_pickle`); a `.json` of the same content does too.

Source: lichengunc/refer, henghuiding/gRefCOCO.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from dynin.data.referring import annotation, outlines, pictures, plain_pickle
from dynin.data.referring.example import ReferringExample
from dynin.errors import DataError

REFS = {
    "refcoco": "refs(unc)",
    "refcoco+": "refs(unc)",
    "refcocog": "refs(umd)",
    "refclef": "refs(unc)",
    "grefcoco": "grefs(unc)",
}
COCO_IMAGES, CLEF_IMAGES = "images/mscoco/images/train2014", "images/saiapr_tc-12"
NOTHING = -1


class Refer:
    """A `ReferringSource` over the pictures of a split, in the order of their ids."""

    def __init__(self, root: Path, name: str, split: str) -> None:
        """Open a split; DataError if a file is missing or not laid out as published."""
        folder = root / name
        self._path = annotation.first_file(folder, f"{REFS[name]}.p", f"{REFS[name]}.json")
        self._instances_path = folder / "instances.json"
        self._image_folder = root / (CLEF_IMAGES if name == "refclef" else COCO_IMAGES)
        is_pickle = self._path.suffix == ".p"
        refs = plain_pickle.read(self._path) if is_pickle else annotation.read_json(self._path)
        self._refs: dict[int, list[Mapping[str, object]]] = {}
        for number, value in enumerate(annotation.items(refs, str(self._path))):
            ref = annotation.mapping(value, f"{self._path}, entry {number}")
            place = f"{self._path}, ref {ref.get('ref_id', number)}"
            if annotation.field(ref, "split", place) == split:
                image_id = annotation.field(ref, "image_id", place)
                if not isinstance(image_id, int):
                    raise DataError(f"{place}: image_id is {image_id!r}, expected a number; fetch the file again")
                self._refs.setdefault(image_id, []).append(ref)
        if not self._refs:
            raise DataError(f"{self._path}: no sentences of split {split!r}; choose another split of {name}")
        instances = annotation.mapping(annotation.read_json(self._instances_path), str(self._instances_path))
        self._images = self._by_id(instances, "images")
        self._annotations = self._by_id(instances, "annotations")
        self._image_ids = sorted(self._refs)

    def _by_id(self, instances: Mapping[str, object], key: str) -> dict[object, Mapping[str, object]]:
        place = f"{self._instances_path}, {key}"
        entries = annotation.items(annotation.field(instances, key, str(self._instances_path)), place)
        return {annotation.field(annotation.mapping(entry, place), "id", place): entry for entry in entries}

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self._image_ids)

    def examples(self, index: int) -> list[ReferringExample]:
        """Every sentence about a picture.

        Raises:
            DataError: If the picture or an annotation is unknown; when read, if a file is missing or of another size.
            IndexError: If the index is outside the source.
        """
        if not 0 <= index < len(self._image_ids):
            raise IndexError(f"picture {index} of {len(self._image_ids)}; indices start with 0")
        image_id = self._image_ids[index]
        place = f"{self._instances_path}, picture {image_id}"
        if image_id not in self._images:
            raise DataError(f"{place}: is unknown, though {self._path} names it; fetch both files again")
        image = self._images[image_id]
        path = self._image_folder / str(annotation.field(image, "file_name", place))
        size = size_of(image, place)
        found = []
        for ref in self._refs[image_id]:
            at = f"{self._path}, ref {ref.get('ref_id')}"
            ids = self._anno_ids(ref, at)
            family = "referring" if ids else "none"
            for sentence in annotation.items(annotation.field(ref, "sentences", at), f"{at}, sentences"):
                entry = annotation.mapping(sentence, f"{at}, sentences")
                sentence_id = str(annotation.field(entry, "sent_id", at))
                words = annotation.words(annotation.field(entry, "sent", at), f"{at}, sentence {sentence_id}")
                reader = partial(self._mask, ids, size, f"picture {image_id}, sentence {sentence_id!r}")
                found.append((sentence_id, words, family, reader))
        return pictures.picture_examples(path, size, found, str(image_id))

    def _anno_ids(self, ref: Mapping[str, object], place: str) -> tuple[int, ...]:
        """The annotations that a sentence means; gRefCOCO has -1 where it means nothing."""
        value = annotation.field(ref, "ann_id", place)
        ids = value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [value]
        kept = tuple(one for one in ids if isinstance(one, int) and one != NOTHING)
        unknown = [one for one in ids if one != NOTHING and one not in self._annotations]
        if unknown:
            raise DataError(f"{place}: annotation {unknown[0]!r} is not in {self._instances_path}; fetch both again")
        return kept

    def _mask(self, ids: tuple[int, ...], size: tuple[int, int], place: str, _: int) -> Bool[np.ndarray, "Y X"]:
        mask = np.zeros(size, dtype=bool)
        for one in ids:
            at = f"{self._instances_path}, {place}, annotation {one}"
            mask |= outlines.from_coco(annotation.field(self._annotations[one], "segmentation", at), size, at)
        return mask


def size_of(image: Mapping[str, object], place: str) -> tuple[int, int]:
    """Height and width of an entry of "images"; DataError where they are missing."""
    height, width = (annotation.field(image, key, place) for key in ("height", "width"))
    if not isinstance(height, int) or not isinstance(width, int):
        raise DataError(f"{place}: height and width are {height!r} and {width!r}, expected numbers; correct them")
    return height, width
