"""Scores of a dataset: by family and over all, with intervals, and differences between two sets of predictions.

Enters: scores of pairs. Leaves: rows of figures. Does not know masks or files.

Every figure is a sum over pairs of something, over a sum of something else, so one table of measures says all of them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from dynin.errors import DataError
from dynin.evaluation.segmentation.bootstrap import Interval, Statistic, draws, interval, ratio
from dynin.evaluation.segmentation.pair import PairScore

Part = Callable[[PairScore], tuple[float, float] | None]
"""What a pair adds above and below the line of a measure; None where it says nothing about it."""


def _mean_of(name: str, other: str | None = None) -> Part:
    """The mean over pairs of one field, or of the middle of two."""

    def part(pair: PairScore) -> tuple[float, float] | None:
        values = [getattr(pair, field) for field in (name, other) if field is not None]
        return None if any(value is None for value in values) else (sum(values) / len(values), 1.0)

    return part


MEASURES: Mapping[str, Part] = {
    "J&F": _mean_of("region", "boundary"),
    "J": _mean_of("region"),
    "F": _mean_of("boundary"),
    "J&F_visible": _mean_of("region_visible", "boundary_visible"),
    "J_visible": _mean_of("region_visible"),
    "F_visible": _mean_of("boundary_visible"),
    "gIoU": _mean_of("volume_iou"),
    "cIoU": lambda pair: (pair.intersection, pair.union),
    "no_target_accuracy": lambda pair: None if pair.has_target else (float(pair.is_empty), 1.0),
    "false_empty_rate": lambda pair: (float(pair.is_empty), 1.0) if pair.has_target else None,
    "absent_frames_accuracy": lambda pair: (pair.num_absent_empty, pair.num_frames - pair.num_visible),
    "A": _mean_of("accuracy"),
    "A_published": _mean_of("published_accuracy"),
    "R": _mean_of("robustness"),
    "R_published": _mean_of("published_robustness"),
}
"""By name, in the order of reports.

J, F and J&F are means over pairs of means over all frames; `_visible` leaves out frames in which nothing of the target
is to be seen, and pairs without such frames. gIoU is the mean over pairs of intersection over union, the frames of a
pair together; cIoU divides the sums over all pairs. Sentences without target are right where every frame is empty;
sentences with a target are falsely empty where every frame is. `_published` is as the published script computes it.
"""

ALL = "all"
MACRO = "macro"
OVERALL = "overall"
OVERALL_FAMILIES: Mapping[str, tuple[str, ...]] = {"revos": ("referring", "reasoning")}
"""Datasets whose overall figure is the plain mean of those of some families; sentences of others are left out of it."""

Row = Mapping[str, Interval]


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """What pairs scored together: rows by name, figures of a row by measure."""

    rows: Mapping[str, Row]
    num_pairs: Mapping[str, int]
    """Pairs of each row."""

    def to_dict(self) -> dict[str, object]:
        """The summary as plain values."""
        return {
            name: {"num_pairs": self.num_pairs[name], **{measure: value.to_dict() for measure, value in row.items()}}
            for name, row in self.rows.items()
        }


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Sums:
    """One measure by video and family."""

    above: Float[np.ndarray, "V G"]
    below: Float[np.ndarray, "V G"]

    def statistic(self, groups: Sequence[int]) -> Statistic:
        """The ratio over some families taken together."""
        above, below = self.above[:, groups].sum(axis=1), self.below[:, groups].sum(axis=1)
        return lambda weights: ratio(weights, above, below)

    def mean(self, groups: Sequence[int]) -> Statistic:
        """The plain mean of the families' ratios; a draw in which one of them has nothing to count says nothing."""
        parts = [self.statistic([group]) for group in groups if self.below[:, group].any()]
        return lambda weights: np.mean([part(weights) for part in parts], axis=0)

    def num_videos(self, groups: Sequence[int]) -> int:
        """Videos that have anything to count."""
        return int(np.count_nonzero(self.below[:, groups].any(axis=1)))


def summarise(pairs: Sequence[PairScore], generator: np.random.Generator, *, overall: tuple[str, ...] = ()) -> Summary:
    """Rows "all", one for each family in the order of their names, "macro", and "overall" where families are named.

    Measures that nothing in a row speaks of are left out of it.

    Args:
        overall: Families whose plain mean is the dataset's overall figure, such as `OVERALL_FAMILIES["revos"]`.
    Raises:
        DataError: If there is no pair, a pair occurs twice, or a family named in `overall` is not there.
    """
    _require_unique(pairs)
    families = sorted({pair.family for pair in pairs})
    missing = sorted(set(overall) - set(families))
    if missing:
        raise DataError(
            f"no sentence of family {missing[0]!r}, only {', '.join(families)}; the overall figure is the mean of "
            f"{' and '.join(overall)}: score all of them"
        )
    videos = sorted({pair.video for pair in pairs})
    weights = draws(len(videos), generator)
    groups: dict[str, tuple[list[int], bool]] = {ALL: (list(range(len(families))), False)}
    groups.update({name: ([index], False) for index, name in enumerate(families)})
    groups[MACRO] = (list(range(len(families))), True)
    if overall:
        groups[OVERALL] = ([families.index(name) for name in overall], True)
    rows: dict[str, dict[str, Interval]] = {name: {} for name in groups}
    for measure, part in MEASURES.items():
        sums = _sums(pairs, part, videos, families)
        for name, (members, is_mean) in groups.items():
            if sums.below[:, members].any():
                statistic = sums.mean(members) if is_mean else sums.statistic(members)
                rows[name][measure] = interval(statistic, weights, sums.num_videos(members))
    counts = {
        name: sum(families.index(pair.family) in members for pair in pairs) for name, (members, _) in groups.items()
    }
    return Summary(rows=rows, num_pairs=counts)


@dataclass(frozen=True, kw_only=True, slots=True)
class Term:
    """One part of a contrast: the runs of a setting, one sequence of pairs for each seed."""

    runs: Sequence[Sequence[PairScore]]
    weight: float = 1.0
    """What it counts: 1 and -1 for a difference."""
    keep: Callable[[PairScore], bool] = lambda pair: True
    """Which of its pairs count, such as those of some families."""


def contrast(terms: Sequence[Term], generator: np.random.Generator, measure: str = "J&F_visible") -> Interval:
    """A weighted sum of a measure over settings scored on the same pairs, each the mean of its runs.

    One term of weight 1 is a figure, two of weights 1 and -1 are a paired difference, four are a difference of
    differences. Videos are drawn, the same for all terms; runs are not, since a few seeds are too few to draw from.

    Raises:
        DataError: If there is no run, or two of them do not speak of the same pairs.
    """
    runs = [run for term in terms for run in term.runs]
    for run in runs:
        _require_unique(run)
        apart = sorted({pair.key for pair in run} ^ {pair.key for pair in runs[0]})
        if apart:
            raise DataError(
                f"{len(apart)} pairs were scored in one run and not in another, the first video {apart[0][0]!r}, "
                f"sentence {apart[0][1]!r}; compare runs on the same examples"
            )
    if not all(term.runs for term in terms) or not terms:
        raise DataError("a setting has no run; score at least one seed of each")
    videos = sorted({pair.video for pair in runs[0]})
    parts: list[tuple[float, Statistic]] = []
    counts: list[int] = []
    for term in terms:
        for run in term.runs:
            sums = _sums([pair for pair in run if term.keep(pair)], MEASURES[measure], videos, None)
            parts.append((term.weight / len(term.runs), sums.statistic([0])))
            counts.append(sums.num_videos([0]))

    def statistic(weights: Float[np.ndarray, "R V"]) -> Float[np.ndarray, "R"]:
        return np.sum([weight * part(weights) for weight, part in parts], axis=0)

    return interval(statistic, draws(len(videos), generator), min(counts))


def _sums(pairs: Iterable[PairScore], part: Part, videos: Sequence[str], families: Sequence[str] | None) -> _Sums:
    """A measure's sums by video and family; by video alone where no families are given."""
    rows = {video: index for index, video in enumerate(videos)}
    above = np.zeros((len(videos), 1 if families is None else len(families)))
    below = np.zeros_like(above)
    for pair in pairs:
        added = part(pair)
        if added is not None:
            place = rows[pair.video], 0 if families is None else families.index(pair.family)
            above[place] += added[0]
            below[place] += added[1]
    return _Sums(above=above, below=below)


def _require_unique(pairs: Sequence[PairScore]) -> None:
    """DataError for no pair or one that occurs twice."""
    if not pairs:
        raise DataError("no pair of a video and a sentence was scored; check the dataset, its split and the families")
    seen: set[tuple[str, str]] = set()
    for pair in pairs:
        if pair.key in seen:
            raise DataError(f"video {pair.video!r}, sentence {pair.sentence_id!r} was scored twice; score it once")
        seen.add(pair.key)
