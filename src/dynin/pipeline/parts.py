"""Which tokenizer a folder holds: told from its files, read by its own module, and of the large ones only when needed.

Enters: a folder, or a part of a model of ours. Leaves: tokenizers of pictures and speech. Does not know backbones.

    our own format (checkpoint.py)          the embedded codecs
    MAGVIT-v2 weights                       tokenizers.magvit2
    EMOVA config and weights                tokenizers.emova

Where a model's media tokenizers are, unless the caller says so: as `image/` and `speech/` in its own folder, else

    vocabulary    image                 speech
    published     snu-aidas/magvitv2    snu-aidas/emova_speech_tokenizer_hf
    mmada         showlab/magvitv2
"""

import math
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import torch
from torch import nn

from dynin import checkpoint
from dynin.checkpoint import Checkpoint
from dynin.errors import CheckpointError, RequestError
from dynin.model.room import require_memory
from dynin.repository import open_repository, read_json
from dynin.tokenizers.bundle import Tokenizers
from dynin.tokenizers.deferred import DeferredImage, DeferredSpeech
from dynin.tokenizers.protocol import ImageTokenizer, SpeechTokenizer
from dynin.tokenizers.small.image import SmallImageConfig, SmallImageTokenizer
from dynin.tokenizers.small.speech import SmallSpeechTokenizer, SpeechCodecConfig
from dynin.tokenizers.text import ByteLevelText
from dynin.tokenizers.video import VideoTokenizer
from dynin.vocabulary import Vocabulary

Module = TypeVar("Module", bound=nn.Module)
NUM_FRAMES = 5
"""Frames of a video that the published demonstrations look at."""
IMAGE_NUMBERS, SPEECH_NUMBERS = 95_493_513, 136_628_205
"""Numbers in the files of the published picture and speech tokenizers; all of them are held."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MediaSources:
    """Where the media tokenizers of a published model are; None for the family's own."""

    image: str | os.PathLike[str] | None = None
    """A folder or hub id of MAGVIT-v2 weights, or the `image` part of a model of ours."""
    speech: str | os.PathLike[str] | None = None
    """A folder or hub id of EMOVA weights, or the `speech` part of a model of ours."""


DEFAULTS: Mapping[str, MediaSources] = MappingProxyType(
    {
        "published": MediaSources(image="snu-aidas/magvitv2", speech="snu-aidas/emova_speech_tokenizer_hf"),
        "mmada": MediaSources(image="showlab/magvitv2"),
        "llada": MediaSources(),
    }
)


def with_media(
    folder: Path,
    text: ByteLevelText,
    layout: Vocabulary,
    sources: MediaSources,
    *,
    device: torch.device | str | None = None,
) -> Tokenizers:
    """A text tokenizer with those of media, for a model in a folder; the large ones are read when they are needed."""
    image_place = _place(folder, layout, "image", sources.image)
    speech_place = _place(folder, layout, "speech", sources.speech)

    def read_image() -> ImageTokenizer:
        place = _resolve(folder, layout, image_place, "pictures")
        require_memory(str(place), _held_bytes(place, IMAGE_NUMBERS), device)
        read = image_tokenizer(place, device=device)
        _require_room(place, "picture", read.codebook_size, len(layout.image))
        return read

    def read_speech() -> SpeechTokenizer:
        place = _resolve(folder, layout, speech_place, "speech")
        require_memory(str(place), _held_bytes(place, SPEECH_NUMBERS), device)
        read = speech_tokenizer(place, device=device)
        _require_room(place, "speech", read.codebook_size, len(layout.speech))
        return read

    image: ImageTokenizer = DeferredImage(
        load=read_image, codebook_size=len(layout.image), downsample=16, image_size=512
    )
    speech: SpeechTokenizer = DeferredSpeech(
        load=read_speech,
        codebook_size=len(layout.speech),
        input_rate_hz=16_000,
        output_rate_hz=22_050,
        frame_rate_hz=25.0,
    )
    if image_place is not None and is_ours(Path(image_place)):
        image = read_image()
    is_of_use = sources.speech is not None or len(layout.speech)  # what lies beside waits for rows of its codes
    if is_of_use and speech_place is not None and is_ours(Path(speech_place)):
        speech = read_speech()
    return Tokenizers(text=text, image=image, video=VideoTokenizer(image=image, num_frames=NUM_FRAMES), speech=speech)


def held_bytes(folder: Path, layout: Vocabulary, sources: MediaSources) -> dict[str, int]:
    """Bytes in float32 of the tokenizers of a model's pictures and speech, without reading or fetching one.

    Those in a folder are known from their headers, others are as large as the published ones; 0 where the layout of
    ids has no room for their codes.
    """
    return {
        name: _held_bytes(_place(folder, layout, name, getattr(sources, name)), usual if len(codes) else 0)
        for name, usual, codes in (("image", IMAGE_NUMBERS, layout.image), ("speech", SPEECH_NUMBERS, layout.speech))
    }


def _held_bytes(place: str | os.PathLike[str] | None, usual: int) -> int:
    """Bytes in float32 of the weights in a folder; of as many numbers as usual where they cannot be told."""
    if place is not None and any(Path(place).glob("*.safetensors")):
        with suppress(CheckpointError):  # what is wrong is said when the tokenizer is read, if it ever is
            return 4 * sum(math.prod(shape) for shape in open_repository(Path(place)).shapes.values())
    return 4 * usual


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


def _require_room(place: Path, what: str, codebook_size: int, room: int) -> None:
    if codebook_size > room:
        raise CheckpointError(
            f"{place}: this {what} tokenizer has {codebook_size:,} codes, the model knows {room:,}; use the one that "
            "the model was trained with"
        )


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


def _place(
    folder: Path, layout: Vocabulary, name: str, given: str | os.PathLike[str] | None
) -> str | os.PathLike[str] | None:
    """Where a media tokenizer is: as given, else in the model's own folder, else where the family has it."""
    default: str | os.PathLike[str] | None = getattr(DEFAULTS.get(layout.name, MediaSources()), name)
    return given or (folder / name if (folder / name).is_dir() else default)


def _resolve(folder: Path, layout: Vocabulary, place: str | os.PathLike[str] | None, what: str) -> Path:
    if place is None:
        raise RequestError(f"{folder}: a model with the layout {layout.name} knows no {what}")
    return checkpoint.resolve(place)
