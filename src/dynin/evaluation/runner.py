"""Run a model over held-out examples and score it.

Enters: a model, a seed, a limit. Leaves: scores by row of the suite, the report on disk after every row. Does not know
what a score means; that is the suite's.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from torch import Tensor

from dynin.config import suggest
from dynin.data.example import Example
from dynin.decoding.policy import DecodingPolicy
from dynin.decoding.remask import LowConfidenceRemask, RemaskRule, VerifyRemask
from dynin.errors import RequestError
from dynin.evaluation import report
from dynin.evaluation.report import Score
from dynin.evaluation.suite import SUITE, Row
from dynin.media.image import from_pil, to_pil
from dynin.pipeline.dynin import Dynin
from dynin.pipeline.presets import PRESET_NAMES
from dynin.pipeline.request import Request
from dynin.pipeline.result import Result
from dynin.types import Modality

Remask = Literal["policy", "none", "confidence", "verify"]
RULES: Mapping[str, RemaskRule | None] = {
    "none": None,
    "confidence": LowConfidenceRemask(),
    "verify": VerifyRemask(),
}
BATCH_ROWS = 25
"""Requests decoded together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What to evaluate."""

    seed: int
    """Of the held-out world; a fresh one gives examples that nothing has seen."""
    limit: int = 200
    """Examples of each row."""
    rows: Sequence[str] = tuple(SUITE)
    steps: int | None = None
    guidance: float | None = None
    preset: str | None = None
    """exact, balanced or fast; None takes what `generate` takes, as in `Request`."""
    remask: Remask = "policy"
    """Which rule hides committed places again, at the same number of denoiser calls: "policy" keeps the model's own."""

    def __post_init__(self) -> None:
        """Check the names and the limit."""
        unknown = sorted(set(self.rows) - set(SUITE))
        if unknown:
            raise RequestError(f"unknown figure {unknown[0]!r}{suggest(unknown[0], SUITE)}")
        if self.preset is not None and self.preset not in PRESET_NAMES:
            raise RequestError(f"unknown preset {self.preset!r}{suggest(self.preset, PRESET_NAMES)}")
        if self.limit < 1:
            raise RequestError(f"limit is {self.limit}; give at least 1 example a task")


@runtime_checkable
class Fulfil(Protocol):
    """Makes what some examples of a row ask for; `num_done` of the row were made before."""

    def __call__(
        self, model: Dynin, examples: Sequence[Example], wanted: Wanted, *, num_done: int, size_px: int | None
    ) -> list[Result]:
        """One result an example, in their order."""
        ...


def at_once(
    model: Dynin, examples: Sequence[Example], wanted: Wanted, *, num_done: int, size_px: int | None
) -> list[Result]:
    """One request an example; its seed follows from the example's number in the row, not from its group."""
    requests = [
        Request.to_fulfil(
            example.condition,
            "+".join(example.target),
            seed=wanted.seed + number,
            steps=wanted.steps,
            guidance=wanted.guidance,
            preset=wanted.preset,
            size=size_px,
        )
        for number, example in enumerate(examples, start=num_done)
    ]
    return model.run_together(requests)


def evaluate(
    model: Dynin,
    wanted: Wanted,
    output: Path | None = None,
    *,
    about: Mapping[str, object] | None = None,
    progress: Callable[[str, int, int], None] = lambda row, done, total: None,
    fulfil: Fulfil = at_once,
) -> dict[str, Score]:
    """Score every wanted row.

    Args:
        fulfil: How examples are made; `two_step` has another way for some of them.
        output: Where the report is written, again after every row, so that nothing already measured is lost.
        about: Facts to be kept with the scores.
        progress: Called with a row's name, how many of its examples are done, and how many there are.
    """
    require_tools(wanted.rows)
    model = with_remask(model, wanted.remask)
    scores: dict[str, Score] = {}
    for name in wanted.rows:
        row = SUITE[name]
        pairs: list[tuple[Example, Result]] = []
        examples = list(held_out(row, wanted))
        for group in _groups(examples):
            made = fulfil(model, group, wanted, num_done=len(pairs), size_px=row.size_px)
            pairs += zip(group, made, strict=True)
            progress(name, len(pairs), len(examples))
        score = row.judge(pairs)
        beside = {**score.beside, **row.ceiling(pairs, partial(_retold, model))}
        beside["forwards"] = sum(result.num_forwards for _, result in pairs) / len(pairs)
        beside["tokens_per_forward"] = sum(result.num_tokens / result.num_forwards for _, result in pairs) / len(pairs)
        scores[name] = replace(score, beside=beside)
        if output is not None:
            settings = {
                name: getattr(wanted, name) for name in ("seed", "limit", "steps", "guidance", "preset", "remask")
            }
            report.write(output, scores, {**settings, **(about or {})})
    return scores


def require_tools(rows: Sequence[str]) -> None:
    """An error before anything is measured, if a program or package that one of the rows needs is missing."""
    for name in rows:
        SUITE[name].require_tools()


def _retold(model: Dynin, picture: Tensor) -> Tensor:
    """A picture through the model's tokenizer and an 8-bit file, as results are."""
    codes = model.tokenizers.encode(Modality.IMAGE, picture)
    made = model.tokenizers.decode(Modality.IMAGE, codes)  # type: ignore[arg-type]
    return from_pil(to_pil(made))  # type: ignore[arg-type]


def with_remask(model: Dynin, remask: Remask) -> Dynin:
    """The same model with another rule for hiding committed places again."""
    if remask == "policy":
        return model
    rule = RULES[remask]

    def changed(table: Mapping[str, DecodingPolicy]) -> dict[str, DecodingPolicy]:
        return {name: replace(policy, remask=rule) for name, policy in table.items()}

    tables = {preset: changed(table) for preset, table in model.presets.tables.items()}
    return replace(model, policies=changed(model.policies), presets=replace(model.presets, tables=tables))


def held_out(row: Row, wanted: Wanted) -> Iterator[Example]:
    """The first examples of the held-out world that count for a row."""
    world = row.world(wanted.seed)
    index, found = 0, 0
    while found < wanted.limit:
        example = world.example(row.task, index)
        index += 1
        if row.is_wanted(example):
            found += 1
            yield example


def _groups(examples: Sequence[Example]) -> Iterator[tuple[Example, ...]]:
    start = 0
    while start < len(examples):
        yield tuple(examples[start : start + BATCH_ROWS])
        start += BATCH_ROWS
