"""Published models to `Dynin`: the backbone now, the tokenizers of pictures and voices when they are needed.

Enters: the folder of a published backbone with its text tokenizer, and where its media tokenizers are. Leaves: a
`Dynin`. Does not know tensor names or config keys; those are known to `model.published` and to the tokenizers.

    config.json   safetensors   tokenizer.json      and, where the folder carries them with it: image/  speech/
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import torch

from dynin import repository
from dynin.errors import CheckpointError
from dynin.model import published
from dynin.model.family import TextLengths, choose_layout
from dynin.model.published import CONFIG, Published
from dynin.pipeline.dynin import Dynin
from dynin.pipeline.parts import MediaSources, held_bytes, with_media
from dynin.tokenizers.text import ByteLevelText
from dynin.vocabulary import Vocabulary

VIDEO_KEY = "dynin_video"
"""Where a model of ours stores its frames and their rate in a published config."""
TEXT_FILE = "tokenizer.json"
_NAMES = MappingProxyType(
    {
        "<|startoftext|>": "bos",
        "<|endoftext|>": "eos",
        "<|mdm_mask|>": "mask",
        "<|start_header_id|>": "start_header",
        "<|end_header_id|>": "end_header",
        "<|eot_id|>": "eot",
    }
)
"""Names of the published text tokenizers whose ids the layout relies on."""


def load(
    folder: Path,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    sources: MediaSources = MediaSources(),  # noqa: B008 - frozen
    text_len: int | None = None,
    weights: str = "",
) -> Dynin:
    """Read a published model.

    Args:
        device: Where the backbone runs, and the media tokenizers with it.
        dtype: Of the backbone; None takes what most of it is stored in.
        sources: Where its media tokenizers are.
        text_len: Number of ids below the first image code, where the config does not say and the text tokenizer
            misleads.
        weights: int8 or int4, see `model.quantize`.

    Raises:
        CheckpointError: If a file is missing or damaged, config, weights and text tokenizer do not belong together, or
            the weights do not fit the memory of the device, together with those of the media tokenizers, although
            these are read when they are needed: nobody is to wait for a network that cannot be used.
    """
    found = published.read(folder)
    text, layout = read_text(found, text_len)
    frames = frames_of(found.values, folder / CONFIG)
    beside = sum(held_bytes(folder, layout, sources).values())
    published.require_room(found, device=device, dtype=dtype, weights=weights, beside=beside)
    tokenizers = with_media(folder, text, layout, sources, device=device)
    tokenizers = replace(tokenizers, video=replace(tokenizers.video, **frames))  # type: ignore[arg-type]
    network = published.load_network(found, device=device, dtype=dtype, weights=weights)
    return Dynin.assemble(network, tokenizers, layout)


def frames_of(values: Mapping[str, object], place: Path) -> Mapping[str, int | float]:
    """How many frames of a video a config tells of, and their rate; empty where it tells nothing."""
    told = values.get(VIDEO_KEY, {})
    if not isinstance(told, dict) or not all(
        key in ("num_frames", "rate_hz") and isinstance(number, int | float) and 0 < number < math.inf
        for key, number in told.items()
    ):
        raise CheckpointError(f"{place}: {VIDEO_KEY} is {told!r}, expected num_frames and rate_hz; fetch it again")
    return told


def read_text(found: Published, text_len: int | None = None) -> tuple[ByteLevelText, Vocabulary]:
    """The text tokenizer of a published model and the layout of its ids, compared with each other and with the rows.

    Raises:
        CheckpointError: If the tokenizer is missing or damaged, or they do not belong together.
    """
    path = found.repository.folder / TEXT_FILE
    if not path.is_file():
        raise CheckpointError(
            f"{path}: missing; a published model needs its text tokenizer as {TEXT_FILE} (fetch it from the same place)"
        )
    repository.verify(found.repository.folder, [path])
    text = ByteLevelText.load(path)
    lengths = TextLengths(num_ids=max([text.size - 1, *text.added.values()]) + 1, num_pieces=text.size)
    layout = choose_layout(found.values, found.config.num_rows, lengths, found.repository.folder / CONFIG, text_len)
    for name, special in _NAMES.items():
        if name in text.added and text.added[name] != layout.special.get(special, text.added[name]):
            raise CheckpointError(
                f"{path}: {name} has id {text.added[name]}, the model's is {layout[special]}; "
                "use the tokenizer that belongs to the model"
            )
    return text, layout
