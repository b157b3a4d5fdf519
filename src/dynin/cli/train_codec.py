"""`dynin train-codec`: the embedded tokenizers, each from one TOML file.

Enters: which codec, a config and overrides. Leaves: the codec in the folder that the config names. Does not know
losses.
"""

from pathlib import Path
from typing import Annotated

import typer

from dynin.config import suggest
from dynin.errors import RequestError

CODECS = ("image", "speech")
CONFIG_FOLDER = Path("configs/train")


def train_codec(
    codec: Annotated[str, typer.Argument(help="Which tokenizer: image or speech.")],
    config: Annotated[
        Path | None, typer.Option(metavar="TOML", help="Settings; configs/train/codec-CODEC.toml if left out.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting; may be repeated.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
) -> None:
    """Train a tokenizer of the embedded model, or resume where it was stopped."""
    if codec not in CODECS:
        raise RequestError(f"unknown codec {codec!r}{suggest(codec, CODECS)}")
    from dynin import config as configs
    from dynin.cli import device as devices
    from dynin.cli.progress import Progress
    from dynin.training import codec_run
    from dynin.training.codec_run import ImageCodecRun, SpeechCodecRun

    path = config or CONFIG_FOLDER / f"codec-{codec}.toml"
    if codec == "image":
        image = configs.load(path, ImageCodecRun, settings or [])
        steps = Progress("step", image.training.num_steps)
        codec_run.run_image(image, device=devices.resolve(device), report=steps)
        typer.echo(f"image tokenizer: {image.output}")
    else:
        speech = configs.load(path, SpeechCodecRun, settings or [])
        codec_run.run_speech(
            speech,
            device=devices.resolve(device),
            report=Progress("step", speech.training.num_steps),
            report_spoken=Progress("sentence", speech.sentences.world + speech.sentences.general),
        )
        typer.echo(f"speech tokenizer: {speech.output}")
