"""Frames and label maps of annotated folders, read as they lie there.

Enters: paths. Leaves: RGB and labels as arrays, and sizes from headers alone. Does not know datasets.

An orientation in the EXIF data is not applied, since annotations count the pixels as they are stored.
"""

import io
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from dynin.data.referring.example import ReferringExample
from dynin.errors import DataError, MediaError
from dynin.media import files
from dynin.media.limits import LIMITS, check_header

SUFFIXES = (".jpg", ".jpeg", ".png")


def read_rgb(path: Path, size: tuple[int, int], place: str) -> UInt8[np.ndarray, "Y X 3"]:
    """A picture as RGB.

    Args:
        size: Height and width that it must have.
        place: What error messages call it, such as "video 'a1'".

    Raises:
        DataError: If it is missing, damaged, no picture, over the limits, or of another size.
    """
    with _opened(path, place) as picture:
        pixels = np.asarray(_decoded(picture, path, place).convert("RGB"))
    return _of_size(pixels, size, path, place)


def read_labels(path: Path, size: tuple[int, int] | None, place: str) -> UInt8[np.ndarray, "Y X"]:
    """The numbers stored in a label map: grey levels, or places in a palette.

    Raises:
        DataError: As `read_rgb`, or if it is no map of 8 bits.
    """
    with _opened(path, place) as picture:
        if picture.mode not in ("L", "P"):
            raise DataError(f"{place}: {path} has mode {picture.mode}, expected a map of 8 bits; save it as one")
        labels = np.asarray(_decoded(picture, path, place))
    return labels if size is None else _of_size(labels, size, path, place)


def picture_size(path: Path, place: str) -> tuple[int, int]:
    """Height and width, from the header alone; DataError as `read_rgb`."""
    with _opened(path, place) as picture:
        return picture.height, picture.width


def _opened(path: Path, place: str) -> Image.Image:
    try:
        data = files.read_bytes(path, LIMITS.max_bytes)
        kind = check_header(data, str(path))
        with files.decoding_untrusted(str(path), f"a {kind} picture"):
            return Image.open(io.BytesIO(data), formats=[kind.upper()])
    except MediaError as error:
        raise DataError(f"{place}: {error}") from error


def _decoded(picture: Image.Image, path: Path, place: str) -> Image.Image:
    try:
        with files.decoding_untrusted(str(path), "a picture"):
            picture.load()
    except MediaError as error:
        raise DataError(f"{place}: {error}") from error
    return picture


def _of_size(pixels: np.ndarray, size: tuple[int, int], path: Path, place: str) -> np.ndarray:
    if pixels.shape[:2] != size:
        raise DataError(
            f"{place}: {path} is {pixels.shape[1]} x {pixels.shape[0]} px, expected {size[1]} x {size[0]}; nothing is "
            "resized, so restore the published picture or correct the annotation"
        )
    return pixels


def natural_key(name: str) -> tuple[tuple[int, int | str], ...]:
    """Sorts names by the numbers in them: frame2 before frame10."""
    return tuple((0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", name) if part)


def pictures_of(folder: Path, place: str) -> dict[str, Path]:
    """The pictures of a folder by their names without suffix, in the natural order of the names.

    Raises:
        DataError: If the folder is missing, or a name comes with two suffixes.
    """
    if not folder.is_dir():
        raise DataError(f"{place}: no folder {folder}; extract its frames there")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir(), key=lambda path: (natural_key(path.stem), path.suffix)):
        if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            if path.stem in found:
                raise DataError(f"{place}: both {found[path.stem].name} and {path.name} lie in {folder}; remove one")
            found[path.stem] = path
    return found


def picture_examples(
    path: Path, size: tuple[int, int], sentences: Sequence[tuple[str, str, str, object]], name: str
) -> list[ReferringExample]:
    """The examples of one picture, which share its pixels.

    Args:
        size: Height and width.
        sentences: Id, words, family and mask reader of each; a mask reader takes the frame's index, which is 0.
        name: Name of the picture in the dataset.
    """
    return [
        ReferringExample(
            video=name,
            sentence_id=sentence_id,
            sentence=words,
            family=family,
            frame_names=(path.stem,),
            height=size[0],
            width=size[1],
            read_frame=partial(_read_only_frame, path, size, f"picture {name!r}"),
            read_mask=read_mask,  # type: ignore[arg-type]
        )
        for sentence_id, words, family, read_mask in sentences
    ]


def _read_only_frame(path: Path, size: tuple[int, int], place: str, index: int) -> UInt8[np.ndarray, "Y X 3"]:
    if index != 0:
        raise IndexError(f"{place}: frame {index} of 1")
    return read_rgb(path, size, place)
