"""`dynin virst train-likeness`: a small CLIP for anchors by text similarity, from one TOML file.

Enters: a config and overrides. Leaves: a folder that `--likeness` takes. Does not know losses.
"""

from pathlib import Path
from typing import Annotated

import typer

from dynin.cli.train import DeviceName, Export, ExportOnly, How, Resuming, Settings, is_first_after, report

DEFAULT_CONFIG = Path("configs/virst/likeness.toml")


def train_likeness(
    config: Annotated[Path, typer.Argument(help="The run's TOML file.")] = DEFAULT_CONFIG,
    settings: Settings = None,
    device: DeviceName = "auto",
    resuming: How = Resuming.LATEST,
    export: Export = None,
    export_only: ExportOnly = False,
) -> None:
    """Train a small CLIP, or resume where it was stopped, write it, and measure it on what is held out."""
    from dynin import __version__
    from dynin import config as configs
    from dynin.cli import device as devices
    from dynin.virst.training import likeness
    from dynin.virst.training.likeness_config import LikenessTrainConfig
    from dynin.virst.training.likeness_measure import measure
    from dynin.virst.training.likeness_source import open_sources

    run = configs.load(config, LikenessTrainConfig, settings or [])
    policy = resuming.policy()
    if not export_only and not is_first_after(
        lambda: likeness.train(run, device=devices.resolve(device), report=report, resuming=policy)
    ):
        return
    folder = export or run.output / run.name / "model"
    facts = {"code": f"dynin {__version__}", "data": ", ".join(sorted({told.dataset for told in run.data.values()}))}
    found = likeness.export(run, folder, facts)
    for name, source in open_sources(run.held_out, run.seed).items():
        figures = measure(found, source, run.held_out_videos, least_px=run.least_px)
        report({"held_out": name, **figures})  # type: ignore[dict-item]
    typer.echo(f"likeness: {folder}")
