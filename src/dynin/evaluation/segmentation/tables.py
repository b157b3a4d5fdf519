"""Runs to tables: figures with intervals and seeds, verdicts on what was expected, as JSON and as Markdown.

Enters: runs by setting. Leaves: one JSON and one Markdown file for each table. Does not know how runs were made.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from dynin.evaluation.segmentation.ablation import (
    CLEAR_OF_FLOOR,
    COMPLETE,
    FLOORS,
    MARGIN,
    NEAR_FLOOR,
    Claim,
    Expectation,
    Subset,
    Table,
)
from dynin.evaluation.segmentation.bootstrap import Interval
from dynin.evaluation.segmentation.overall import Term, contrast
from dynin.evaluation.segmentation.pair import PairScore
from dynin.evaluation.segmentation.runs import Run
from dynin.media.files import replace_whole

Results = Mapping[str, Sequence[Run]]
"""Runs by the name of their setting, one for each seed."""

FIGURE = "J&F_visible"
COLUMNS = ("J_visible", "F_visible", "J&F", "no_target_accuracy", "false_empty_rate")
HEADS = {"no_target_accuracy": "no target right", "false_empty_rate": "falsely empty", "J&F": "J&F, all frames"}
NOT_RUN = "not run"
UNREADABLE = {
    "G1": "\nG1 fails: the complete model is too near to another object's true track to compare anything here.",
    "G2": "\nG2 fails: with shuffled sentences the complete model is not where another object's true track is.",
}
"""What a reader is told where a table may not be read."""


def tabulate(table: Table, results: Results, seed: int, about: Mapping[str, object]) -> dict[str, object]:
    """A table as plain values: rows, differences with verdicts, and whether the table may be read.

    Args:
        seed: Of the resampling; every interval draws anew from it, so that one does not depend on the others.
        about: Facts to be kept with the numbers: data, weights, machine.
    """
    rows = {
        setting.name: {"label": setting.label, **_row(results[setting.name], seed)}
        for setting in (*table.settings, *FLOORS)
        if results.get(setting.name)
    }
    names = [setting.name for setting in (*table.settings, *FLOORS)]
    return {
        "table": table.name,
        "title": table.title,
        "figure": FIGURE,
        "has_seconds": table.has_seconds,
        "rows": rows,
        "not_run": [name for name in dict.fromkeys(names) if name not in rows],
        "gates": _gates(results, seed),
        "expectations": [_judged(expectation, results, seed) for expectation in table.expectations],
        "differences": [
            _judged(Expectation(name=f"{ahead} - {behind}", ahead=ahead, behind=behind), results, seed)
            for ahead, behind in table.unclaimed
        ],
        "about": dict(about),
    }


def verdict(claim: Claim, found: Interval, by_seed: Sequence[float]) -> str:
    """What a difference shows, by the rules written down before the runs."""
    if math.isnan(found.low) or math.isnan(found.high):
        return "not shown"
    if claim == "not_worse":
        return "not worse" if found.low > -MARGIN else "not shown"
    if claim == "saturated":
        return "saturated" if found.high < MARGIN else "not shown"
    if found.low > 0 and all(value > 0 for value in by_seed):
        return "confirmed"
    return "reversed" if found.high < 0 and all(value < 0 for value in by_seed) else "not shown"


def write(folder: Path, values: Mapping[str, object]) -> tuple[Path, Path]:
    """Write a table as `<name>.json` and `<name>.md`, each whole or not at all."""
    places = folder / f"{values['table']}.json", folder / f"{values['table']}.md"
    for place, text in zip(places, (json.dumps(values, indent=2) + "\n", markdown(values)), strict=True):
        with replace_whole(place) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return places


def markdown(values: Mapping) -> str:
    """A table as Markdown, in points of 100."""
    families = sorted({name for row in values["rows"].values() for name in row["families"]})
    heads = ["setting", "J&F, target visible", "seeds", *(HEADS.get(name, name) for name in COLUMNS), *families]
    heads += ["s / frame"] if values["has_seconds"] else []
    lines = [f"### {values['table']}: {values['title']}", "", _line(heads), _line(["---"] * len(heads))]
    for row in values["rows"].values():
        cells = [row["label"], _told(row["figure"]), " ".join(_points(value) for value in row["by_seed"].values())]
        cells += [_points(row["measures"].get(name, {}).get("value")) for name in COLUMNS]
        cells += [_points(row["families"].get(name, {}).get("value")) for name in families]
        cells += [f"{row['seconds_per_frame']['mean']:.3f}"] if values["has_seconds"] else []
        lines.append(_line(cells))
    lines += ["", _line(["", "difference", "points", "seeds", "verdict"]), _line(["---"] * 5)]
    for judged in (*values["gates"], *values["expectations"], *values["differences"]):
        seeds = " ".join(_points(value) for value in judged.get("by_seed", {}).values())
        found = _told(judged["found"]) if "found" in judged else ""
        lines.append(_line([judged["name"], judged["told"], found, seeds, judged["verdict"]]))
    lines += [told for gate, told in UNREADABLE.items() for judged in values["gates"] if _fails(judged, gate)]
    if values["not_run"]:
        lines += ["", f"Not run: {', '.join(values['not_run'])}."]
    facts = ", ".join(f"{name} {value}" for name, value in values["about"].items())
    return "\n".join([*lines, "", f"95% intervals over videos in brackets. {facts}.", ""])


def _row(runs: Sequence[Run], seed: int) -> dict[str, object]:
    """The figures of one setting."""
    pairs = [run.pairs for run in runs]
    families = sorted({pair.family for pair in pairs[0] if pair.has_target})
    measures = {name: contrast([Term(runs=pairs)], np.random.default_rng(seed), name) for name in (FIGURE, *COLUMNS)}
    seconds = [run.seconds_per_frame for run in runs]
    return {
        "figure": measures[FIGURE].to_dict(),
        "by_seed": {str(run.seed): _value(run) for run in runs},
        "measures": {name: found.to_dict() for name, found in measures.items() if not math.isnan(found.value)},
        "families": {
            name: contrast([Term(runs=pairs, keep=_inside((name,)))], np.random.default_rng(seed), FIGURE).to_dict()
            for name in families
        },
        "num_pairs": len(pairs[0]),
        "seconds_per_frame": {"mean": float(np.mean(seconds)), "least": min(seconds), "most": max(seconds)},
    }


def _judged(expectation: Expectation, results: Results, seed: int) -> dict[str, object]:
    """A difference with its interval, its value for each seed, and the verdict."""
    told = f"{expectation.ahead} - {expectation.behind}"
    if expectation.inside:
        told += f" in {', '.join(expectation.inside)}"
    if expectation.more_than:
        told += f", less that in {', '.join(expectation.more_than)}"
    ahead, behind = results.get(expectation.ahead), results.get(expectation.behind)
    facts = {"name": expectation.name, "told": told, "claim": expectation.claim}
    if not ahead or not behind:
        return {**facts, "verdict": NOT_RUN}

    def terms(sides: tuple[Sequence[Run], Sequence[Run]]) -> list[Term]:
        parts = [(expectation.inside, 1.0)] + ([(expectation.more_than, -1.0)] if expectation.more_than else [])
        return [
            Term(runs=[run.pairs for run in runs], weight=sign * weight, keep=_inside(subset))
            for subset, weight in parts
            for runs, sign in zip(sides, (1.0, -1.0), strict=True)
        ]

    found = contrast(terms((ahead, behind)), np.random.default_rng(seed), FIGURE)
    by_seed = {
        str(run.seed): contrast(terms(([run], [other])), np.random.default_rng(seed), FIGURE).value
        for run, other in _by_seed(ahead, behind)
    }
    told_verdict = verdict(expectation.claim, found, list(by_seed.values()))
    known = {name: None if math.isnan(value) else value for name, value in by_seed.items()}
    return {**facts, "found": found.to_dict(), "by_seed": known, "verdict": told_verdict}


def _gates(results: Results, seed: int) -> list[dict[str, object]]:
    """Whether the tables may be read: G1 and G2 of docs/virst.md, on the pairs that have another object."""
    floor = results.get("another-object")
    gates: list[dict[str, object]] = []
    for name, setting in (("G1", COMPLETE.name), ("G2", "shuffled-sentences")):
        facts: dict[str, object] = {"name": name, "told": f"{setting} - another-object"}
        runs = results.get(setting)
        if not floor or not runs:
            gates.append({**facts, "verdict": NOT_RUN})
            continue
        keys = {pair.key for pair in floor[0].pairs}
        own = [[pair for pair in run.pairs if pair.key in keys] for run in runs]
        terms = [Term(runs=own), Term(runs=[run.pairs for run in floor], weight=-1.0)]
        found = contrast(terms, np.random.default_rng(seed), FIGURE)
        is_near = found.low >= -NEAR_FLOOR and found.high <= NEAR_FLOOR
        holds = found.value >= CLEAR_OF_FLOOR if name == "G1" else is_near
        gates.append({**facts, "found": found.to_dict(), "verdict": "holds" if holds else "fails"})
    return gates


def _fails(judged: Mapping, gate: str) -> bool:
    """Whether this is the gate, and it fails."""
    return judged["name"] == gate and judged["verdict"] == "fails"


def _by_seed(ahead: Sequence[Run], behind: Sequence[Run]) -> list[tuple[Run, Run]]:
    """Runs of one seed beside each other."""
    others = {run.seed: run for run in behind}
    return [(run, others[run.seed]) for run in ahead if run.seed in others]


def _inside(subset: Subset) -> Callable[[PairScore], bool]:
    """Which pairs a subset holds; all where it is empty."""
    if subset in (("first_visible",), ("first_hidden",)):
        return lambda pair: pair.is_visible_first == (subset[0] == "first_visible")
    return (lambda pair: pair.family in subset) if subset else (lambda pair: True)


def _value(run: Run) -> float | None:
    """The figure of one run; None where nothing is visible."""
    value = contrast([Term(runs=[run.pairs])], np.random.default_rng(0), FIGURE).value
    return None if math.isnan(value) else value


def _points(value: float | None) -> str:
    """A fraction in points of 100; nothing for what is not known."""
    return "" if value is None or math.isnan(value) else f"{100 * value:.1f}"


def _told(found: Mapping) -> str:
    """A value with its interval, in points."""
    ends = "" if found["low"] is None else f" [{_points(found['low'])}, {_points(found['high'])}]"
    return f"{_points(found['value'])}{ends}"


def _line(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(cells)} |"
