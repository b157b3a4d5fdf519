"""Scores with their uncertainty, as a file and as a table.

Enters: right or wrong per example, or word errors. Leaves: `Score` values, a JSON report, a printed table. Does not
know tasks or models.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dynin.media.files import replace_whole

Z95 = 1.959964


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """One figure of one task."""

    metric: str
    score: float
    """A fraction; word error rates too."""
    ci95: tuple[float, float]
    n: int
    beside: Mapping[str, float] = field(default_factory=dict)
    """Figures that help to read the score: floors, ceilings, parts."""

    def to_dict(self) -> dict[str, object]:
        """The score as plain values."""
        return {
            "metric": self.metric,
            "score": round(self.score, 4),
            "ci95": [round(self.ci95[0], 4), round(self.ci95[1], 4)],
            "n": self.n,
            **{name: round(value, 4) for name, value in self.beside.items()},
        }


def share(metric: str, is_right: Sequence[bool], beside: Mapping[str, float] | None = None) -> Score:
    """The share of right answers with the Wilson interval.

    Source: Wilson, J. Am. Stat. Assoc. 22 (1927).
    """
    n = len(is_right)
    if n == 0:
        raise ValueError(f"metric {metric!r} has no example; raise the limit")
    rate = sum(is_right) / n
    centre = (rate + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    reach = Z95 * math.sqrt(rate * (1 - rate) / n + Z95**2 / (4 * n * n)) / (1 + Z95**2 / n)
    ci95 = (max(0.0, centre - reach), min(1.0, centre + reach))
    return Score(metric=metric, score=rate, ci95=ci95, n=n, beside=beside or {})


def write(path: Path, scores: Mapping[str, Score], about: Mapping[str, object]) -> None:
    """Write the report, whole or not at all: `{"tasks": {name: score}, "about": ...}`."""
    content = {"tasks": {name: score.to_dict() for name, score in scores.items()}, "about": dict(about)}
    with replace_whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def table(scores: Mapping[str, Score]) -> str:
    """The scores as lines of a plain table."""
    width = max([12, *map(len, scores)])
    lines = [f"{'task':{width}} {'score':>7}  {'95% interval':15} {'n':>5}  metric"]
    for name, score in scores.items():
        low, high = score.ci95
        beside = ", ".join(f"{key} {value:.3g}" for key, value in score.beside.items())
        lines.append(
            f"{name:{width}} {score.score:7.3f}  {low:.3f} to {high:.3f}  {score.n:5d}  {score.metric}"
            + (f" ({beside})" if beside else "")
        )
    return "\n".join(lines)
