"""`dynin convert`: a model to another layout of files.

Enters: flags. Leaves: a folder. Does not know file formats.
"""

from pathlib import Path
from typing import Annotated

import typer

from dynin.config import suggest
from dynin.errors import RequestError

LAYOUTS = ("published", "dynin")


def convert(
    source: Annotated[str, typer.Argument(help="A folder, a hub id, also with @revision, or a file MODEL.toml.")],
    destination: Annotated[Path, typer.Argument(help="The folder to be written.")],
    to: Annotated[str, typer.Option(help="published (what other engines read) or dynin.")] = "published",
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16; as stored if left out.")] = None,
    image: Annotated[str | None, typer.Option(metavar="PATH_OR_ID", help="A picture tokenizer to take along.")] = None,
    speech: Annotated[str | None, typer.Option(metavar="PATH_OR_ID", help="A speech tokenizer to take along.")] = None,
    text_len: Annotated[int | None, typer.Option(help="Move the rows: image codes begin at this id.")] = None,
    from_pickle: Annotated[
        bool, typer.Option("--from-pickle", help="Only turn pickled weights (.bin, .pt) into safetensors.")
    ] = False,
) -> None:
    """Write a model in the published layout, or in this project's own."""
    if to not in LAYOUTS:
        raise RequestError(f"unknown layout {to!r}{suggest(to, LAYOUTS)}")
    if from_pickle:
        given = {"--to": to != "published", "--dtype": dtype, "--image": image, "--speech": speech}
        if ignored := [flag for flag, value in {**given, "--text-len": text_len}.items() if value]:
            raise RequestError(f"--from-pickle only rewrites the files; leave {', '.join(ignored)} to a second convert")
        from dynin import checkpoint
        from dynin.pickled import to_safetensors

        to_safetensors(checkpoint.resolve(source, is_pickled=True), destination)
    else:
        from dynin.pipeline import convert as converting
        from dynin.pipeline.parts import MediaSources

        converting.convert(
            source,
            destination,
            "published" if to == "published" else "dynin",
            dtype=dtype,
            sources=MediaSources(image=image, speech=speech),
            text_len=text_len,
        )
    typer.echo(str(destination))
