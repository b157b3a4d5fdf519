"""Predicted masks as files: folders that are written pair by pair, and zips as the servers of benchmarks want them.

Enters: examples and masks, or a folder of masks. Leaves: `<root>/<video>/<sentence>/<frame>.png`, or a zip. Does not
know models, nor scores.

A pair's folder appears when its last mask is written, so a folder that is there is whole, and a prediction that was
stopped goes on with the pairs that are not there.
"""

import json
import secrets
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from PIL import Image

from dynin.config import suggest
from dynin.data.referring.example import ReferringExample
from dynin.data.referring.source import ReferringSource, walk
from dynin.errors import DataError, MediaError, RequestError
from dynin.evaluation.segmentation.floors import Predict
from dynin.evaluation.segmentation.pair import WHITE, told_pair
from dynin.evaluation.segmentation.region import told
from dynin.evaluation.segmentation.score import PREDICTED_BY, Listing, compare, frame_paths, pair_path, read_prediction
from dynin.media.files import replace_whole

ZIP_DATE = (1980, 1, 1, 0, 0, 0)
"""Of every file in a zip, so that equal masks make equal zips."""
TOP_FOLDERS: Mapping[str, str] = {"mevis": "", "ref-youtube-vos": "Annotations/"}
"""Benchmarks whose server scores a zip of one picture for each sentence and frame: what their paths begin with.

Source: the submission pages of MeViS and of Ref-YouTube-VOS.
"""


def write_pair(root: Path, example: ReferringExample, masks: Iterable[Bool[np.ndarray, "Y X"]]) -> Path:
    """Write the masks of a pair, one 8-bit PNG of 0 and 255 for each frame; whole or not at all.

    Raises:
        DataError: If the masks are too few, too many, or not of the size of the frames.
        MediaError: If the folder is there already, or the disk refuses.
    """
    folder = root / pair_path(example)
    if folder.exists():
        raise MediaError(f"{folder}: is there already; delete it to predict it again")
    staging = folder.with_name(f".{folder.name[:80]}.{secrets.token_hex(6)}")
    try:
        staging.mkdir(parents=True)
        count = -1
        for count, mask in enumerate(masks):  # noqa: B007 - the count is needed after the last mask
            if count == len(example) or mask.shape != (example.height, example.width):
                raise DataError(
                    f"{told_pair(example)}: mask {count} is {told(mask)}; expected {len(example)} masks of "
                    f"{example.width} x {example.height} px"
                )
            values = mask.astype(np.uint8) * np.uint8(WHITE)
            Image.fromarray(values).save(staging / f"{example.frame_names[count]}.png")
        if count + 1 != len(example):
            raise DataError(f"{told_pair(example)}: {count + 1} masks for {len(example)} frames; expected one of each")
        staging.rename(folder)
    except OSError as error:
        raise MediaError(f"{folder}: could not be written ({error.strerror}); check permissions and space") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder


def predict_folder(
    source: ReferringSource,
    predict: Predict,
    root: Path,
    *,
    about: Mapping[str, object] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Predict every pair that is not below a folder yet; returns how many were predicted.

    Args:
        about: What the masks follow from, as plain values; it is kept in the folder, and a folder of something else is
            not gone on with.
        progress: Called with the number of videos done, and of all.
    Raises:
        DataError: As `write_pair`; or if the folder holds predictions of something else.
    """
    if about is not None:
        _claim(root, about)
    num_written = 0
    for index in range(len(source)):
        for example in source.examples(index):
            if not (root / pair_path(example)).exists():
                write_pair(root, example, predict(example))
                num_written += 1
        progress(index + 1, len(source))
    return num_written


def write_zip(source: ReferringSource, root: Path, output: Path, dataset: str) -> Listing:
    """Pack the predicted masks of a split for the server of its benchmark.

    Every mask is read and checked. Files that are not expected stay out and are named in the result.

    Raises:
        RequestError: If the benchmark has no server, or the output is no place for a zip.
        DataError: If a mask is missing or not as expected; nothing is written then.
    """
    if dataset not in TOP_FOLDERS:
        known = ", ".join(sorted(TOP_FOLDERS))
        raise RequestError(
            f"{dataset} has no server for masks of sentences{suggest(dataset, TOP_FOLDERS)}; those of {known} do, and "
            "the others are scored here"
        )
    listing = require_whole(source, root)
    top = TOP_FOLDERS[dataset]
    pack(output, ((f"{top}{place}", (root / place).read_bytes()) for place in _checked(source, root)))
    return listing


def require_whole(source: ReferringSource, root: Path) -> Listing:
    """What a folder has too much; DataError where a mask is missing."""
    listing = compare(source, root)
    if listing.missing:
        raise DataError(f"{root}: {listing.told()[0]}; predict them first, since a server scores what is missing as 0")
    return listing


def pack(output: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Write a zip of names and contents, whole or not at all; equal contents make equal zips.

    Raises:
        RequestError: If the output is not called .zip.
    """
    if output.suffix != ".zip":
        raise RequestError(f"{output}: a submission is a zip; call it {output.stem}.zip")
    with replace_whole(output) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files:
            archive.writestr(zipfile.ZipInfo(name, ZIP_DATE), content)


def _claim(root: Path, about: Mapping[str, object]) -> None:
    """Make a folder of predictions one's own; DataError where it is another's."""
    place, text = root / PREDICTED_BY, json.dumps(about, indent=2, sort_keys=True) + "\n"
    if place.is_file():
        if place.read_text(encoding="utf-8") != text:
            raise DataError(
                f"{root}: holds predictions of something else, as {PREDICTED_BY} tells; choose another folder"
            )
        return
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DataError(f"{root}: holds files that this did not predict; choose a new folder for predictions")
    root.mkdir(parents=True, exist_ok=True)
    with replace_whole(place) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _checked(source: ReferringSource, root: Path) -> Iterator[str]:
    """The paths of all masks, each once it has been found right."""
    for example in walk(source):
        for place in frame_paths(example):
            read_prediction(root / place, example.height, example.width)
            yield str(place)
