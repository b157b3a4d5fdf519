"""`dynin plan`: what a request or a training will take, before anything is loaded.

Enters: flags. Leaves: a table of bytes by part, or one JSON object. Does not know how much anything takes.
"""

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from dynin.errors import RequestError

if TYPE_CHECKING:
    from dynin.pipeline.plan import Plan


def plan(
    task: Annotated[str, typer.Option(help="A row of the table of tasks, such as t2i.")] = "t2i",
    model: Annotated[
        str | None, typer.Option("--model", metavar="MODEL", help="A folder, a hub id, a file MODEL.toml, or 8b.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16; of a training, what products are made in.")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="int8 or int4: the matrices of the blocks in fewer bits.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps: whose memory; it need not be here.")] = "auto",
    batch: Annotated[int, typer.Option(help="Requests at a time, or rows of a training.")] = 1,
    prompt: Annotated[int, typer.Option(metavar="IDS", help="Ids of the words that are given.")] = 64,
    size: Annotated[int, typer.Option(metavar="PX", help="Side of pictures; 0 as the task has it.")] = 0,
    train: Annotated[str | None, typer.Option(help="full or lora: plan a training step.")] = None,
    rank: Annotated[int, typer.Option(help="Of the adapters of lora.")] = 16,
    recompute: Annotated[
        bool, typer.Option("--recompute", help="A training that keeps inputs of blocks alone and runs blocks again.")
    ] = False,
    adamw: Annotated[
        bool, typer.Option("--adamw", help="A training with matrix_rate = 0: AdamW moves the matrices too.")
    ] = False,
    state_bits: Annotated[int, typer.Option(metavar="BITS", help="Of what AdamW remembers: 32 or 8.")] = 32,
    processes: Annotated[int, typer.Option(help="That a training is split over; one of them is planned.")] = 1,
    reshard: Annotated[
        bool, typer.Option("--reshard", help="Several processes with reshard = true: whole weights for each use.")
    ] = False,
    room: Annotated[float | None, typer.Option(metavar="GB", help="Say whether it fits; status 1 if not.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Say how much memory a request or a training step takes, by part; no weights are read."""
    if room is not None and not room > 0:
        raise RequestError(f"room is {room:g}; give gigabytes, such as --room 24")
    from dynin.cli import device as devices
    from dynin.pipeline.outline import outline
    from dynin.pipeline.plan import Work
    from dynin.pipeline.plan import plan as planned

    found = outline(model)
    told = found.told
    work = Work(
        task=task,
        dtype=dtype or (told.dtype if told else ""),
        weights=weights or (told.weights if told and not train else ""),
        device=devices.resolve(device).type if device == "auto" else device.partition(":")[0],
        batch=batch,
        train=train or "",
        rank=rank,
        is_recomputed=recompute,
        is_adamw=adamw,
        state_bits=state_bits,
        num_processes=processes,
        is_resharded=reshard,
        prompt_len=prompt,
        size_px=size,
    )
    made = planned(found, work)
    if as_json:
        sys.stdout.write(json.dumps(_values(made)) + "\n")
    else:
        _print(made, room)
    raise typer.Exit(0 if room is None or made.num_bytes <= room * 1e9 else 1)


def _values(plan: "Plan") -> dict[str, object]:
    return {
        "title": plan.title,
        "always": {part.name: part.num_bytes for part in plan.always},
        "in_turn": {part.name: part.num_bytes for part in plan.in_turn},
        "bytes": plan.num_bytes,
    }


def _print(plan: "Plan", room: float | None) -> None:
    """The parts that are held, those that take turns, and the sum at the fullest moment."""
    from dynin.model.room import gigabytes

    fullest = max(plan.in_turn, key=lambda part: part.num_bytes)
    typer.echo(plan.title)
    for heading, parts in (("held all the time", plan.always), ("in turn, so that the largest counts", plan.in_turn)):
        typer.echo(f"\n{heading}")
        for part in parts:
            mark = " *" if part is fullest and len(plan.in_turn) > 1 else "  "
            typer.echo(f"  {part.name:30}{gigabytes(part.num_bytes):>10}{mark} {part.about}".rstrip())
    typer.echo(f"\n{'at the fullest moment':32}{gigabytes(plan.num_bytes):>10}")
    if room is not None:
        verdict = "fits" if plan.num_bytes <= room * 1e9 else "does not fit"
        typer.echo(f"{verdict} into {room:g} GB")
