"""`dynin virst train`: one stage of VIRST from one TOML file.

Enters: a config and overrides. Leaves: a VIRST folder. Does not know losses or stages.
"""

from pathlib import Path
from typing import Annotated

import typer

from dynin.cli.train import Resuming, report


def train(
    config: Annotated[Path, typer.Argument(help="The stage's TOML file, such as configs/virst/warm.toml.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting; may be repeated.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    resuming: Annotated[
        Resuming,
        typer.Option(
            "--resume",
            help="latest: go on exactly, or not at all. previous: from the saved step before. changed: go on although "
            "settings, data or code are others.",
        ),
    ] = Resuming.LATEST,
    export: Annotated[
        Path | None, typer.Option(metavar="DIR", help="VIRST folder; OUTPUT/NAME/model if left out.")
    ] = None,
    export_only: Annotated[
        bool, typer.Option("--export-only", help="Train nothing: write the weights that the run saved last.")
    ] = False,
) -> None:
    """Train a stage of VIRST, or resume where it was stopped, and write a VIRST folder."""
    from dynin import __version__
    from dynin import config as configs
    from dynin.cli import device as devices
    from dynin.training.resume import Policy
    from dynin.virst.training import run as runs
    from dynin.virst.training.config import VirstTrainConfig

    run = configs.load(config, VirstTrainConfig, settings or [])
    if not export_only:
        policy = Policy(is_previous=resuming == Resuming.PREVIOUS, is_exact=resuming != Resuming.CHANGED)
        runs.train(run, device=devices.resolve(device), report=report, resuming=policy)
    folder = export or run.output / run.name / "model"
    datasets = sorted({told.dataset for told in run.data.values() if told.weight > 0})
    runs.export(run, folder, {"code": f"dynin {__version__}", "data": ", ".join(datasets)})
    typer.echo(f"VIRST: {folder}")
