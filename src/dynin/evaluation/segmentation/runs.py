"""One run of an ablation: every pair of a source scored with one setting and seed, video by video, resumable.

Enters: a source and a callable from an example to masks. Leaves: `Run`, and a file of JSON lines, the first of which
says what the numbers follow from. Does not know settings or models.

A line is added when its video is done. A run that was stopped goes on with the next video; a line that was cut short is
scored again; a file of other weights, data or settings is refused, never mixed.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from dynin.data.referring.example import ReferringExample
from dynin.data.referring.source import ReferringSource
from dynin.errors import DataError
from dynin.evaluation.segmentation.floors import Masks, Predict
from dynin.evaluation.segmentation.pair import PairScore, score_pair


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What one setting scored with one seed."""

    seed: int
    pairs: list[PairScore]
    seconds_per_frame: float
    """Wall time that masks took where they were asked for one sentence at a time, reading frames included, scoring them
    excluded; 0 where none were."""


def score_run(
    source: ReferringSource,
    predict: Predict,
    place: Path,
    about: Mapping[str, object],
    *,
    has: Callable[[ReferringExample], bool] = lambda example: True,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[PairScore]:
    """Score every pair that is not scored in a file yet; returns all of them.

    Args:
        about: What the numbers follow from: setting, weights, data. Plain values of JSON.
        has: Which pairs can be predicted at all.
        progress: Called with the number of videos done, and of all.
    Raises:
        DataError: If the file holds numbers that follow from something else.
    """
    file = RunFile(place, about)
    for index in range(file.num_videos, len(source)):
        pairs, seconds = [], 0.0
        for example in source.examples(index):
            if has(example):
                clock = Clock(predict(example))
                pairs.append(score_pair(example, clock))
                seconds += clock.seconds
        file.add(pairs, seconds=seconds, num_timed=sum(pair.num_frames for pair in pairs))
        progress(index + 1, len(source))
    return file.pairs


class RunFile:
    """The file of a run, to which video after video is added; errors as in `score_run`."""

    def __init__(self, place: Path, about: Mapping[str, object]) -> None:
        """Keep what the file holds already."""
        self.place = place
        self._lines = _kept_lines(place, about)

    @property
    def num_videos(self) -> int:
        """How many are scored."""
        return len(self._lines)

    @property
    def pairs(self) -> list[PairScore]:
        """All that are scored."""
        return [_pair(values) for line in self._lines for values in line["pairs"]]

    def add(self, pairs: Sequence[PairScore], *, seconds: float = 0.0, num_timed: int = 0) -> None:
        """Add the next video.

        Args:
            seconds: What the masks of some frames took.
            num_timed: How many frames these are.
        """
        line = {
            "index": len(self._lines),
            "seconds": seconds,
            "timed": num_timed,
            "pairs": [asdict(pair) for pair in pairs],
        }
        with self.place.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
        self._lines.append(line)


def read_run(place: Path, seed: int, num_videos: int | None = None) -> Run | None:
    """A run as its file tells it; None where there is none, or where it stops before the last video.

    Args:
        num_videos: How many it must have; any number where left out.
    Raises:
        DataError: If the file is no run.
    """
    if not place.is_file():
        return None
    _, lines = _read(place)
    if not lines or (num_videos is not None and len(lines) < num_videos):
        return None
    pairs = [_pair(values) for line in lines for values in line["pairs"]]
    frames = sum(int(line.get("timed", 0)) for line in lines)
    seconds = sum(float(line["seconds"]) for line in lines)
    return Run(seed=seed, pairs=pairs, seconds_per_frame=seconds / max(frames, 1))


class Clock:
    """Masks, and how long they took to come."""

    def __init__(self, masks: Masks) -> None:
        """Nothing has been taken yet."""
        self._masks = masks
        self.seconds = 0.0

    def __iter__(self) -> Iterator[Bool[np.ndarray, "Y X"]]:
        """Hand on the masks."""
        start = time.perf_counter()
        for mask in self._masks:
            self.seconds += time.perf_counter() - start
            yield mask
            start = time.perf_counter()
        self.seconds += time.perf_counter() - start


def _kept_lines(place: Path, about: Mapping[str, object]) -> list[dict]:
    """What a file holds already; the file ends after a whole line then."""
    head = json.dumps({"about": about}, sort_keys=True)
    if not place.is_file() or not place.stat().st_size:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(head + "\n", encoding="utf-8")
        return []
    found, lines = _read(place)
    if json.dumps({"about": found}, sort_keys=True) != head:
        changed = sorted(name for name in {*found, *about} if found.get(name) != about.get(name))
        raise DataError(
            f"{place}: holds numbers of another {', '.join(changed)} than asked for; choose another folder for the "
            "results, or delete this file"
        )
    whole = [head, *(json.dumps(line) for line in lines)]
    place.write_text("\n".join(whole) + "\n", encoding="utf-8")
    return lines


def _read(place: Path) -> tuple[dict, list[dict]]:
    """The first line's facts and the lines of videos; a last line that was cut short is left out."""
    texts = place.read_text(encoding="utf-8").split("\n")
    values = []
    for number, text in enumerate(texts[:-1]):  # what follows the last line break is nothing, or cut short
        try:
            values.append(json.loads(text))
        except ValueError as error:
            raise DataError(f"{place}, line {number + 1}: no JSON; delete the file and score again") from error
    is_run = (
        values and "about" in values[0] and [line.get("index") for line in values[1:]] == list(range(len(values) - 1))
    )
    if not is_run:
        raise DataError(f"{place}: is no file of scored videos; delete it, or choose another folder")
    return values[0]["about"], values[1:]


def _pair(values: Mapping[str, object]) -> PairScore:
    """A pair as its line tells it."""
    names = {field.name for field in fields(PairScore)}
    if set(values) != names:
        raise DataError(f"a scored pair has the fields {sorted(values)}, expected {sorted(names)}; score again")
    return PairScore(**values)  # type: ignore[arg-type]
