"""`dynin virst train`: one stage of VIRST from one TOML file.

Enters: a config and overrides. Leaves: a VIRST folder. Does not know losses or stages.
"""

from pathlib import Path
from typing import Annotated

import typer

from dynin.cli.train import DeviceName, Export, ExportOnly, How, Resuming, Settings, is_first_after, report


def train(
    config: Annotated[Path, typer.Argument(help="The stage's TOML file, such as configs/virst/warm.toml.")],
    settings: Settings = None,
    device: DeviceName = "auto",
    resuming: How = Resuming.LATEST,
    export: Export = None,
    export_only: ExportOnly = False,
) -> None:
    """Train a stage of VIRST, or resume where it was stopped, and write a VIRST folder."""
    from dynin import __version__
    from dynin import config as configs
    from dynin.cli import device as devices
    from dynin.virst.training import run as runs
    from dynin.virst.training.config import VirstTrainConfig

    run = configs.load(config, VirstTrainConfig, settings or [])
    policy = resuming.policy()
    if not export_only and not is_first_after(
        lambda: runs.train(run, device=devices.resolve(device), report=report, resuming=policy)
    ):
        return
    folder = export or run.output / run.name / "model"
    datasets = sorted({told.dataset for told in run.data.values() if told.weight > 0})
    runs.export(run, folder, {"code": f"dynin {__version__}", "data": ", ".join(datasets)})
    typer.echo(f"VIRST: {folder}")
