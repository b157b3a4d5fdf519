"""`dynin demo`: every task on the embedded model, sentences to masks on the small VIRST, a table, and a gallery.

Enters: flags. Leaves: `out/index.html` with its media, and a table. Does not know tasks.
"""

from pathlib import Path
from typing import Annotated

import typer

from dynin.errors import RequestError


def demo(
    output: Annotated[Path, typer.Option(metavar="DIR", help="The gallery's folder.")] = Path("out"),
    seed: Annotated[int, typer.Option(help="Same seed, same gallery.")] = 0,
    model: Annotated[str | None, typer.Option(metavar="PATH_OR_ID", help="A model's folder or hub id.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    hero: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Also compose one wide picture.")] = None,
) -> None:
    """Run every task once and write a gallery, DIR/index.html."""
    if hero is not None and hero.suffix.lower() != ".png":
        raise RequestError(f"{hero} is no PNG; --hero writes FILE.png")
    from dynin.cli import device as devices
    from dynin.cli.gallery import make_gallery
    from dynin.pipeline.folder import load

    loaded = load(model, device=devices.resolve(device))
    make_gallery(loaded, output, seed=seed, hero=hero)
