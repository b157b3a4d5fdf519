"""Scores on the way from a base to what was trained from it: what is kept of the old, what is reached of the new.

Enters: models to merge, strengths, and how a model folder is scored. Leaves: scores of the inputs and of every merge,
the report on disk after each. Does not know how models are merged or judged; no merged model is kept.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import dynin
from dynin.errors import RequestError
from dynin.evaluation.report import Score
from dynin.media.files import replace_whole
from dynin.merging import merge as merging
from dynin.merging import recipe as recipes
from dynin.merging.merge import Prepared, Request

ERROR_RATE = "word error rate"
"""The metric of which less is better."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One model that was scored."""

    name: str
    """base, model 1 .., or merged."""
    strength: float | None
    """None for the inputs."""
    scores: Mapping[str, Score]

    def mean(self, rows: Sequence[str]) -> float | None:
        """The mean over rows, 1 is best: shares as they are, error rates as what is left of 1; None for no rows."""
        values = [
            max(0.0, 1 - self.scores[row].score) if self.scores[row].metric == ERROR_RATE else self.scores[row].score
            for row in rows
        ]
        return sum(values) / len(values) if values else None


def sweep(
    request: Request,
    strengths: Sequence[float],
    score: Callable[[Path], Mapping[str, Score]],
    output: Path,
    *,
    rows: Mapping[str, Sequence[str]],
    about: Mapping[str, object],
    progress: Callable[[str, int, int], None] = lambda name, number, total: None,
) -> list[Point]:
    """Score every input, then the merge of every strength; rules of the recipe that set a strength keep theirs.

    Args:
        score: Scores by row of the model in a folder.
        output: The report, written again after every model. Merges lie beside it while they are scored.
        rows: Rows by kind, "old" and "new"; their means are reported.
        about: Facts to be kept with the scores.
        progress: Called with a model's name, its number and how many there are.

    Raises:
        RequestError: If no strength is given, or one twice.
        CheckpointError, ConfigError: As in `merge`.
    """
    if not strengths or len(set(strengths)) != len(strengths):
        raise RequestError(f"strengths are {', '.join(map(str, strengths)) or 'missing'}; give each one once")
    made = [recipes.changed(request.recipe, strength=(strength,)) for strength in strengths]
    prepared = merging.prepare(request)
    total = len(prepared.sources) + len(made)
    points: list[Point] = []

    def add(name: str, strength: float | None, folder: Path) -> None:
        points.append(Point(name=name, strength=strength, scores=score(folder)))
        _write(output, request, prepared, points, rows, about)
        progress(name if strength is None else f"strength {strength:g}", len(points), total)

    for number, source in enumerate(prepared.sources):
        add("base" if number == 0 else f"model {number}", None, source.folder)
    with tempfile.TemporaryDirectory(prefix=".merge-sweep-", dir=output.resolve().parent) as scratch:
        for strength, recipe in zip(strengths, made, strict=True):
            folder = Path(scratch) / "model"
            merging.write(prepared, recipe, folder)
            add("merged", strength, folder)
            shutil.rmtree(folder)
    return points


def table(points: Sequence[Point], rows: Mapping[str, Sequence[str]]) -> str:
    """The points as lines of a plain table: scores by row, then the mean of each kind (1 is best)."""
    names = [row for kind in rows.values() for row in kind]
    kinds = [kind for kind, of_kind in rows.items() if of_kind]
    heads = ["model", "strength", *names, *(f"mean {kind}" for kind in kinds)]
    lines = [heads]
    for point in points:
        means = [point.mean(rows[kind]) for kind in kinds]
        shown = [point.scores[name].score for name in names]
        strength = "" if point.strength is None else f"{point.strength:g}"
        lines.append([point.name, strength, *(f"{value:.3f}" for value in [*shown, *means] if value is not None)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    return "\n".join(
        "  ".join(cell.ljust(width) if column < 1 else cell.rjust(width) for column, (cell, width) in enumerate(pairs))
        for pairs in (list(zip(line, widths, strict=True)) for line in lines)
    )


def _write(
    output: Path,
    request: Request,
    prepared: Prepared,
    points: Sequence[Point],
    rows: Mapping[str, Sequence[str]],
    about: Mapping[str, object],
) -> None:
    content = {
        "code": f"dynin {dynin.__version__}",
        "recipe": recipes.to_dict(request.recipe),
        "inputs": [
            {"given": source.given, "sha256": dict(sums)}
            for source, sums in zip(prepared.sources, prepared.sums, strict=True)
        ],
        "rows": {kind: list(of_kind) for kind, of_kind in rows.items()},
        "about": dict(about),
        "points": [
            {
                "model": point.name,
                "strength": point.strength,
                **{f"mean_{kind}": point.mean(of_kind) for kind, of_kind in rows.items()},
                "tasks": {name: score.to_dict() for name, score in point.scores.items()},
            }
            for point in points
        ],
    }
    with replace_whole(output) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
