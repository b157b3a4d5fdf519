"""`dynin train`: one run from one TOML file.

Enters: a config and overrides. Leaves: a model folder. Does not know losses.
"""

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
) -> None:
    """Train the embedded model, or resume where a run was stopped; writes the model folder."""
    from dynin import config as configs
    from dynin.cli import device as devices
    from dynin.training import embedded
    from dynin.training.config import TrainConfig

    run = configs.load(config, TrainConfig, settings or [])
    embedded.run(run, device=devices.resolve(device), report=_report)


def _report(figures: dict[str, float]) -> None:
    """One line of figures."""
    typer.echo("  ".join(f"{name} {value:.4g}" for name, value in figures.items()))
