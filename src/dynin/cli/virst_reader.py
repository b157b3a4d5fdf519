"""`dynin virst train-reader`: a network that reads frames for the masked-diffusion backbone, from one TOML file.

Enters: a config and overrides. Leaves: a folder that `model.backbone.reader_start` takes. Does not know losses.
"""

from pathlib import Path
from typing import Annotated

import typer

from dynin.cli.train import DeviceName, Export, ExportOnly, How, Resuming, Settings, is_first_after, report

DEFAULT_CONFIG = Path("configs/virst/reader.toml")


def train_reader(
    config: Annotated[Path, typer.Argument(help="The run's TOML file.")] = DEFAULT_CONFIG,
    settings: Settings = None,
    device: DeviceName = "auto",
    resuming: How = Resuming.LATEST,
    export: Export = None,
    export_only: ExportOnly = False,
) -> None:
    """Train a reader of frames, or resume where it was stopped, write it, and measure it on what is held out."""
    from dynin import __version__
    from dynin import config as configs
    from dynin.cli import device as devices
    from dynin.pipeline import folder as models
    from dynin.virst.training import reader
    from dynin.virst.training.reader_config import ReaderTrainConfig
    from dynin.virst.training.reader_source import PatchDrawer

    run = configs.load(config, ReaderTrainConfig, settings or [])
    tokenizer = models.load(run.init or None, device="cpu").tokenizers.image
    policy = resuming.policy()
    if not export_only and not is_first_after(
        lambda: reader.train(run, tokenizer, device=devices.resolve(device), report=report, resuming=policy)
    ):
        return
    folder = export or run.output / run.name / "model"
    found = reader.export(run, folder, {"code": f"dynin {__version__}", "data": "emoji-world"})
    held_out = PatchDrawer.open(run, tokenizer, "held_out")
    report({"held_out": "emoji-world", **reader.measure(found, held_out, run.held_out_videos)})  # type: ignore[dict-item]
    typer.echo(f"reader: {folder}")
