"""`dynin train`: one run from one TOML file.

Enters: a config and overrides. Leaves: a model folder. Does not know losses.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dynin.training.resume import Policy


class Resuming(StrEnum):
    """How a stopped run goes on."""

    LATEST = "latest"
    PREVIOUS = "previous"
    CHANGED = "changed"

    def policy(self) -> "Policy":
        """As trainings take it."""
        from dynin.training.resume import Policy

        return Policy(is_previous=self == Resuming.PREVIOUS, is_exact=self != Resuming.CHANGED)


DEFAULT_CONFIG = Path("configs/train/backbone.toml")

Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting; may be repeated.")
]
DeviceName = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
How = Annotated[
    Resuming,
    typer.Option(
        "--resume",
        help="latest: go on exactly, or not at all. previous: from the saved step before. changed: go on although "
        "settings, data, code or the number of processes are others.",
    ),
]
Export = Annotated[Path | None, typer.Option(metavar="DIR", help="Model folder; OUTPUT/NAME/model if left out.")]
ExportOnly = Annotated[
    bool, typer.Option("--export-only", help="Train nothing: write the weights that the run saved last.")
]


def is_first_after(learn: Callable[[], object]) -> bool:
    """Whether this is the first process of `torchrun`, or the only one, once all have learned together."""
    from dynin.training import processes

    processes.join()
    learn()
    is_first = processes.rank() == 0
    processes.leave()
    return is_first


def train(
    config: Annotated[Path, typer.Argument(help="The run's TOML file.")] = DEFAULT_CONFIG,
    settings: Settings = None,
    device: DeviceName = "auto",
    resuming: How = Resuming.LATEST,
    export: Export = None,
    export_only: ExportOnly = False,
) -> None:
    """Train a model, or resume where a run was stopped, and write a model folder."""
    from dynin import __version__
    from dynin import config as configs
    from dynin.cli import device as devices
    from dynin.training import run as runs
    from dynin.training.config import TrainConfig

    run = configs.load(config, TrainConfig, settings or [])
    policy = resuming.policy()
    if not export_only and not is_first_after(
        lambda: runs.run(run, device=devices.resolve(device), report=report, resuming=policy)
    ):
        return
    folder = export or run.output / run.name / "model"
    facts = {"code": f"dynin {__version__}", "data": "Emoji World, train"}
    runs.export(run, folder, facts)
    typer.echo(f"model: {folder}")


def report(figures: Mapping[str, object]) -> None:
    """One line of figures."""
    parts = (
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in figures.items()
    )
    typer.echo("  ".join(parts))
