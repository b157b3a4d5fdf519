"""`dynin merge`: several models to one, or scores along the way from the one to the other.

Enters: flags. Leaves: a model folder, or with `--sweep` a JSON report and a table. Does not know the arithmetic.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dynin.cli.place import require_place
from dynin.cli.progress import Progress
from dynin.config import suggest
from dynin.errors import RequestError

if TYPE_CHECKING:
    from dynin.evaluation.report import Score
    from dynin.merging.merge import Request
    from dynin.merging.plan import Piece

DEFAULT_RECIPE = "modality-disentangled"
DTYPES = ("float32", "bfloat16", "float16")


def merge(
    models: Annotated[
        list[str], typer.Argument(help="The base, then models that descend from it: folders or hub ids.")
    ],
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="The folder to be written; with --sweep a FILE.json.")],
    recipe: Annotated[
        str, typer.Option(metavar="NAME_OR_FILE", help="modality-disentangled, uniform, or a file RECIPE.toml.")
    ] = DEFAULT_RECIPE,
    rule: Annotated[
        list[str] | None,
        typer.Option(metavar="TOML", help='A further rule: groups = "mlp", strength = 0.3; may be repeated.'),
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="linear, slerp, task_arithmetic, ties, dare_linear or dare_ties.")
    ] = None,
    strength: Annotated[
        list[float] | None, typer.Option(help="How far from the base; repeated: knots over the layers.")
    ] = None,
    weight: Annotated[
        list[float] | None, typer.Option(help="Of a model beside the base; once for each of several.")
    ] = None,
    density: Annotated[float | None, typer.Option(help="Share of differences that ties and dare keep.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of what dare drops, and of a sweep's examples.")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16; the widest of the inputs if left out.")
    ] = None,
    text_len: Annotated[
        int | None, typer.Option(help="Where image codes begin, for published models that do not say.")
    ] = None,
    sweep: Annotated[
        str | None, typer.Option(metavar="0,0.5,1", help="Score merges of these strengths; no model is kept.")
    ] = None,
    old: Annotated[
        list[str] | None, typer.Option(help="A row of the evaluation that the base can do; may be repeated.")
    ] = None,
    new: Annotated[
        list[str] | None, typer.Option(help="A row that the other models have learned; may be repeated.")
    ] = None,
    limit: Annotated[int, typer.Option(help="Examples of each row of a sweep.")] = 100,
    device: Annotated[str, typer.Option(help="Where a sweep scores: auto, cpu, cuda, cuda:1, mps.")] = "auto",
) -> None:
    """Merge models that share a base: rows by modality, groups and layers each with their own coefficients."""
    import torch

    from dynin.merging import merge as merging
    from dynin.merging import recipe as recipes

    if dtype is not None and dtype not in DTYPES:
        raise RequestError(f"unknown dtype {dtype!r}{suggest(dtype, DTYPES)}")
    if sweep is None and (old or new):
        raise RequestError("--old and --new name rows of a sweep; give --sweep too, or leave them out")
    told = recipes.changed(
        recipes.find(recipe),
        [recipes.read_rule(text) for text in rule or ()],
        method=method,
        strength=strength,
        weights=weight,
        density=density,
        seed=seed,
    )
    base, *others = models
    request = merging.Request(
        base=base,
        others=tuple(others),
        recipe=told,
        dtype=None if dtype is None else getattr(torch, dtype),
        text_len=text_len,
    )
    if sweep is not None:
        _sweep(request, _numbers(sweep), output, rows={"old": old or [], "new": new or []}, limit=limit, device=device)
        return
    merging.require_new(output)
    pieces = merging.merge(request, output, _progress())
    for line in _lines(pieces):
        typer.echo(line)
    typer.echo(str(output))


def _sweep(
    request: "Request",
    strengths: list[float],
    output: Path,
    *,
    rows: Mapping[str, list[str]],
    limit: int,
    device: str,
) -> None:
    """Score the inputs and the merges of several strengths; the report is written after each."""
    from dynin.cli import device as devices
    from dynin.evaluation import merge_sweep, runner
    from dynin.pipeline.folder import load

    require_place(output)
    names = tuple(dict.fromkeys([*rows["old"], *rows["new"]]))
    if not names or len(names) != len(rows["old"]) + len(rows["new"]):
        raise RequestError("a sweep needs rows to score, each once: --old t2i --new t2s, for example")
    wanted = runner.Wanted(seed=request.recipe.seed, limit=limit, rows=names)
    runner.require_tools(names)
    place = devices.resolve(device)

    def score(folder: Path) -> Mapping[str, "Score"]:
        return runner.evaluate(load(folder, device=place, text_len=request.text_len), wanted)

    points = merge_sweep.sweep(
        request,
        strengths,
        score,
        output,
        rows=rows,
        about={"seed": wanted.seed, "limit": limit},
        progress=lambda name, number, total: typer.echo(f"{name}: {number} of {total} scored", err=True),
    )
    typer.echo(merge_sweep.table(points, rows))
    typer.echo(f"written to {output}")


def _numbers(text: str) -> list[float]:
    """Numbers between commas."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise RequestError(f"--sweep {text!r} is no list of numbers; write it as 0,0.25,0.5,0.75,1") from error


def _progress() -> Callable[[int, int], None]:
    """Lines that say how many tensors are written."""
    started: list[Progress] = []

    def show(done: int, total: int) -> None:
        if not started:
            started.append(Progress("tensor", total))
        started[0](done)

    return show


def _lines(pieces: "list[Piece]") -> list[str]:
    """What was done, a line for every group of equal coefficients."""
    from dynin.merging.plan import summary

    lines = []
    for piece, count in summary(pieces):
        if piece.taken is not None:
            told = f"copied from {'the base' if piece.taken == 0 else f'model {piece.taken}'}"
        else:
            how = piece.how
            told = f"{how.method}  strength {how.strength:g}"
            told += "" if how.weights == (1.0,) else f"  weights {' '.join(f'{weight:g}' for weight in how.weights)}"
            told += "" if set(how.density) == {1.0} else f"  density {' '.join(f'{part:g}' for part in how.density)}"
        lines.append(f"{piece.part.group:13} {told}  ({count} tensors)")
    return lines
