"""All runs of an ablation, one after another, and their tables.

Enters: a source, weights by name and seed, and a callable that makes a predictor of them. Leaves: files of runs and
tables below one folder. Does not know how a model is loaded or asked.

    <output>/runs/<setting>/seed-<n>.jsonl      every pair that was scored, resumable
    <output>/<table>.json, <table>.md           written when the last run of the table is done
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dynin.data.referring.example import ReferringExample
from dynin.data.referring.source import ReferringSource
from dynin.errors import DataError
from dynin.evaluation.segmentation import floors, runs, tables
from dynin.evaluation.segmentation.ablation import COMPLETE, TABLES, Plan, Setting
from dynin.evaluation.segmentation.floors import AnotherObject, Predict, Tracks
from dynin.evaluation.segmentation.runs import Run

FLOOR_SEED = 0
"""Floors are drawn once: they have no weights that could differ."""
SimpleFloors: Mapping[str, Predict] = {
    "all_empty": floors.all_empty,
    "all_foreground": floors.all_foreground,
    "truth": floors.truth,
}

Told = Callable[[Setting, int, int, int], None]
"""Called with a setting, a seed, the number of videos done, and of all."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Study:
    """What is asked, of whom."""

    source: ReferringSource
    weights: Mapping[str, Mapping[int, str]]
    """By name and seed: a fingerprint of the weights, by which results of others are told apart."""
    predictor: Callable[[Setting, int], Predict]
    """Loads the weights of a setting and seed, and asks them as the setting says."""
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


def run(
    plan: Plan, study: Study, output: Path, progress: Told = lambda setting, seed, done, total: None
) -> dict[str, Sequence[Run]]:
    """Score what is not scored yet, and write the tables of a plan; returns the runs by setting.

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
    results: dict[str, Sequence[Run]] = {}
    for name in plan.tables:
        for setting in plan.settings(name):
            if setting.name not in results:
                results[setting.name] = _runs_of(setting, study, output, progress)
        tables.write(output, tables.tabulate(TABLES[name], results, study.seed, study.about))
    return {name: found for name, found in results.items() if found}


def _runs_of(setting: Setting, study: Study, output: Path, progress: Told) -> Sequence[Run]:
    """The runs of a setting with every seed of its weights; of a floor, one, since it has none that could differ."""
    if setting.name in study.skipped:
        return ()
    seeds = (FLOOR_SEED,) if setting.floor else sorted(study.weights.get(setting.model, {}))
    found = []
    for seed in seeds:
        place = output / "runs" / setting.name / f"seed-{seed}.jsonl"
        _score(setting, seed, study, place, progress)
        found.append(runs.read_run(place, seed))
    return [done for done in found if done is not None]


def _score(setting: Setting, seed: int, study: Study, place: Path, progress: Told) -> None:
    """One run; what is scored already is not asked again, and no weights are loaded for it."""
    total = len(study.source)
    fingerprint = "" if setting.floor else study.weights[setting.model][seed]
    about = {**study.about, **setting.options(), "weights": fingerprint, "seed": seed, "study_seed": study.seed}
    if setting.name in study.beside:
        about["beside"] = study.beside[setting.name]
    has: Callable[[ReferringExample], bool] = lambda example: True  # noqa: E731
    if setting.floor == "another_object":
        other = AnotherObject.of(study.source, study.seed, study.tracks)
        predict: Predict = other
        has = other.has
    elif setting.floor is not None:
        predict = SimpleFloors[setting.floor]
    else:
        predict = _WhenAsked(lambda: study.predictor(setting, seed))
    source = study.source
    if setting.change == "sentences":
        source = floors.shuffle_sentences(source, study.seed)
    elif setting.change == "frames":
        source = floors.shuffle_frames(source, study.seed)
    progress(setting, seed, 0, total)
    runs.score_run(source, predict, place, about, has=has, progress=lambda done, of: progress(setting, seed, done, of))


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
