"""All runs of an ablation and their tables; several processes may share the work.

Enters: a source, weights by name and seed, and a callable that makes a predictor of them. Leaves: files of runs and
tables below one folder. Does not know how a model is loaded or asked.

    <output>/runs/<setting>/seed-<n>.jsonl      every pair that was scored, resumable
    <output>/runs/.<weights>-seed-<n>.lock      held by the process that is at work on these weights
    <output>/<table>.json, <table>.md           written when the last run of the table is done

Settings that ask the same weights are one piece of work: their runs grow side by side, so that what they share is
computed once. A process takes a piece that no other holds; the one that ends last writes the tables.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool

from dynin.data.referring.example import ReferringExample
from dynin.data.referring.source import ReferringSource
from dynin.errors import DataError
from dynin.evaluation.segmentation import floors, runs, tables
from dynin.evaluation.segmentation.ablation import COMPLETE, TABLES, Change, Plan, Setting
from dynin.evaluation.segmentation.clip_score import ClipTruth
from dynin.evaluation.segmentation.floors import AnotherObject, Masks, Predict, Tracks
from dynin.evaluation.segmentation.runs import Run, RunFile

FLOOR_SEED = 0
"""Floors are drawn once: they have no weights that could differ."""
NUM_TIMED = 4
"""Videos of a run of which one sentence is asked for by itself, as a user would, to tell what a frame takes."""
SimpleFloors: Mapping[str, Predict] = {
    "all_empty": floors.all_empty,
    "all_foreground": floors.all_foreground,
    "truth": floors.truth,
}

Told = Callable[[str, int, int, int], None]
"""Called with the name of weights, or "floors", a seed, the number of videos done, and of all."""


@runtime_checkable
class Asked(Protocol):
    """Weights that are loaded."""

    def together(
        self, videos: Sequence[Sequence[ReferringExample]], settings: Sequence[Setting]
    ) -> Iterator[list[list[Bool[np.ndarray, "T Y X"]]]]:
        """For one setting after another the masks of every sentence of every video; all have the same change."""
        ...

    def alone(self, example: ReferringExample, setting: Setting) -> Masks:
        """The masks of one example, with nothing shared."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Study:
    """What is asked, of whom."""

    source: ReferringSource
    weights: Mapping[str, Mapping[int, str]]
    """By name and seed: a fingerprint of the weights, by which results of others are told apart."""
    predictor: Callable[[Setting, int], Predict] | None = None
    """Loads the weights of a setting and seed, and asks them as the setting says, one example at a time."""
    panel: Callable[[str, int], Asked] | None = None
    """Loads the weights of a name and seed, to be asked about several videos at once; it goes before `predictor`."""
    num_together: int = 8
    """Videos asked about at once."""
    about: Mapping[str, object] = field(default_factory=dict)
    """Facts of the data and the machine: plain values."""
    tracks: Tracks | None = None
    """Of all things of a video, where the source knows them."""
    beside: Mapping[str, str] = field(default_factory=dict)
    """By setting: fingerprints of what its numbers follow from beside the weights, such as another model."""
    skipped: frozenset[str] = frozenset()
    """Names of settings that cannot be run, such as one that needs another model."""
    seed: int = 0
    """Of shuffling, of the objects drawn for the floor, and of resampling."""

    def seeds(self, setting: Setting) -> list[int]:
        """The seeds that a setting is run with; of a floor, one."""
        if setting.name in self.skipped:
            return []
        return [FLOOR_SEED] if setting.floor else sorted(self.weights.get(setting.model, {}))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Piece:
    """Runs that ask the same weights, or all floors."""

    model: str
    seed: int
    settings: tuple[Setting, ...]

    @property
    def name(self) -> str:
        """For people."""
        return self.model or "floors"


def run(
    plan: Plan, study: Study, output: Path, progress: Told = lambda weights, seed, done, total: None
) -> dict[str, Sequence[Run]]:
    """Score what is neither scored yet nor at work elsewhere, write the tables whose runs are done; returns the runs.

    Settings whose weights are missing are left out, and the tables name them.

    Raises:
        DataError: If there are no weights of the complete model, or the folder holds results of something else.
    """
    if not study.weights.get(COMPLETE.model):
        known = sorted(name for name, seeds in study.weights.items() if seeds)
        raise DataError(
            f"no weights of {COMPLETE.model!r}, only of {', '.join(known) or 'nothing'}; every table "
            "needs the complete model"
        )
    settings = {setting.name: setting for name in plan.tables for setting in plan.settings(name)}
    for piece in _pieces(list(settings.values()), study):
        with _claimed(output / "runs" / f".{piece.name}-seed-{piece.seed}.lock") as is_mine:
            if is_mine:
                _score(piece, study, output, progress)
    results = {name: _finished(setting, study, output) for name, setting in settings.items()}
    for name in plan.tables:
        if all(results[setting.name] is not None for setting in plan.settings(name)):
            known_runs = {key: found for key, found in results.items() if found is not None}
            tables.write(output, tables.tabulate(TABLES[name], known_runs, study.seed, study.about))
    return {name: found for name, found in results.items() if found}


def unfinished(plan: Plan, study: Study, output: Path) -> list[str]:
    """Tables of a plan that wait for runs on which other processes are at work."""
    return [
        name
        for name in plan.tables
        if any(_finished(setting, study, output) is None for setting in plan.settings(name))
    ]


def _pieces(settings: Sequence[Setting], study: Study) -> list[_Piece]:
    """The whole work, the largest pieces first."""
    found: dict[tuple[str, int], list[Setting]] = {}
    for setting in settings:
        for seed in study.seeds(setting):
            found.setdefault(("" if setting.floor else setting.model, seed), []).append(setting)
    pieces = [_Piece(model=model, seed=seed, settings=tuple(asked)) for (model, seed), asked in found.items()]
    return sorted(pieces, key=lambda piece: -len(piece.settings))


def _finished(setting: Setting, study: Study, output: Path) -> Sequence[Run] | None:
    """The runs of a setting with every seed; None while one of them is not done."""
    found = []
    for seed in study.seeds(setting):
        done = runs.read_run(_place(output, setting, seed), seed, len(study.source))
        if done is None:
            return None
        found.append(done)
    return found


def _place(output: Path, setting: Setting, seed: int) -> Path:
    return output / "runs" / setting.name / f"seed-{seed}.jsonl"


def _score(piece: _Piece, study: Study, output: Path, progress: Told) -> None:
    """The runs of a piece; what is scored already is not asked again, and no weights are loaded for it."""
    total = len(study.source)
    if not piece.model or study.panel is None:
        for setting in piece.settings:
            predict, has = _predictor(setting, piece.seed, study)
            source = _changed(study, setting.change)
            place = _place(output, setting, piece.seed)
            runs.score_run(source, predict, place, _about(setting, piece.seed, study), has=has)
        progress(piece.name, piece.seed, total, total)
        return
    files = {
        setting: RunFile(_place(output, setting, piece.seed), _about(setting, piece.seed, study))
        for setting in piece.settings
    }
    sources: dict[Change, ReferringSource] = {}
    asked: Asked | None = None
    while (first := min(file.num_videos for file in files.values())) < total:
        progress(piece.name, piece.seed, first, total)
        asked = asked or study.panel(piece.model, piece.seed)
        block = range(first, min(first + study.num_together, total))
        for change in dict.fromkeys(setting.change for setting in piece.settings):
            todo = [setting for setting in files if setting.change == change and files[setting].num_videos < block.stop]
            if todo:
                source = sources.setdefault(change, _changed(study, change))
                _score_block(source, block, asked, {setting: files[setting] for setting in todo})
    progress(piece.name, piece.seed, total, total)


def _score_block(source: ReferringSource, block: range, asked: Asked, files: Mapping[Setting, RunFile]) -> None:
    """Some videos in a row, by every setting whose file lacks any of them."""
    videos = [source.examples(index) for index in block]
    truths = [[ClipTruth.read(example) for example in examples] for examples in videos]
    for (setting, file), found in zip(files.items(), asked.together(videos, list(files)), strict=True):
        for index, examples, known, masks in zip(block, videos, truths, found, strict=True):
            if index < file.num_videos:
                continue
            seconds, timed = 0.0, examples[:1] if index < NUM_TIMED else []
            for example in timed:
                start = time.perf_counter()
                list(asked.alone(example, setting))
                seconds += time.perf_counter() - start
            pairs = [truth.score(each) for truth, each in zip(known, masks, strict=True)]
            file.add(pairs, seconds=seconds, num_timed=sum(map(len, timed)))


def _about(setting: Setting, seed: int, study: Study) -> dict[str, object]:
    """What the numbers of a run follow from."""
    fingerprint = "" if setting.floor else study.weights[setting.model][seed]
    about = {**study.about, **setting.options(), "weights": fingerprint, "seed": seed, "study_seed": study.seed}
    if setting.name in study.beside:
        about["beside"] = study.beside[setting.name]
    return about


def _changed(study: Study, change: Change) -> ReferringSource:
    """The source as a setting asks about it."""
    if change == "sentences":
        return floors.shuffle_sentences(study.source, study.seed)
    return floors.shuffle_frames(study.source, study.seed) if change == "frames" else study.source


def _predictor(setting: Setting, seed: int, study: Study) -> tuple[Predict, Callable[[ReferringExample], bool]]:
    """What answers one example after another, and whether it can."""
    if setting.floor == "another_object":
        other = AnotherObject.of(study.source, study.seed, study.tracks)
        return other, other.has
    if setting.floor is not None:
        return SimpleFloors[setting.floor], lambda example: True
    if study.predictor is None:
        raise ValueError("a study needs a predictor or a panel")
    make = study.predictor
    return _WhenAsked(lambda: make(setting, seed)), lambda example: True


@contextmanager
def _claimed(place: Path) -> Iterator[bool]:
    """Whether a piece of work is ours; nobody else's until the block or the process ends.

    Where the system has no such locks, every piece is.
    """
    try:
        fcntl = import_module("fcntl")
    except ImportError:
        yield True
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("a", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


class _WhenAsked:
    """A predictor that is loaded when the first example comes."""

    def __init__(self, load: Callable[[], Predict]) -> None:
        """Nothing is loaded yet."""
        self._load = load
        self._predict: Predict | None = None

    def __call__(self, example: ReferringExample) -> floors.Masks:
        """The masks of an example."""
        if self._predict is None:
            self._predict = self._load()
        return self._predict(example)
