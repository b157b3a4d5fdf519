"""A folder of predicted masks against a dataset.

Enters: a `ReferringSource` and `<root>/<video>/<sentence>/<frame>.png`. Leaves: scores of pairs, and the names of files
that are missing or too many. Does not know who predicted.

One frame is in memory at a time. A missing mask never becomes a score by itself: it is an error, or, where asked for,
an empty mask, and is named in either case.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

import numpy as np
from jaxtyping import Bool
from PIL import Image

from dynin.data.referring.example import ReferringExample
from dynin.data.referring.source import ReferringSource, walk
from dynin.errors import DataError
from dynin.evaluation.segmentation.pair import WHITE, PairScore, score_pair
from dynin.media.files import decoding_untrusted, opened

SHOWN = 3
"""Names that a message shows of many."""
PREDICTED_BY = ".predicted-by.json"
"""A file in a folder of predictions that says what made them; it is no prediction and not missed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """What a folder of predictions lacks and what it has too many of, as paths below the folder."""

    missing: tuple[str, ...]
    extra: tuple[str, ...]

    def told(self) -> list[str]:
        """Sentences about what is not as expected; none where all is."""
        named = (("missing", self.missing), ("not expected", self.extra))
        return [f"{len(paths)} files are {what}: {_shown(paths)}" for what, paths in named if paths]


def pair_path(example: ReferringExample) -> PurePosixPath:
    """Where a pair's masks lie below the folder of predictions.

    Raises:
        DataError: If the name of the video or of the sentence would lead out of the folder.
    """
    path = PurePosixPath(example.video) / example.sentence_id
    names = (example.sentence_id, *example.frame_names)
    if path.is_absolute() or ".." in path.parts or not example.sentence_id or any("/" in name for name in names):
        raise DataError(
            f"video {example.video!r}, sentence {example.sentence_id!r}: its names are no names of folders and files; "
            "correct the annotation"
        )
    return path


def frame_paths(example: ReferringExample) -> Iterator[PurePosixPath]:
    """The paths of a pair's masks below the folder of predictions, in time order."""
    folder = pair_path(example)
    yield from (folder / f"{name}.png" for name in example.frame_names)


def compare(source: ReferringSource, root: Path) -> Listing:
    """What is missing below a folder and what is not expected there.

    Raises:
        DataError: If the folder is missing, or two pairs have one place.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give the folder that holds <video>/<sentence>/<frame>.png")
    expected: dict[str, frozenset[str]] = {}
    missing: list[str] = []
    for example in walk(source):
        folder = str(pair_path(example))
        if folder in expected:
            raise DataError(f"two sentences have the place {folder}; correct the annotation, or choose one split")
        expected[folder] = frozenset(f"{name}.png" for name in example.frame_names)
        present = {path.name for path in (root / folder).glob("*.png")}
        missing += [f"{folder}/{name}" for name in sorted(expected[folder] - present)]
    extra: list[str] = []
    for place in sorted(path for path in root.rglob("*") if not path.is_dir()):
        relative = place.relative_to(root)
        if place.name not in expected.get(relative.parent.as_posix(), {PREDICTED_BY}):
            extra.append(relative.as_posix())
    return Listing(missing=tuple(missing), extra=tuple(extra))


def read_prediction(path: Path, height: int, width: int) -> Bool[np.ndarray, "Y X"]:
    """One predicted mask.

    Raises:
        MediaError: If the file is missing or damaged.
        DataError: If it is no picture of one channel of 8 bits, of another size, or holds other values than 0 and 255.
    """
    with opened(path) as stream, decoding_untrusted(str(path), "a PNG picture"):
        picture: Image.Image = Image.open(cast(IO[bytes], stream), formats=("PNG",))
        mode, size = picture.mode, picture.size
        values = np.asarray(picture) if mode == "L" and size == (width, height) else None
    if mode != "L":
        raise DataError(f"{path}: a picture of mode {mode}, expected one channel of 8 bits (mode L) with 0 and {WHITE}")
    if values is None:
        raise DataError(
            f"{path}: {size[0]} x {size[1]} px, expected {width} x {height}, the size of the video's frames"
        )
    is_white = values == WHITE
    strange = values[(values != 0) & ~is_white]
    if strange.size:
        raise DataError(f"{path}: holds the value {strange[0]}; expected only 0 and {WHITE}, so write masks as those")
    return is_white


def read_pair(
    example: ReferringExample, root: Path, missing: frozenset[str] = frozenset()
) -> Iterator[Bool[np.ndarray, "Y X"]]:
    """The predicted masks of a pair in time order, empty ones for files that are known to be missing."""
    for place in frame_paths(example):
        if str(place) in missing:
            yield np.zeros((example.height, example.width), dtype=bool)
        else:
            yield read_prediction(root / place, example.height, example.width)


def score_folder(
    source: ReferringSource,
    root: Path,
    *,
    missing_as_empty: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[PairScore], Listing]:
    """Score every pair of a source.

    Args:
        missing_as_empty: Score missing masks as empty ones; otherwise nothing is scored while any is missing.
        progress: Called with the number of videos done, and of all.
    Raises:
        DataError: If a mask is missing, or is not as `read_prediction` wants it.
    """
    listing = compare(source, root)
    if listing.missing and not missing_as_empty:
        raise DataError(
            f"{root}: {len(listing.missing)} predicted masks are missing, {_shown(listing.missing)}; predict them, or "
            "ask for missing masks to be scored as empty ones"
        )
    missing = frozenset(listing.missing)
    scores: list[PairScore] = []
    for index in range(len(source)):
        scores += [score_pair(example, read_pair(example, root, missing)) for example in source.examples(index)]
        progress(index + 1, len(source))
    return scores, listing


def _shown(paths: tuple[str, ...]) -> str:
    """The first names of many."""
    return ", ".join(paths[:SHOWN]) + (f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else "")
