"""`dynin evaluate`: scores on held-out examples.

Enters: flags. Leaves: a JSON report and a table. Does not know metrics.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import TaskID

from dynin.cli.place import require_place
from dynin.config import suggest
from dynin.errors import RequestError

if TYPE_CHECKING:
    from dynin.evaluation.report import Score
    from dynin.pipeline.dynin import Dynin

SUITES = ("emoji-world", "two-step", "restoration", "tokenizers")
DECODED = ("emoji-world", "two-step")
"""Suites that decode as `generate` does, by the flags that say how."""


def evaluate(
    suite: Annotated[
        str, typer.Argument(help="emoji-world, two-step (by way of text), restoration of damaged codes, or tokenizers.")
    ],
    seed: Annotated[int, typer.Option(help="Draws the held-out examples.")] = 0,
    limit: Annotated[int, typer.Option(help="Examples of each task.")] = 200,
    output: Annotated[Path, typer.Option(metavar="FILE.json", help="The report.")] = Path("report.json"),
    task: Annotated[list[str] | None, typer.Option(help="Only this figure, such as t2i; may be repeated.")] = None,
    steps: Annotated[int | None, typer.Option(help="Network calls: per picture or video, per block otherwise.")] = None,
    guidance: Annotated[float | None, typer.Option(help="How strongly the prompt is followed; 0 for plain.")] = None,
    preset: Annotated[str | None, typer.Option(help="exact, balanced or fast; none for what generate takes.")] = None,
    remask: Annotated[
        str, typer.Option(help="policy, none, confidence or verify: hide committed places again.")
    ] = "policy",
    model: Annotated[
        str | None, typer.Option("--model", metavar="MODEL", help="A folder, a hub id, or a file MODEL.toml.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16: what the network computes in.")
    ] = None,
) -> None:
    """Score every task on held-out compositions."""
    if suite not in SUITES:
        raise RequestError(f"unknown suite {suite!r}{suggest(suite, SUITES)}")
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from dynin.cli import device as devices
    from dynin.evaluation import report, runner, two_step
    from dynin.evaluation.suite import SUITE
    from dynin.pipeline.folder import load

    if remask not in ("policy", *runner.RULES):
        raise RequestError(f"unknown rule {remask!r}{suggest(remask, ('policy', *runner.RULES))}")
    if limit < 1:
        raise RequestError(f"limit is {limit}; give at least 1 example a task")
    if suite not in DECODED and (steps, guidance, preset, remask) != (None, None, None, "policy"):
        raise RequestError(f"{suite} decodes by itself; leave --steps, --guidance, --preset and --remask out")
    require_place(output)
    if suite not in DECODED:
        loaded = load(model, device=devices.resolve(device), dtype=dtype)
        _score_aside(suite, task, loaded, seed=seed, limit=limit, output=output)
        return
    wanted = runner.Wanted(
        seed=seed,
        limit=limit,
        rows=tuple(task or (SUITE if suite == "emoji-world" else two_step.PIPELINES)),
        steps=steps,
        guidance=guidance,
        preset=preset,
        remask=remask,  # type: ignore[arg-type]
    )
    if suite == "two-step":
        two_step.require_rows(wanted.rows)
    runner.require_tools(wanted.rows)
    loaded = load(model, device=devices.resolve(device), dtype=dtype)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bars: dict[str, TaskID] = {}

        def show(row: str, done: int, total: int) -> None:
            if row not in bars:
                bars[row] = progress.add_task(row, total=total)
            progress.update(bars[row], completed=done)
            if not console.is_terminal and done == total:
                console.print(f"{row}: {total} examples scored", highlight=False)

        is_direct = suite == "emoji-world"
        about = {**({} if is_direct else {"title": suite}), "dtype": dtype or "as loaded"}
        fulfil = runner.at_once if is_direct else two_step.fulfil
        scores = runner.evaluate(loaded, wanted, output, about=about, progress=show, fulfil=fulfil)
    typer.echo(report.table(scores))
    typer.echo(f"written to {output}")


def _score_aside(suite: str, task: list[str] | None, model: "Dynin", *, seed: int, limit: int, output: Path) -> None:
    """Score a suite beside the main one; the report is written after every figure, one line says how far it is."""
    from dynin.evaluation import report

    names = task or _rows(suite)
    console = Console(stderr=True)
    scores: dict[str, Score] = {}
    for number, name in enumerate(names, start=1):
        scores[name] = _aside(suite, name, model, seed, limit)
        report.write(output, scores, {"title": suite, "seed": seed, "limit": limit})
        console.print(f"{name}: {limit} examples scored, {number} of {len(names)} figures", highlight=False)
    typer.echo(report.table(scores))
    typer.echo(f"written to {output}")


def _rows(suite: str) -> tuple[str, ...]:
    """The figures of a suite beside the main one."""
    from dynin.evaluation import restoration, round_trip

    return restoration.TASKS if suite == "restoration" else tuple(round_trip.ROUND_TRIPS)


def _aside(suite: str, name: str, model: "Dynin", seed: int, limit: int) -> "Score":
    """One figure of a suite beside the main one."""
    from dynin.evaluation import restoration, round_trip

    if name not in _rows(suite):
        raise RequestError(f"unknown figure {name!r}{suggest(name, _rows(suite))}")
    if suite == "restoration":
        return restoration.restoration(model, name, seed=seed, count=limit)
    return round_trip.ROUND_TRIPS[name](model.tokenizers, seed, limit)
