"""Pictures whose every pixel has a class: each class that is there is one sentence, its name.

Enters: pairs of a picture and its label map, and names by label. Leaves: a `ReferringSource`. Does not know which
dataset it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8

from dynin.data.referring import pictures
from dynin.data.referring.example import ReferringExample
from dynin.errors import DataError


class _Map:
    """One label map, read once for all of its classes."""

    def __init__(self, path: Path, size: tuple[int, int], place: str) -> None:
        self._path, self._size, self._place = path, size, place

    @cached_property
    def labels(self) -> UInt8[np.ndarray, "Y X"]:
        return pictures.read_labels(self._path, self._size, self._place)

    def mask(self, label: int, _: int) -> Bool[np.ndarray, "Y X"]:
        return self.labels == label

    def void(self, labels: tuple[int, ...], _: int) -> Bool[np.ndarray, "Y X"]:
        return np.isin(self.labels, labels)


class LabelMaps:
    """A `ReferringSource`; a label map is read when the examples of its picture are asked for."""

    def __init__(self, pairs: Sequence[tuple[Path, Path]], names: Mapping[int, str], void: Sequence[int]) -> None:
        """Join pictures, maps and names.

        Args:
            pairs: A picture and its map each.
            names: The class of every label that is one.
            void: Labels that are no class.
        """
        self._pairs, self._names, self._void = tuple(pairs), dict(names), tuple(void)

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self._pairs)

    def examples(self, index: int) -> list[ReferringExample]:
        """One sentence for every class of a picture, in the order of the labels.

        Raises:
            DataError: If picture and map differ in size, a file is damaged, or a label has no name.
            IndexError: If the index is outside the source.
        """
        if not 0 <= index < len(self._pairs):
            raise IndexError(f"picture {index} of {len(self._pairs)}; indices start with 0")
        path, map_path = self._pairs[index]
        place = f"picture {path.stem!r}"
        size = pictures.picture_size(path, place)
        labelled = _Map(map_path, size, place)
        present = [label for label in np.unique(labelled.labels).tolist() if label not in self._void]
        unknown = [label for label in present if label not in self._names]
        if unknown:
            raise DataError(f"{map_path}: label {unknown[0]} has no class; fetch the map or the list of classes again")
        found = [(str(label), self._names[label], "category", partial(labelled.mask, label)) for label in present]
        read_void = partial(labelled.void, self._void)
        return [
            replace(example, read_void=read_void) for example in pictures.picture_examples(path, size, found, path.stem)
        ]


def pairs_of(images: Path, maps: Path, name: str) -> list[tuple[Path, Path]]:
    """Pictures and maps of equal stems, in the order of their names; DataError where one has no partner."""
    pictures_by_name = pictures.pictures_of(images, name)
    maps_by_name = pictures.pictures_of(maps, name)
    lonely = sorted(pictures_by_name.keys() ^ maps_by_name.keys(), key=pictures.natural_key)
    if lonely:
        have, lack = (images, maps) if lonely[0] in pictures_by_name else (maps, images)
        raise DataError(f"{name}: {lonely[0]!r} lies in {have} but not in {lack}; extract both again")
    if not pictures_by_name:
        raise DataError(f"{images}: holds no pictures; extract {name} there")
    return [(pictures_by_name[stem], maps_by_name[stem]) for stem in pictures_by_name]
