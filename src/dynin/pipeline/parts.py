"""Which tokenizer a folder holds: told from its files, read by its own module.

Enters: a folder, or a part of a model of ours. Leaves: a tokenizer of pictures or speech. Does not know backbones.

    our own format (checkpoint.py)          the embedded codecs
    MAGVIT-v2 weights                       tokenizers.magvit2
    EMOVA config and weights                tokenizers.emova
"""

from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from dynin import checkpoint
from dynin.checkpoint import Checkpoint
from dynin.errors import CheckpointError
from dynin.repository import read_json
from dynin.tokenizers.protocol import ImageTokenizer, SpeechTokenizer
from dynin.tokenizers.small.image import SmallImageConfig, SmallImageTokenizer
from dynin.tokenizers.small.speech import SmallSpeechTokenizer, SpeechCodecConfig

Module = TypeVar("Module", bound=nn.Module)


def image_tokenizer(folder: Path, *, device: torch.device | str | None = None) -> ImageTokenizer:
    """The tokenizer of pictures in a folder.

    Raises:
        CheckpointError: If the folder holds none, or it is damaged.
    """
    if is_ours(folder):
        return small_image(_part(folder, "image"))
    from dynin.tokenizers.magvit2 import convert

    return convert.load(folder).to(device)


def speech_tokenizer(folder: Path, *, device: torch.device | str | None = None) -> SpeechTokenizer:
    """The tokenizer of speech in a folder; errors as in `image_tokenizer`."""
    if is_ours(folder):
        return small_speech(_part(folder, "speech"))
    from dynin.tokenizers.emova import convert

    return convert.load(folder).to(device)


def is_ours(folder: Path) -> bool:
    """Whether a folder was written by `checkpoint.save`."""
    path = folder / "config.json"
    return path.is_file() and "format_version" in read_json(path)


def small_image(part: Checkpoint) -> SmallImageTokenizer:
    """The embedded model's tokenizer of pictures."""
    return _filled(SmallImageTokenizer(SmallImageConfig(**part.config)), part)  # type: ignore[arg-type]


def small_speech(part: Checkpoint) -> SmallSpeechTokenizer:
    """The embedded model's tokenizer of speech."""
    return _filled(SmallSpeechTokenizer(SpeechCodecConfig.from_dict(part.config)), part)


def _part(folder: Path, kind: str) -> Checkpoint:
    part = checkpoint.load(folder)
    if part.kind != kind:
        raise CheckpointError(f"{folder}: holds {part.kind}, expected a tokenizer of {kind}")
    return part


def _filled(module: Module, part: Checkpoint) -> Module:
    """A network with a checkpoint's weights, in float32, ready for use."""
    checkpoint.require_fit({name: tuple(value.shape) for name, value in module.state_dict().items()}, part.tensors)
    module.load_state_dict(
        {name: value.float() if value.is_floating_point() else value for name, value in part.tensors.items()}
    )
    return module.eval().requires_grad_(False)
