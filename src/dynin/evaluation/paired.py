"""Two ways to decode, compared example by example on the same examples with the same seeds.

Enters: what two ways made of each example. Leaves: points per example, and the difference with its interval. Does not
know policies.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dynin.data.example import Example
from dynin.evaluation.metrics.speech import normalise_words, word_distance
from dynin.evaluation.report import Z95
from dynin.evaluation.suite import SUITE, heard
from dynin.pipeline.result import Result
from dynin.types import Modality


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one example came out."""

    points: float
    """1 or 0 for right or wrong; where words are counted, the words of the sentence less its word errors."""
    weight: float
    """1, or the words of the sentence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """The score of the second way less that of the first; scores are shares, 1 at best."""

    mean: float
    ci95: tuple[float, float]
    n: int

    def is_within(self, share: float) -> bool:
        """Whether the second way is not worse by so much, at 95% confidence."""
        return self.ci95[0] >= -share


def outcome(name: str, example: Example, result: Result) -> Outcome:
    """The points of one example of a row of the suite."""
    row = SUITE[name]
    if Modality.SPEECH in example.target:
        said, understood = heard(example, result, is_long=row.is_long)
        return _words(said, understood)
    score = row.judge([(example, result)])
    if score.metric == "word error rate":
        return _words(str(example.target[Modality.TEXT]), result.text or "")
    return Outcome(score.score, 1.0)


def score(outcomes: Sequence[Outcome]) -> float:
    """All points over all weights."""
    return sum(one.points for one in outcomes) / sum(one.weight for one in outcomes)


def difference(first: Sequence[Outcome], second: Sequence[Outcome]) -> Difference:
    """Compare two ways on the same examples, in the same order.

    The interval is widened as if one example of two more had come out differently, so that no difference among few
    examples is not taken for certainty.

    Raises:
        ValueError: If there is nothing to compare, or not the same examples.

    Source:
        Agresti and Min, Statistics in Medicine 24 (2005), for matched pairs of right and wrong; here with any points.
    """
    if len(first) != len(second) or not first or any(a.weight != b.weight for a, b in zip(first, second, strict=False)):
        raise ValueError(f"{len(first)} and {len(second)} outcomes are not those of the same examples")
    usual = sum(one.weight for one in first) / len(first)
    gains = [(after.points - before.points) / usual for before, after in zip(first, second, strict=True)]
    n, total = len(gains) + 2, sum(gains)
    spread = math.sqrt(sum(gain**2 for gain in gains) + 1 - total**2 / n) / n
    return Difference(mean=total / len(gains), ci95=(total / n - Z95 * spread, total / n + Z95 * spread), n=len(gains))


def _words(reference: str, hypothesis: str) -> Outcome:
    expected, made = normalise_words(reference).split(), normalise_words(hypothesis).split()
    return Outcome(float(len(expected) - word_distance(expected, made)), float(len(expected)))
