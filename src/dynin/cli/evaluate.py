"""`dynin evaluate`: scores on held-out examples.

Enters: flags. Leaves: a JSON report and a table. Does not know metrics.
"""

from pathlib import Path
from typing import Annotated

import typer

from dynin.config import suggest
from dynin.errors import RequestError

SUITES = ("emoji-world",)


def evaluate(
    suite: Annotated[str, typer.Argument(help="What to score on: emoji-world.")],
    seed: Annotated[int, typer.Option(help="Draws the held-out examples.")] = 0,
    limit: Annotated[int, typer.Option(help="Examples of each task.")] = 200,
    output: Annotated[Path, typer.Option(metavar="FILE.json", help="The report.")] = Path("report.json"),
    task: Annotated[list[str] | None, typer.Option(help="Only this task; may be repeated.")] = None,
    model: Annotated[str | None, typer.Option(metavar="PATH_OR_ID", help="A model's folder or hub id.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
) -> None:
    """Score every task on held-out compositions."""
    if suite not in SUITES:
        raise RequestError(f"unknown suite {suite!r}{suggest(suite, SUITES)}")
    from dynin.cli import device as devices
    from dynin.evaluation import runner
    from dynin.pipeline.folder import load

    loaded = load(model, device=devices.resolve(device))
    runner.run(loaded, seed=seed, limit=limit, output=output, tasks=task)
