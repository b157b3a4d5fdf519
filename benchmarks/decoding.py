"""Our decoder beside the published samplers, on the same weights and prompts: `make bench TIER=S|M|L CASE=name`.

Enters: a tier, cases, all of its cases by default. Leaves: a table, out/bench/decoding-TIER.json and a picture beside
it. Does not know how anything is decoded: that is `decoding_cases`, and `decoding_gpu` for tier L.

Oracle and ours take turns in one process, A B B A, at least five times after a first that is thrown away; processor
time and time on the clock are told with their spread. A case that is in the file already, of the same commit, machine
and number of threads, is not run again unless `--again` says so, so that a run which was cut off goes on.

No ratio is told where the machine had more to do than cores, where the sides had different numbers of threads, or where
the oracle did not take as long as the published samplers are known to take (tier M; told with one thread).
"""

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import duel
import torch
from decoding_cases import FAMILIES, ORACLE, Case, Outcome, Stage, oracle, ours
from decoding_engine import AIM, RESOLVE_AT, cached_mix, one_after_another, same, together
from decoding_forced import all_cases, forced_cases
from decoding_memory import measure as measure_memory
from decoding_plot import draw

OUTPUT = duel.ROOT / "out" / "bench"
CASES: Mapping[str, Case] = all_cases()
FORCED = {name: asdict(forced) for name, (_, forced) in forced_cases().items()}
MEMORY, ENGINE = "memory", "engine"


class Report:
    """The rows of a file, written after each case."""

    def __init__(self, path: Path) -> None:
        """Read what is there."""
        self.path = path
        self.rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="ascii"))["rows"] if path.exists() else []

    def find(self, **wanted: object) -> list[dict[str, Any]]:
        """Rows with these values."""
        return [row for row in self.rows if all(row.get(name) == value for name, value in wanted.items())]

    def put(self, row: dict[str, Any]) -> None:
        """Write a row in the place of the one that it repeats."""
        same = {name: row[name] for name in ("case", "commit", "machine", "threads")}
        others = [old for old in self.rows if any(old.get(name) != value for name, value in same.items())]
        self.rows = [*others, row]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_suffix(".part")
        draft.write_text(json.dumps({"rows": self.rows}, indent=1) + "\n", encoding="ascii")
        draft.replace(self.path)


def run_family(stage: Stage, family: str, names: Sequence[str], num_repeats: int, report: Report) -> None:
    """Time the oracle of a family and some ways of ours, and write a row for each."""
    outcomes: dict[str, Outcome] = {}
    runs = {ORACLE: oracle(stage, family), **{name: ours(stage, family, CASES[name].way) for name in names}}
    is_full = stage.tier == "M"
    rates = [duel.matmul_rates()] if is_full else []

    def contestant(name: str) -> Any:
        def run() -> None:
            outcomes[name] = runs[name]()

        return run

    turns = duel.alternate({name: contestant(name) for name in runs}, num_repeats)
    rates += [duel.matmul_rates()] if is_full else []
    profile = FAMILIES[family].profile if is_full else None
    threads = torch.get_num_threads()
    for name in names:
        case, first, other = CASES[name], turns[ORACLE], turns[name]
        reasons = duel.objections(first, other, os.cpu_count() or 1)
        row: dict[str, Any] = {"case": name, "family": family, "tier": stage.tier, "threads": threads}
        row |= duel.surroundings() | {"dtype": str(case.way.dtype).removeprefix("torch.")}
        row |= {"resolve_at": case.resolve_at, "aim": case.aim, "num_repeats": num_repeats}
        row |= {"forced": FORCED[name]} if name in FORCED else {}
        if profile is not None:
            mean = duel.mean_rates(rates)
            row |= {"rates": asdict(mean), "oracle_expected_s": profile.expected_s(mean)}
            found = fairness(profile, mean, row, first, report)
            reasons += found
            row["oracle_is_fair"] = not found
        sides = per_step(stage, family, outcomes, turns, name)
        row |= {"sides": sides, "reasons": reasons, "agreement": agreement(stage, family, outcomes, name)}
        row["ratio"] = None if reasons else ratios(sides)
        report.put(row)
        print(line(row), flush=True)


def run_engine(stage: Stage, num_repeats: int, report: Report) -> None:
    """Time requests decoded together beside the same ones after another, and write a row."""
    mix, outcomes = cached_mix(), {}
    runs = {"alone": one_after_another(stage, mix), "ours": together(stage, mix)}

    def contestant(name: str) -> Any:
        def run() -> None:
            outcomes[name] = runs[name]()

        return run

    turns = duel.alternate({name: contestant(name) for name in runs}, num_repeats)
    reasons = duel.objections(turns["alone"], turns["ours"], os.cpu_count() or 1)
    sides = {ORACLE: duel.summary(turns["alone"], 1), "ours": duel.summary(turns["ours"], 1)}
    row: dict[str, Any] = {"case": ENGINE, "tier": stage.tier, "threads": torch.get_num_threads()}
    row |= duel.surroundings() | {"dtype": str(mix.dtype).removeprefix("torch."), "num_repeats": num_repeats}
    row |= {"resolve_at": RESOLVE_AT, "aim": AIM, "sides": sides, "reasons": reasons}
    row |= {"baseline": "one after another", "agreement": same(*outcomes.values()) / len(outcomes["alone"])}
    row["ratio"] = None if reasons else ratios(sides)
    report.put(row)
    print(line(row), flush=True)


def fairness(
    profile: duel.Profile, rates: duel.Rates, row: Mapping[str, Any], turns: Sequence[duel.Turn], report: Report
) -> list[str]:
    """Whether the oracle took as long as it should, with one thread; with more, whether it did so before."""
    if row["threads"] == 1:
        found = duel.off_profile(profile, rates, duel.spread([turn.cpu_s for turn in turns])["median"])
        return [found] if found else []
    alone = report.find(family=row["family"], machine=row["machine"], threads=1)
    if any(told.get("oracle_is_fair") for told in alone):
        return []
    return ["the oracle was not timed with one thread on this machine; run the case with --threads 1 first"]


def per_step(
    stage: Stage, family: str, outcomes: Mapping[str, Outcome], turns: Mapping[str, list[duel.Turn]], name: str
) -> dict[str, dict[str, Any]]:
    """Times of both sides; those of a step where the oracle leaves off early."""
    is_step = stage.sizes(family).oracle_steps is not None
    return {
        side: {
            "num_steps": outcomes[key].num_steps,
            "num_columns": outcomes[key].num_columns,
            "is_step": is_step,
            **duel.summary(turns[key], outcomes[key].num_steps if is_step else 1),
        }
        for side, key in ((ORACLE, ORACLE), ("ours", name))
    }


def agreement(stage: Stage, family: str, outcomes: Mapping[str, Outcome], name: str) -> float | None:
    """Share of the targets with the same id; None where the oracle left off or both drew numbers of their own."""
    sizes = stage.sizes(family)
    if sizes.oracle_steps is not None or sizes.temperature > 0:
        return None
    is_target = stage.canvas(family)[1]
    return float((outcomes[ORACLE].ids == outcomes[name].ids)[is_target].float().mean())


def ratios(sides: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """How many times as fast ours is."""
    return {kind: sides[ORACLE][kind]["median"] / sides["ours"][kind]["median"] for kind in ("cpu_s", "wall_s")}


def line(row: Mapping[str, Any]) -> str:
    """A row for people."""
    parts = [f"{row['case']:16}"]
    for side in (ORACLE, "ours"):
        cpu, wall = row["sides"][side]["cpu_s"], row["sides"][side]["wall_s"]
        parts.append(f"{cpu['median']:8.3f} s cpu [{cpu['p10']:.3f}, {cpu['p90']:.3f}] {wall['median']:8.3f} s wall")
    if row["ratio"]:
        parts.append(f"{row['ratio']['cpu_s']:6.2f} x cpu {row['ratio']['wall_s']:6.2f} x wall")
        parts.append(f"(wanted {row['resolve_at']:g}, aim {row['aim']:g})")
    else:
        parts.append("no ratio: " + "; ".join(row["reasons"]))
    if row["agreement"] is not None:
        what = "requests" if "baseline" in row else "ids"
        parts.append(f"{row['agreement']:.1%} of {what} equal")
    return "  ".join(parts)


def wanted_cases(named: Sequence[str], tier: str) -> list[str]:
    """The cases to run: those named, or all."""
    known = [*CASES, ENGINE, MEMORY]
    unknown = [name for name in named if name not in known]
    if unknown:
        raise SystemExit(f"bench: no case {', '.join(unknown)} on tier {tier}; there are {', '.join(known)}")
    return list(named) or known


def finished(report: Report, here: Mapping[str, object], num_repeats: int) -> set[str]:
    """Cases with a ratio of so many repeats at least, or with peaks of memory."""
    rows = report.find(**here)
    return {
        row["case"] for row in rows if not row.get("reasons") and row.get("num_repeats", num_repeats) >= num_repeats
    }


def bench(options: argparse.Namespace) -> None:
    """Run what is not done yet."""
    report = Report(options.output / f"decoding-{options.tier}.json")
    here = {"commit": duel.commit(), "machine": duel.machine(), "threads": torch.get_num_threads()}
    names = wanted_cases(options.case, options.tier)
    done = set() if options.again else finished(report, here, options.repeats)
    for name in names:
        if name in done:
            print(f"{name:16}done before; --again runs it once more", flush=True)
    left = [name for name in names if name not in done]
    cases: Mapping[str, Case] = {name: CASES[name] for name in left if name in CASES}
    stage = Stage(options.tier)
    for family in dict.fromkeys(case.family for case in cases.values()):
        chosen = [name for name, case in cases.items() if case.family == family]
        run_family(stage, family, chosen, options.repeats, report)
    if ENGINE in left:
        run_engine(stage, options.repeats, report)
    if MEMORY in left:
        row = measure_memory(options.tier)
        report.put({"case": MEMORY, "tier": options.tier, **here, **duel.surroundings(), **row})
        print(f"{MEMORY:16}{row['tiles_mb']:.1f} MB of tiles beside the output tables, once", flush=True)
        if not row["peaks"]:
            print(f"{MEMORY:16}{row['method']}", flush=True)
        for told in row["peaks"]:
            print(f"{MEMORY:16}{told['family']:10}{told['way']:18}{told['oracle_mb']:9.1f} MB oracle "
                  f"{told['ours_mb']:9.1f} MB ours  {told['share']:.2f} of it", flush=True)  # fmt: skip
    print(draw(report.rows, options.output / f"decoding-{options.tier}.png"), flush=True)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tier", choices=("S", "M", "L"), default="S")
    parser.add_argument("--case", action="append", default=[], help="this one; may be repeated; default all")
    parser.add_argument("--repeats", type=int, default=5, help="times kept of each; one more is thrown away")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="run cases that are done")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder")
    large = parser.add_argument_group("tier L")
    large.add_argument("--device", default="cuda")
    large.add_argument("--width", type=float, default=1.0, help="share of the 8B network's width")
    large.add_argument("--minutes", type=float, default=8.0, help="after which no further row is begun")
    large.add_argument("--rehearse", action="store_true", help="the same rows, short enough for a processor")
    options = parser.parse_args()
    if options.repeats < 1 or options.threads < 1:
        parser.error(f"--repeats {options.repeats} and --threads {options.threads} must be at least 1")
    if options.tier == "L":
        from decoding_gpu import bench_gpu

        bench_gpu(options)
        return
    torch.set_num_threads(options.threads)
    bench(options)


if __name__ == "__main__":
    main()
