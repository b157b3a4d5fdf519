"""`dynin train`: one run from one TOML file.

Enters: a config and overrides. Leaves: a model folder. Does not know losses.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

DEFAULT_CONFIG = Path("configs/train/embedded.toml")


def train(
    config: Annotated[Path, typer.Argument(help="The run's TOML file.")] = DEFAULT_CONFIG,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting; may be repeated.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    export: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Train nothing: write the run's weights as a model.")
    ] = None,
) -> None:
    """Train the embedded model, or resume where a run was stopped."""
    from dynin import config as configs
    from dynin.cli import device as devices
    from dynin.training import embedded
    from dynin.training.config import TrainConfig

    run = configs.load(config, TrainConfig, settings or [])
    if export is not None:
        settings_told = json.loads(json.dumps(configs.to_dict(run), default=str))
        embedded.export(run, export, {"settings": settings_told})
        typer.echo(f"written to {export}")
        return
    embedded.run(run, device=devices.resolve(device), report=_report)
    typer.echo(f"trained; write the model with: dynin train {config} --export FOLDER")


def _report(figures: Mapping[str, int | float]) -> None:
    """One line of figures."""
    typer.echo("  ".join(f"{name} {value:.4g}" for name, value in figures.items()))
