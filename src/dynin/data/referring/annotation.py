"""Annotation files: JSON with faults named, and the masks that a sentence's annotation ids stand for.

Enters: paths. Leaves: checked values, and `MaskTable`, which is read when its first mask is asked for. Does not know
what any dataset calls its files.
"""

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from dynin.data.referring import plain_pickle
from dynin.errors import DataError


def read_json(path: Path, fallback: str | None = None) -> object:
    """The value in a JSON file.

    Args:
        fallback: An encoding to try where the file is no UTF-8.

    Raises:
        DataError: If the file is missing or no JSON.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); check the path and the dataset's layout"
        ) from error
    try:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            if fallback is None:
                raise
            text = data.decode(fallback)
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: no JSON ({str(error)[:100]}); fetch it again") from error


def mapping(value: object, place: str) -> Mapping[str, object]:
    """A value that must be a JSON object; DataError otherwise."""
    if not isinstance(value, Mapping):
        raise DataError(f"{place}: is {type(value).__name__}, expected an object; restore the published file")
    return value


def items(value: object, place: str) -> list:
    """A value that must be a JSON list; DataError otherwise."""
    if not isinstance(value, list):
        raise DataError(f"{place}: is {type(value).__name__}, expected a list; restore the published file")
    return value


def words(value: object, place: str) -> str:
    """A value that must be a string with something in it; DataError otherwise."""
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{place}: is {str(value)[:40]!r}, expected a sentence; correct it")
    return value.strip()


def field(value: Mapping[str, object], key: str, place: str) -> object:
    """An entry that must be there; DataError otherwise."""
    if key not in value:
        raise DataError(f"{place}: has no {key!r}; restore the published file")
    return value[key]


class MaskTable:
    """`mask_dict.json` or `mask_dict.pkl`: for every annotation id one entry for every frame, run lengths or none."""

    def __init__(self, path: Path) -> None:
        """Choose the file, JSON or a pickle of plain values; it is read when it is first used."""
        self.path = path

    @cached_property
    def _entries(self) -> Mapping[str, object]:
        value = plain_pickle.read(self.path) if self.path.suffix == ".pkl" else read_json(self.path)
        return {str(key): entry for key, entry in mapping(value, str(self.path)).items()}

    def __len__(self) -> int:
        """Number of annotation ids."""
        return len(self._entries)

    def track(self, anno_id: str, num_frames: int, place: str) -> list:
        """The run lengths of an annotation in every frame, None where there is nothing.

        Raises:
            DataError: If the id is unknown or has another number of frames.
        """
        if anno_id not in self._entries:
            raise DataError(f"{self.path}: no annotation {anno_id!r}, which {place} names; fetch both files again")
        track = items(self._entries[anno_id], f"{self.path}, annotation {anno_id!r}")
        if len(track) != num_frames:
            raise DataError(
                f"{self.path}, annotation {anno_id!r}: {len(track)} masks, but {place} has {num_frames} frames; "
                "nothing is resampled, so fetch both files again"
            )
        return track


def first_file(folder: Path, *names: str) -> Path:
    """The first of several names that is a file, or the path of the first, for an error that names it."""
    paths = [folder / name for name in names]
    return next((path for path in paths if path.is_file()), paths[0])


def class_lines(path: Path) -> list[str]:
    """The lines of a file that lists a dataset's classes; DataError if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read; it lists the classes and comes with the dataset") from error
