"""Masks as annotations write them: run lengths and polygons of COCO.

Enters: what JSON holds. Leaves: masks. Does not know files, videos or sentences.

The package pycocotools reads them (`pip install "dynin[segmentation]"`); it is imported when the first mask is.
"""

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
    if isinstance(counts, list) and sum(counts) != size[0] * size[1]:
        raise DataError(f"{place}: the run lengths of the mask sum up to {sum(counts)}, expected {size[0] * size[1]}")
    coco = _coco(place)
    try:
        if isinstance(counts, list):
            rle = coco.frPyObjects({"size": list(size), "counts": counts}, *size)
        else:
            counts = counts.encode("ascii") if isinstance(counts, str) else counts
            rle = {"size": list(size), "counts": counts}
        mask = coco.decode(rle)
    except (TypeError, ValueError, AttributeError, UnicodeError) as error:
        raise DataError(f"{place}: the run lengths of the mask cannot be read; restore the published file") from error
    return mask.astype(bool)


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
    return mask | coco.decode(coco.merge(coco.frPyObjects(segmentation, *size))).astype(bool)


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
