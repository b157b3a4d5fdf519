"""Ref-DAVIS17 by its customary protocol: four annotators, the objects of one of them in one indexed picture.

Enters: a `ReferringSource` of Ref-DAVIS17 and a folder of predicted masks. Leaves: scores by annotator, or a zip of
indexed pictures. Does not know who predicted. The other protocol, every sentence by itself, is that of `score.py`.

Sentence 4 k + a of a video is what annotator a wrote about object k. Of one annotator all objects go into one picture,
so that a pixel has one object; the scorer of DAVIS 2017 then lays predicted objects to true ones as they fit best, and
averages over objects. Pixels that its annotation calls void count as ground here.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from dynin.data.referring.example import ReferringExample
from dynin.data.referring.source import ReferringSource
from dynin.errors import DataError
from dynin.evaluation.segmentation.boundary import contour_accuracy
from dynin.evaluation.segmentation.pair import told_pair
from dynin.evaluation.segmentation.region import region_similarity
from dynin.evaluation.segmentation.score import Listing, read_pair
from dynin.evaluation.segmentation.submit import pack, require_whole

NUM_ANNOTATORS = 4
MOST_OBJECTS = 12
"""More objects than any video has; the best of all ways to lay them is found by trying subsets."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotatorScore:
    """What the sentences of one annotator scored, means over the objects of all videos."""

    region: float
    boundary: float
    region_named: float
    """The same where a predicted object counts for the object that its sentence is about, and for no other."""
    boundary_named: float


def objects(examples: Sequence[ReferringExample]) -> list[list[ReferringExample]]:
    """The sentences of a video by object and annotator: `objects(...)[k][a]`.

    Raises:
        DataError: If the sentences are not numbered from 0, or not four for each object.
    """
    try:
        ordered = sorted(examples, key=lambda example: int(example.sentence_id))
        numbers = [int(example.sentence_id) for example in ordered]
    except ValueError:
        numbers = []
    if not examples or numbers != list(range(len(examples))) or len(examples) % NUM_ANNOTATORS:
        name = examples[0].video if examples else ""
        raise DataError(
            f"video {name!r} has {len(examples)} sentences, expected numbers from 0 and {NUM_ANNOTATORS} for each "
            "object, as Ref-DAVIS17 has them; score this dataset sentence by sentence"
        )
    return [ordered[start : start + NUM_ANNOTATORS] for start in range(0, len(ordered), NUM_ANNOTATORS)]


def merged(masks: Sequence[np.ndarray]) -> UInt8[np.ndarray, "Y X"]:
    """Masks of several objects as one indexed picture: 0 for ground, k + 1 for mask k; the first one wins a pixel.

    Parity:
        The customary script takes the object of the highest score. A folder of masks holds no scores.
    """
    indexed = np.zeros(masks[0].shape, dtype=np.uint8)
    for number, mask in reversed(list(enumerate(masks, start=1))):
        indexed[mask] = number
    return indexed


def score_annotators(
    source: ReferringSource, root: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> list[AnnotatorScore]:
    """The scores of the four annotators; the dataset's score is their mean.

    Raises:
        DataError: If a mask is missing or not as expected, or the dataset is not laid out as Ref-DAVIS17.
    """
    require_whole(source, root)
    totals: list[list[np.ndarray]] = [[] for _ in range(NUM_ANNOTATORS)]
    for index in range(len(source)):
        grid = objects(source.examples(index))
        for annotator in range(NUM_ANNOTATORS):
            regions, boundaries = _tables([row[annotator] for row in grid], root)
            best = assignment((regions + boundaries) / 2)
            named = np.arange(len(grid))
            columns = [regions[best, named], boundaries[best, named], np.diag(regions), np.diag(boundaries)]
            totals[annotator].append(np.stack(columns, axis=1))
        progress(index + 1, len(source))
    means = [np.concatenate(rows).mean(axis=0).tolist() for rows in totals]
    return [AnnotatorScore(region=a, boundary=b, region_named=c, boundary_named=d) for a, b, c, d in means]


def assignment(values: Float[np.ndarray, "K K"]) -> list[int]:
    """For each column the row that it is laid to, so that the sum is highest; every row is used once.

    Raises:
        DataError: For more objects than `MOST_OBJECTS`.

    Source: Held & Karp, J. SIAM 10 (1962): best sums over subsets of rows.
    """
    count = len(values)
    if count > MOST_OBJECTS:
        raise DataError(f"{count} objects in one video, expected at most {MOST_OBJECTS}; score it sentence by sentence")
    best: dict[int, tuple[float, tuple[int, ...]]] = {0: (0.0, ())}
    for column in range(count):
        following: dict[int, tuple[float, tuple[int, ...]]] = {}
        for used, (total, rows) in best.items():
            for row in range(count):
                if used >> row & 1:
                    continue
                added = total + float(values[row, column])
                if added > following.get(used | 1 << row, (-1.0, ()))[0]:
                    following[used | 1 << row] = (added, (*rows, row))
        best = following
    return list(best[(1 << count) - 1][1])


def write_annotators_zip(source: ReferringSource, root: Path, output: Path) -> Listing:
    """Pack indexed pictures `anno_<a>/<video>/<frame>.png`, as the scorer of DAVIS 2017 reads them.

    Raises:
        DataError: As `score_annotators`.
    """
    listing = require_whole(source, root)
    pack(output, _pictures(source, root))
    return listing


def palette() -> list[int]:
    """The colours of indexed pictures in DAVIS and PASCAL VOC: the bits of an index spread over the channels."""
    colours: list[int] = []
    for index in range(256):
        for channel in range(3):
            bits = [(index >> (3 * place + channel) & 1) << (7 - place) for place in range(8)]
            colours.append(sum(bits))
    return colours


def _pictures(source: ReferringSource, root: Path) -> Iterator[tuple[str, bytes]]:
    """Names in the zip and indexed pictures as PNG."""
    colours = palette()
    for index in range(len(source)):
        grid = objects(source.examples(index))
        for annotator in range(NUM_ANNOTATORS):
            sentences = [row[annotator] for row in grid]
            tracks = zip(*(read_pair(sentence, root) for sentence in sentences), strict=True)
            for name, masks in zip(sentences[0].frame_names, tracks, strict=True):
                picture, content = Image.fromarray(merged(masks)), io.BytesIO()
                picture.putpalette(colours)
                picture.save(content, "PNG")
                yield f"anno_{annotator}/{sentences[0].video}/{name}.png", content.getvalue()


def _tables(
    sentences: Sequence[ReferringExample], root: Path
) -> tuple[Float[np.ndarray, "K K"], Float[np.ndarray, "K K"]]:
    """Mean J and F over the frames of every predicted object (rows) against every true one (columns)."""
    count = len(sentences)
    regions, boundaries = np.zeros((count, count)), np.zeros((count, count))
    tracks = zip(*(read_pair(sentence, root) for sentence in sentences), strict=True)
    for index, masks in enumerate(tracks):
        indexed = merged(masks)
        for column, sentence in enumerate(sentences):
            if sentence.read_mask is None:
                raise DataError(f"{told_pair(sentence)}: its masks are not public, so it cannot be scored here")
            true = sentence.read_mask(index)
            for row in range(count):
                found = indexed == row + 1
                regions[row, column] += region_similarity(found, true)
                boundaries[row, column] += contour_accuracy(found, true)
    return regions / len(sentences[0]), boundaries / len(sentences[0])
