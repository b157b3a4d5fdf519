"""The crossed tasks done by way of text: what hears or sees writes, and what draws or speaks reads that.

Enters: a model and examples of the crossed rows of the suite. Leaves: results for the judges of
the suite, of the same examples and from the same seeds. Does not know judges, reports or how a request is decoded.

    s2i, s2v    s2t, then t2i or t2v from what was written down
    i2s, v2s    i2t or v2t with the task's own question, then t2s of the description
    s2s         s2t, then t2t with its steps, then t2s of the question's words and the number
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from dynin.config import suggest
from dynin.data.emoji_world import problem, wording
from dynin.data.example import Example
from dynin.errors import RequestError
from dynin.evaluation.runner import Wanted
from dynin.pipeline.dynin import Dynin
from dynin.pipeline.request import Request
from dynin.pipeline.result import Result
from dynin.types import Modality

NOTHING = "nothing"
"""Handed on where a step writes no word, so that its example counts as wrong and is not left out."""
_ASKED = "what is "


def as_written(texts: Sequence[str]) -> str:
    """The text of the step before, as it is."""
    return texts[-1]


def as_asked(texts: Sequence[str]) -> str:
    """A spoken question as t2t knows it, with its mark."""
    return f"{texts[-1].rstrip(' ?.')}?"


def as_answered(texts: Sequence[str]) -> str:
    """The sentence that tells a sum: "what is two plus three" and "5" become "two plus three is five".

    A number that has no words is told as it is written, and so is an answer that is no number.
    """
    asked, answered = texts[0], texts[-1]
    number = problem.final_answer(answered)
    told = answered if number is None or number > wording.MOST else wording.number_words(number)
    return f"{asked.removeprefix(_ASKED).rstrip(' ?.')} is {told}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One request of a pipeline."""

    to: Modality
    words: Callable[[Sequence[str]], str] = as_written
    """The prompt, from the texts of all steps before; the first step is given the example instead."""


_WRITE = Step(to=Modality.TEXT)
PIPELINES: Mapping[str, tuple[Step, ...]] = MappingProxyType(
    {
        "s2i": (_WRITE, Step(to=Modality.IMAGE)),
        "i2s": (_WRITE, Step(to=Modality.SPEECH)),
        "v2s": (_WRITE, Step(to=Modality.SPEECH)),
        "s2s": (
            _WRITE,
            Step(to=Modality.TEXT, words=as_asked),
            Step(to=Modality.SPEECH, words=as_answered),
        ),
        "s2v": (_WRITE, Step(to=Modality.VIDEO)),
    }
)
"""The steps by rows of the suite."""


def require_rows(rows: Sequence[str]) -> None:
    """RequestError for a row that is no crossed task."""
    for name in rows:
        if name not in PIPELINES:
            raise RequestError(
                f"unknown figure {name!r}{suggest(name, PIPELINES)}; two steps make one of {', '.join(PIPELINES)}"
            )


def fulfil(
    model: Dynin, examples: Sequence[Example], wanted: Wanted, *, num_done: int, size_px: int | None
) -> list[Result]:
    """Some examples of a row, step by step, for `runner.evaluate`; what it took is that of all steps together.

    Raises:
        RequestError: If a step's request cannot be fulfilled.
    """
    steps = PIPELINES[examples[0].task]
    texts: list[list[str]] = [[] for _ in examples]
    results: list[Result] = []
    for number, step in enumerate(steps):
        requests = [
            Request.to_fulfil(
                {Modality.TEXT: step.words(before)} if number else example.condition,
                step.to,
                seed=wanted.seed + place,
                steps=wanted.steps,
                guidance=wanted.guidance,
                preset=wanted.preset,
                size=size_px if step.to == Modality.IMAGE else None,
            )
            for place, (example, before) in enumerate(zip(examples, texts, strict=True), start=num_done)
        ]
        made = model.run_together(requests)
        for before, result in zip(texts, made, strict=True):
            before.append((result.text or "").strip() or NOTHING)
        results = [_together(*pair) for pair in zip(results, made, strict=True)] if results else made
    return results


def _together(before: Result, after: Result) -> Result:
    """The last result, with what all steps took."""
    return replace(
        after,
        num_forwards=before.num_forwards + after.num_forwards,
        num_tokens=before.num_tokens + after.num_tokens,
        num_columns=before.num_columns + after.num_columns,
        seconds=before.seconds + after.seconds,
    )
