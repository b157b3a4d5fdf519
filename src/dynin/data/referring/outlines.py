"""Masks as annotations write them: run lengths and polygons of COCO.

Enters: what JSON holds. Leaves: masks. Does not know files, videos or sentences.

The package pycocotools reads them (`pip install "dynin[segmentation]"`); it is imported when the first mask is.
"""

import warnings
from collections.abc import Mapping, Sequence
from types import ModuleType

import numpy as np
from jaxtyping import Bool
from PIL import Image, ImageDraw

from dynin.errors import DataError
from dynin.optional import import_quietly


def _coco(place: str) -> ModuleType:
    try:
        return import_quietly("pycocotools.mask")
    except ImportError as error:
        raise DataError(f'{place}: its masks need pycocotools; pip install "dynin[segmentation]"') from error


def from_rle(rle: object, size: tuple[int, int], place: str) -> Bool[np.ndarray, "Y X"]:
    """The mask of COCO run lengths, compressed or not.

    Args:
        size: Height and width that it must have.
        place: What error messages call it.

    Raises:
        DataError: If it is none, or of another size.
    """
    if not isinstance(rle, Mapping) or not {"size", "counts"} <= rle.keys():
        raise DataError(f"{place}: the mask is {str(rle)[:60]!r}, expected run lengths with size and counts")
    found = rle["size"]
    if not isinstance(found, Sequence) or tuple(found) != size:
        raise DataError(
            f"{place}: the mask has size {found} (height, width), its frame {list(size)}; nothing is resized, so "
            "restore the published mask or frame"
        )
    counts = rle["counts"]
    if isinstance(counts, str):
        counts = counts.encode("ascii", errors="replace")
    runs = _runs(counts) if isinstance(counts, bytes) else counts
    are_runs = isinstance(runs, list) and all(isinstance(run, int) and run >= 0 for run in runs)
    if not isinstance(runs, list) or not are_runs or sum(runs) != size[0] * size[1]:
        raise DataError(
            f"{place}: the run lengths of the mask do not sum up to {size[0]} x {size[1]} pixels; restore the "
            "published file"
        )
    coco = _coco(place)
    shape = {"size": list(size), "counts": counts}
    return _decoded(coco, shape if isinstance(counts, bytes) else coco.frPyObjects(shape, *size))


def _runs(counts: bytes) -> list[int] | None:
    """The run lengths of a compressed mask, None where it is none; pycocotools itself takes any bytes for a mask.

    Each run is a number in digits of five bits, lowest first, from character 48 on; the sixth bit says that another
    digit follows, the fifth of the last digit is the sign. From the fourth run on the difference to the run before the
    last is told.
    """
    runs: list[int] = []
    value, shift = 0, 0
    for character in counts:
        digit = character - 48
        if not 0 <= digit < 64 or shift > 30:
            return None
        value |= (digit & 31) << shift
        shift += 5
        if not digit & 32:
            value -= (1 << shift) if digit & 16 else 0
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value, shift = 0, 0
    return runs if shift == 0 else None


def _decoded(coco: ModuleType, rle: object) -> Bool[np.ndarray, "Y X"]:
    """A mask of compressed run lengths, without what pycocotools says about newer versions of numpy."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="__array__ implementation", category=DeprecationWarning)
        return coco.decode(rle).astype(bool)


def from_coco(segmentation: object, size: tuple[int, int], place: str) -> Bool[np.ndarray, "Y X"]:
    """The mask of a COCO segmentation: polygons or run lengths, one or a list of them, laid over one another.

    Raises:
        DataError: If it is none of these, or of another size.
    """
    if isinstance(segmentation, Mapping):
        return from_rle(segmentation, size, place)
    if not isinstance(segmentation, list) or not segmentation:
        raise DataError(f"{place}: the segmentation is {str(segmentation)[:60]!r}, expected polygons or run lengths")
    mask = np.zeros(size, dtype=bool)
    if all(isinstance(part, Mapping) for part in segmentation):
        for part in segmentation:
            mask |= from_rle(part, size, place)
        return mask
    for part in segmentation:
        is_polygon = isinstance(part, list) and len(part) >= 6 and len(part) % 2 == 0
        if not is_polygon or not all(isinstance(value, int | float) for value in part):
            raise DataError(f"{place}: a polygon is {str(part)[:60]!r}, expected at least three pairs of numbers")
    coco = _coco(place)
    return mask | _decoded(coco, coco.merge(coco.frPyObjects(segmentation, *size)))


def from_points(points: object, size: tuple[int, int], place: str) -> Bool[np.ndarray, "Y X"]:
    """The mask of one polygon given as pairs, its outline included; coordinates lose their fractions.

    Raises:
        DataError: If it has fewer than three points, or points that are no pairs of numbers.

    Parity:
        ReasonSeg's own reader fills with OpenCV; Pillow draws the same polygon, and single pixels of the outline may
        differ.
    """
    if (
        not isinstance(points, list)
        or len(points) < 3
        or not all(isinstance(pair, list) and len(pair) == 2 for pair in points)
    ):
        raise DataError(f"{place}: a polygon is {str(points)[:60]!r}, expected at least three pairs of numbers")
    canvas = Image.new("L", (size[1], size[0]))
    try:
        pairs = [(int(x), int(y)) for x, y in points]
    except (TypeError, ValueError) as error:
        raise DataError(f"{place}: a polygon has points that are no numbers; correct it") from error
    ImageDraw.Draw(canvas).polygon(pairs, fill=1, outline=1)
    return np.asarray(canvas).astype(bool)
