"""`dynin data check`, `pretokenize` and `make-demo`: one's own rows.

Enters: flags. Leaves: lines about faults and exit status 1 if there are any; a token cache; a folder of examples. Does
not know how rows are checked or encoded.
"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dynin.config import suggest
from dynin.errors import RequestError

if TYPE_CHECKING:
    from dynin.data.records.check import Report
    from dynin.data.records.encoder import RowEncoder
    from dynin.data.records.reader import RecordReader

ON_BAD = ("stop", "skip")
MOST_SHOWN = 20
"""Faults that are printed where rows are left out."""

Source = Annotated[str, typer.Argument(metavar="FILE", help="rows.jsonl, part-*.tar, table.parquet, hf:NAME?split=..")]
Model = Annotated[
    str | None,
    typer.Option(
        "--model", metavar="MODEL", help="A folder, a hub id, or a file MODEL.toml; the embedded one if left out."
    ),
]
TemplateFile = Annotated[
    Path | None, typer.Option(metavar="FILE.json", help="How columns become rows, for data not in the schema.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]


def check(
    source: Source,
    model: Model = None,
    template: TemplateFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of lines.")] = False,
) -> None:
    """Find every fault in rows of one's own, with line and field; exit status 1 if there is any.

    Media are decoded, and rows measured against the model's length.
    """
    from dynin.cli.progress import Progress
    from dynin.data.records.check import check as check_rows

    encoder, reader = load_encoder(model), open_source(source, template)
    total = _num_rows(reader)
    progress = Progress("row", total) if total and not as_json else None
    found = check_rows(reader, encoder, (lambda done: None) if progress is None else progress)
    if as_json:
        typer.echo(json.dumps(_as_values(found), ensure_ascii=False))
    else:
        for fault in found.faults:
            typer.echo(str(fault))
        tasks = ", ".join(f"{count} {task}" for task, count in found.tasks.items()) or "none"
        count = found.num_rows - len(found.good)
        typer.echo(f"{found.num_rows} rows: {len(found.good)} good ({tasks}), {count} faulty")
        typer.echo(f"longest good row: {found.longest} of {encoder.max_len} positions")
    if found.faults or not found.num_rows:
        raise typer.Exit(1)


def _as_values(found: "Report") -> dict[str, object]:
    faults = [
        {
            "source": fault.place.source,
            fault.place.unit: fault.place.key,
            "field": fault.field,
            "message": fault.message,
        }
        for fault in found.faults
    ]
    return {
        "rows": found.num_rows,
        "good": len(found.good),
        "tasks": dict(found.tasks),
        "longest": found.longest,
        "faults": faults,
    }


def pretokenize(
    source: Source,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The token cache.")],
    model: Model = None,
    template: TemplateFile = None,
    on_bad: Annotated[str, typer.Option(help="stop or skip: what a faulty row does.")] = "stop",
    limit: Annotated[int | None, typer.Option(help="Take so many rows only.")] = None,
    workers: Annotated[int, typer.Option(help="Processes; more than one need the package ray.")] = 1,
    device: Device = "auto",
) -> None:
    """Turn the media of rows into codes, once: a cache that training reads; an interrupted run goes on."""
    if on_bad not in ON_BAD:
        raise RequestError(f"unknown way {on_bad!r} for faulty rows{suggest(on_bad, ON_BAD)}")
    if workers < 1 or (limit is not None and limit < 1):
        raise RequestError(f"--workers {workers} and --limit {limit} were given; give 1 or more")
    if workers > 1 and limit is not None:
        raise RequestError("--limit is for one process; leave it or --workers out")
    from functools import partial

    from dynin.cli.progress import Progress
    from dynin.data.records.over_ray import pretokenize_over_ray
    from dynin.data.records.pretokenize import pretokenize as encode_rows

    way = "skip" if on_bad == "skip" else "stop"
    reader = open_source(source, template)
    progress = Progress("row", min(limit or sys.maxsize, _num_rows(reader) or sys.maxsize))
    if workers > 1:
        opened = partial(open_source, _absolute(source), template.resolve() if template else None)
        made = pretokenize_over_ray(
            opened,  # type: ignore[arg-type]
            partial(load_encoder, model and _absolute(model), device),
            output,
            workers=workers,
            on_bad=way,  # type: ignore[arg-type]
            report=progress,
        )
    else:
        encoder = load_encoder(model, device)
        made = encode_rows(reader, encoder, output, on_bad=way, limit=limit, report=progress)  # type: ignore[arg-type]
    for fault in made.faults[:MOST_SHOWN]:
        typer.echo(f"left out: {fault}")
    if len(made.faults) > MOST_SHOWN:
        typer.echo(f"... and {len(made.faults) - MOST_SHOWN} more faults, listed in {output / 'cache.json'}")
    tasks = ", ".join(f"{count} {task}" for task, count in made.tasks.items())
    typer.echo(f"{sum(made.rows)} of {made.num_records} rows ({tasks}) in {len(made.parts)} parts: {output}")


def make_demo(
    output: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")],
    count: Annotated[int, typer.Option(help="Rows of each task.")] = 20,
    seed: Annotated[int, typer.Option(help="Same seed, same rows.")] = 0,
) -> None:
    """Write rows of every task in the schema, with their media, as an example of one's own data."""
    from dynin.data.records.demo_rows import write_demo

    if not 1 <= count <= 10_000 or seed < 0:
        raise RequestError(f"--count {count} and --seed {seed} were given; give 1 to 10000 rows and a seed from 0")
    written = write_demo(output, count=count, seed=seed)
    typer.echo(f"{sum(written.tasks.values())} rows of {len(written.tasks)} tasks: {written.path}")
    if written.left_out:
        typer.echo(f"without {', '.join(written.left_out)}: {written.reason}")
    typer.echo(f"look at them, then: dynin data check {written.path}")


def load_encoder(model: str | None, device: str = "cpu") -> "RowEncoder":
    """What rows must fit, of a model by name."""
    from dynin.cli import device as devices
    from dynin.data.records.encoder import RowEncoder
    from dynin.pipeline import encoding

    read = encoding.read(model, device=devices.resolve(device))
    return RowEncoder(tasks=read.tasks, vocabulary=read.vocabulary, tokenizers=read.tokenizers, max_len=read.max_len)


def open_source(source: str, template: Path | None) -> "RecordReader":
    """The reader of what a user named."""
    from dynin.data.records.reader import open_reader
    from dynin.data.records.template import Template

    return open_reader(source, None if template is None else Template.read(template))


def _num_rows(reader: "RecordReader") -> int:
    """How many rows there are; 0 where nobody knows."""
    from dynin.data.records.reader import IndexedReader

    return len(reader) if isinstance(reader, IndexedReader) else 0


def _absolute(name: str) -> str:
    """A source or model as workers in other folders find it; what is no path stays as it is."""
    is_path = Path(name).exists() or any(sign in name for sign in "*{") or name.endswith((".tar", ".toml"))
    return str(Path(name).absolute()) if is_path and not name.startswith("hf:") else name
