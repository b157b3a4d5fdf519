"""Quality against speed of decoding, on the embedded model: scores, forward passes, columns, tokens per forward.

    python benchmarks/quality.py --row t2i --row i2t --limit 40          # presets and curves of two rows of the suite
    python benchmarks/quality.py --row t2i --only exact,fast --limit 2000
    python benchmarks/quality.py --all --limit 2000                      # the whole table; resumes where it was stopped
    python benchmarks/quality.py --row t2i --only fast --limit 4000 --seed 7 --place runs/confirmed  # fresh examples
    python benchmarks/quality.py --report                                # the summary and the plot of what is there

Enters: rows of `dynin.evaluation.suite` and the settings of `quality_points`. Leaves: runs/quality/ROW/POINT.json,
every example's outcome; docs/results/quality.json, scores, differences to exact with intervals, and the schedules that
benchmarks/decoding.py forces on larger models; docs/images/quality.png, where matplotlib is installed. Does not know
how fast a pass is: that is measured there.

Every point decodes the same examples with the same seeds, so differences are paired. A file grows by groups of
examples; one whose policy, seed or weights no longer are what it says is refused, not mixed.
"""

import argparse
import json
import math
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from quality_points import POINTS

import dynin
from dynin.data.example import Example
from dynin.decoding.policy import DecodingPolicy
from dynin.evaluation import runner
from dynin.evaluation.paired import Outcome, difference, outcome, score
from dynin.evaluation.suite import SUITE
from dynin.media.files import replace_whole
from dynin.pipeline.dynin import Dynin
from dynin.pipeline.policies import policy_of
from dynin.pipeline.presets import PRESET_NAMES
from dynin.pipeline.request import Request
from dynin.types import Modality

PLACE = Path("runs/quality")
CONFIRMED = Path("runs/confirmed")
"""Of points that were measured once more, on examples that had no part in choosing them (another --seed)."""
GROUP = 20
"""Examples decoded together, and written together."""
POINT_WORTH = 0.01
"""How much worse than exact a preset may be, as a share."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """One example at one point."""

    points: float
    weight: float
    num_forwards: int
    num_columns: int
    """Columns computed, both branches of guidance counted."""
    num_tokens: int


def policies_at(model: Dynin, task: str, targets: Sequence[Modality], point: str) -> dict[str, DecodingPolicy]:
    """The policies of a task's targets at a point: a preset's, or what the point makes of the exact ones."""
    policies: dict[str, DecodingPolicy] = {}
    for modality in targets:
        exact = policy_of(model.policies, task, modality)
        if point in PRESET_NAMES:
            policies[modality] = model.presets.policy(point, task, modality) or exact
        else:
            change = POINTS[modality].get(point)
            policies[modality] = change(exact) if change else exact
    return policies


def names_of(targets: Sequence[Modality]) -> list[str]:
    """The points that concern any of some targets, presets first."""
    return list(dict.fromkeys([*PRESET_NAMES, *(point for modality in targets for point in POINTS[modality])]))


def measure(model: Dynin, row_name: str, points: Sequence[str], limit: int, *, seed: int, place: Path) -> None:
    """Decode the first examples of a row at every point, those that are not in a folder yet."""
    row = SUITE[row_name]
    row.require_tools()
    task = model.tasks[row.task]
    wanted = runner.Wanted(seed=seed, limit=limit, rows=(row_name,))
    examples = runner.held_out(row, wanted)
    start = 0
    while group := list(islice(examples, GROUP)):
        for point in points:
            policies = policies_at(model, row.task, task.targets, point)
            changed = replace(model, policies={**model.policies, **policies, **_own(row.task, policies)})
            path = place / row_name / f"{point.replace(' ', '_')}.json"
            add(changed, row_name, path, group, start=start, seed=seed, policies=policies)
        start += len(group)


def _own(task: str, policies: Mapping[str, DecodingPolicy]) -> dict[str, DecodingPolicy]:
    """The same under the names that come first where a task has its own."""
    return {f"{task}.{modality}": policy for modality, policy in policies.items()}


def add(
    model: Dynin,
    row_name: str,
    path: Path,
    group: Sequence[Example],
    *,
    start: int,
    seed: int,
    policies: Mapping[str, DecodingPolicy],
) -> None:
    """Decode a group of examples at a point, and write their outcomes behind those that are in its file."""
    says = {modality: told(policy) for modality, policy in policies.items()}
    content = read(path, {"policies": says, "seed": seed, "weights": fingerprint(model)})
    made = content["made"]
    if len(made) >= start + len(group):
        return
    if len(made) != start:
        raise SystemExit(
            f"{path} holds {len(made)} examples, which is no multiple of {GROUP}; remove it, and start anew"
        )
    began = time.process_time()
    requests = [
        Request.to_fulfil(
            example.condition,
            "+".join(example.target),
            seed=seed + start + number,
            preset="exact",
            size=SUITE[row_name].size_px,
        )
        for number, example in enumerate(group)
    ]
    for example, result in zip(group, model.run_together(requests), strict=True):
        judged = outcome(row_name, example, result)
        one = Made(
            points=judged.points,
            weight=judged.weight,
            num_forwards=result.num_forwards,
            num_columns=result.num_columns,
            num_tokens=result.num_tokens,
        )
        made.append(asdict(one))
    content["processor_s"] = round(content["processor_s"] + time.process_time() - began, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_whole(path) as temporary:
        temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")
    print(f"{row_name:14} {path.stem:36} {len(made):5d} examples, {content['processor_s']:7.1f} s", flush=True)


def told(policy: DecodingPolicy) -> str:
    """What a policy says beyond the defaults, so that a new field does not make old measurements another point's."""
    named = ((field, getattr(policy, field.name)) for field in fields(policy))
    return ", ".join(f"{field.name}={value}" for field, value in named if value != field.default)


def fingerprint(model: Dynin) -> str:
    """What tells one training of a model from another: a sum over its output table."""
    return f"{float(model.model.output.weight.double().abs().sum()):.6e}"


def read(path: Path, settings: Mapping[str, object]) -> dict[str, Any]:
    """What is on disk of a point, or a beginning."""
    if not path.exists():
        return {**settings, "processor_s": 0.0, "made": []}
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    for name, value in settings.items():
        if content.get(name) != value:
            raise SystemExit(
                f"{path} was made with other settings: {name} {content.get(name)}, now {value}; remove it, start anew"
            )
    return content


def summary(row_name: str, place: Path, confirmed: Path) -> dict[str, Any]:
    """Every point of a row, and the quickest preset that is as good as exact.

    A preset that was measured on examples of its own is judged by those, whatever the others said.
    """
    told = {"points": _points(place / row_name)}
    if (confirmed / row_name / "exact.json").exists():
        told["confirmed"] = _points(confirmed / row_name)
    judged = {**told["points"], **told.get("confirmed", {})}
    good = [name for name in PRESET_NAMES if name in judged and (name == "exact" or judged[name]["is_within_a_point"])]
    return {"default": min(good, key=lambda name: judged[name]["columns"]), **told}


def _points(folder: Path) -> dict[str, Any]:
    """Of every point in a folder: score, difference to exact, and what it cost."""
    contents = {path.stem.replace("_", " "): json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    exact = [Made(**one) for one in contents["exact"]["made"]]
    rows: dict[str, Any] = {}
    for point, content in contents.items():
        made = [Made(**one) for one in content["made"]]
        n = min(len(made), len(exact))
        told = difference(_outcomes(exact[:n]), _outcomes(made[:n]))
        tokens, forwards, columns = (
            sum(getattr(one, name) for one in made) for name in ("num_tokens", "num_forwards", "num_columns")
        )
        rows[point] = {
            "n": n,
            "seed": content["seed"],
            "score": round(score(_outcomes(made[:n])), 4),
            "difference": round(told.mean, 4),
            "difference_ci95": [round(end, 4) for end in told.ci95],
            "is_within_a_point": told.is_within(POINT_WORTH),
            "forwards": round(forwards / len(made), 2),
            "tokens": round(tokens / len(made), 2),
            "tokens_per_forward": round(tokens / forwards, 3),
            "columns_per_forward": round(columns / forwards, 1),
            "columns": round(columns / len(made), 1),
            "processor_s_per_example": round(content["processor_s"] / len(made), 3),
            "policies": content["policies"],
        }
    return rows


def _outcomes(made: Sequence[Made]) -> list[Outcome]:
    return [Outcome(one.points, one.weight) for one in made]


def reported(place: Path) -> tuple[Path, Path, Path]:
    """Of a folder that was measured into: the outcomes to report on, and where summary and plot go.

    What is looked at elsewhere does not take the place of what the docs tell.
    """
    if place in (PLACE, CONFIRMED):
        return PLACE, Path("docs/results/quality.json"), Path("docs/images/quality.png")
    return place, place / "quality.json", place / "quality.png"


def report(outcomes: Path, place: Path, picture: Path) -> None:
    """Write the summary of every row in a folder, print it, and draw it where matplotlib is installed."""
    names = [path.name for path in sorted(outcomes.iterdir()) if (path / "exact.json").exists()]
    rows = {name: summary(name, outcomes, CONFIRMED) for name in names}
    about = {"torch": torch.__version__, "threads": torch.get_num_threads(), "load": os.getloadavg()[0]}
    place.parent.mkdir(parents=True, exist_ok=True)
    with replace_whole(place) as temporary:
        temporary.write_text(json.dumps({"rows": rows, "about": about}, indent=1) + "\n", encoding="utf-8")
    for name, row in rows.items():
        print(f"\n{name}: default {row['default']}")
        told_rows = [
            *row["points"].items(),
            *((f"{name}, confirmed", told) for name, told in row.get("confirmed", {}).items()),
        ]
        for point, told in sorted(told_rows, key=lambda pair: pair[1]["columns"], reverse=True):
            low, high = told["difference_ci95"]
            print(
                f"  {point:36} n {told['n']:4d}  score {told['score']:.3f}  {100 * told['difference']:+6.1f} points "
                f"({100 * low:+.1f} to {100 * high:+.1f})  forwards {told['forwards']:6.1f}  tokens/forward "
                f"{told['tokens_per_forward']:6.2f}  columns {told['columns']:8.0f}"
            )
    draw(rows, picture)


def draw(rows: Mapping[str, Any], picture: Path) -> None:
    """Score against tokens per forward, one panel a row of the suite."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        print("no plot: matplotlib is not installed (the extra `plots`)")
        return
    across = min(3, len(rows))
    figure, axes = pyplot.subplots(
        math.ceil(len(rows) / across), across, figsize=(5 * across, 3.4 * math.ceil(len(rows) / across)), squeeze=False
    )
    for panel, (name, row) in zip(axes.flat, rows.items(), strict=False):
        families: dict[str, list[tuple[float, float]]] = {}
        for point, told in row["points"].items():
            family = "presets" if point in PRESET_NAMES else re.sub(r" [\d.]+", "", point)
            families.setdefault(family, []).append((told["tokens_per_forward"], told["score"]))
        for family, dots in sorted(families.items()):
            xs, ys = zip(*sorted(dots), strict=True)
            panel.plot(xs, ys, marker="*" if family == "presets" else "o", markersize=5, linewidth=0.8, label=family)
        count = max(told["n"] for told in row["points"].values())
        panel.set(title=f"{name}, up to {count} examples", xlabel="tokens per forward", ylabel="score", ylim=(0, 1.02))
        panel.legend(fontsize=6)
    for panel in axes.flat[len(rows) :]:
        panel.set_axis_off()
    figure.tight_layout()
    figure.savefig(picture, dpi=110)
    pyplot.close(figure)


def main() -> None:
    """Measure what is asked for, then report on everything that is there."""
    parser = argparse.ArgumentParser(description="Quality against speed of decoding, on the embedded model.")
    parser.add_argument("--row", action="append", default=[], help="a row of the suite; may be repeated")
    parser.add_argument("--all", action="store_true", help="every row of the suite")
    parser.add_argument("--only", default="", help="points, separated by commas; all without it")
    parser.add_argument("--limit", type=int, default=40, help="examples of each row")
    parser.add_argument("--seed", type=int, default=20261126, help="of the held-out world")
    parser.add_argument("--place", type=Path, default=PLACE, help="folder of outcomes; of one seed each")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    parser.add_argument("--output", type=Path, help="docs/results/quality.json, of another --place its quality.json")
    parser.add_argument("--picture", type=Path, help="docs/images/quality.png, of another --place its quality.png")
    asked = parser.parse_args()
    rows = list(SUITE) if asked.all else asked.row
    if unknown := sorted(set(rows) - set(SUITE)):
        parser.error(f"unknown row {unknown[0]!r}; known: {', '.join(SUITE)}")
    if not asked.report:
        model = dynin.load()
        for row in rows:
            known = names_of(model.tasks[SUITE[row].task].targets)
            points = [point.strip() for point in asked.only.split(",") if point.strip()] or known
            if strange := sorted(set(points) - set(known)):
                parser.error(f"unknown point {strange[0]!r} of {row}; known: {', '.join(known)}")
            measure(
                model, row, list(dict.fromkeys(["exact", *points])), asked.limit, seed=asked.seed, place=asked.place
            )
    outcomes, output, picture = reported(asked.place)
    report(outcomes, asked.output or output, asked.picture or picture)


if __name__ == "__main__":
    main()
