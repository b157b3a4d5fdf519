"""Published models to `Dynin`: the backbone now, the tokenizers of pictures and voices when they are needed.

Enters: the folder of a published backbone with its text tokenizer, and where its media tokenizers are. Leaves: a
`Dynin`. Does not know tensor names or config keys; those are known to `model.published` and to the tokenizers.

    backbone                       text              image                          speech
    snu-aidas/Dynin-Omni           tokenizer.json    snu-aidas/magvitv2             snu-aidas/emova_speech_tokenizer_hf
    Gen-Verse/MMaDA-8B-MixCoT      tokenizer.json    showlab/magvitv2
    GSAI-ML/LLaDA-8B-Instruct      tokenizer.json

A folder may carry its media tokenizers with it, as `image/` and `speech/`; those come before the defaults.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch

from dynin import checkpoint
from dynin.errors import CheckpointError, RequestError
from dynin.model import published
from dynin.model.published import Published
from dynin.pipeline.dynin import Dynin
from dynin.pipeline.parts import image_tokenizer, is_ours, speech_tokenizer
from dynin.tokenizers.bundle import Tokenizers
from dynin.tokenizers.deferred import DeferredImage, DeferredSpeech
from dynin.tokenizers.protocol import ImageTokenizer, SpeechTokenizer
from dynin.tokenizers.text import ByteLevelText
from dynin.tokenizers.video import VideoTokenizer
from dynin.vocabulary import Vocabulary

TEXT_FILE = "tokenizer.json"
NUM_FRAMES = 5
"""Frames of a video that the published demonstrations look at."""
_NAMES = MappingProxyType(
    {"<|startoftext|>": "bos", "<|endoftext|>": "eos", "<|mdm_mask|>": "mask", "<|eot_id|>": "eot"}
)
"""Names of the published text tokenizers whose ids the layout relies on."""


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


def load(
    folder: Path,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    sources: MediaSources = MediaSources(),  # noqa: B008 - frozen
    text_len: int | None = None,
) -> Dynin:
    """Read a published model.

    Args:
        device: Where the backbone runs, and the media tokenizers with it.
        dtype: Of the backbone; None as stored.
        sources: Where its media tokenizers are.
        text_len: Number of ids below the first image code, where the config does not say and the text tokenizer
            misleads.

    Raises:
        CheckpointError: If a file is missing or damaged, or config, weights and text tokenizer do not belong together.
    """
    found = published.read(folder)
    text, layout = read_text(found, text_len)
    network = published.load_network(found, device=device, dtype=dtype)
    return Dynin.assemble(network, _tokenizers(found, text, layout, sources, device), layout)


def read_text(found: Published, text_len: int | None = None) -> tuple[ByteLevelText, Vocabulary]:
    """The text tokenizer of a published model and the layout of its ids, compared with each other and with the rows."""
    path = found.repository.folder / TEXT_FILE
    if not path.is_file():
        raise CheckpointError(
            f"{path}: missing; a published model needs its text tokenizer as {TEXT_FILE} (fetch it from the same place)"
        )
    text, added = ByteLevelText.load_published(path)
    num_ids = max([text.size - 1, *added.values()]) + 1
    layout = published.choose_layout(found, num_ids, text_len)
    for name, special in _NAMES.items():
        if name in added and special in layout.special and added[name] != layout[special]:
            raise CheckpointError(
                f"{path}: {name} has id {added[name]}, the model's is {layout[special]}; "
                "use the tokenizer that belongs to the model"
            )
    return text, layout


def _tokenizers(
    found: Published,
    text: ByteLevelText,
    layout: Vocabulary,
    sources: MediaSources,
    device: torch.device | str | None,
) -> Tokenizers:
    """All four, the large ones of media deferred."""
    image_place = _place(found, "image", sources.image)
    speech_place = _place(found, "speech", sources.speech)

    def read_image() -> ImageTokenizer:
        return image_tokenizer(checkpoint.resolve(_known(found, image_place, "pictures")), device=device)

    def read_speech() -> SpeechTokenizer:
        return speech_tokenizer(checkpoint.resolve(_known(found, speech_place, "speech")), device=device)

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
    if speech_place is not None and is_ours(Path(speech_place)):
        speech = read_speech()
    return Tokenizers(text=text, image=image, video=VideoTokenizer(image=image, num_frames=NUM_FRAMES), speech=speech)


def _place(found: Published, name: str, given: str | os.PathLike[str] | None) -> str | os.PathLike[str] | None:
    """Where a media tokenizer is: as given, else in the model's own folder, else where the family has it."""
    beside = found.repository.folder / name
    default: str | os.PathLike[str] | None = getattr(DEFAULTS[found.family.name], name)
    return given or (beside if beside.is_dir() else default)


def _known(found: Published, place: str | os.PathLike[str] | None, what: str) -> str | os.PathLike[str]:
    if place is None:
        raise RequestError(f"{found.repository.folder}: a {found.family.name} model knows no {what}")
    return place
