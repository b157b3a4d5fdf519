"""A model from one layout of files to the other: the published one, which other engines read, and ours.

Enters: a folder, a hub id or a TOML file, in either layout. Leaves: a folder in the wanted one, written whole or not at
all. Does not know tensor names.

    published    config.json  model-*.safetensors  tokenizer.json     image/  speech/ where the model carries them
    dynin        backbone/  text/                                     image/  speech/ likewise
"""

import os
import shutil
from pathlib import Path
from typing import Literal

import torch

from dynin import checkpoint, vocabulary
from dynin.checkpoint import Checkpoint
from dynin.errors import CheckpointError, RequestError, VocabularyError
from dynin.model import publish, published
from dynin.model.remap import remap
from dynin.model.transformer import Transformer
from dynin.pipeline.description import ModelFile, is_description
from dynin.pipeline.description import read as read_description
from dynin.pipeline.dynin import Dynin
from dynin.pipeline.folder import load
from dynin.pipeline.parts import MediaSources
from dynin.pipeline.published import VIDEO_KEY
from dynin.repository import DTYPES, SUMS, checked_sums, open_repository, require_replaceable
from dynin.tokenizers.text import ByteLevelText
from dynin.types import Modality
from dynin.vocabulary import Vocabulary

Layout = Literal["published", "dynin"]
MEDIA = ("image", "speech")
COPIED = (".safetensors", ".json", ".md", ".txt")


def convert(
    source: str | os.PathLike[str],
    destination: Path,
    to: Layout,
    *,
    dtype: torch.dtype | str | None = None,
    sources: MediaSources = MediaSources(),  # noqa: B008 - frozen
    text_len: int | None = None,
) -> None:
    """Write a model in a layout of files.

    Args:
        dtype: Of the backbone's weights; None keeps the stored one.
        sources: Media tokenizers to take along; by default those that a TOML file names or that the model carries.
        text_len: Move the rows so that image codes begin at this id.

    Raises:
        CheckpointError: If the source is no model, or the destination cannot be written or holds something else.
        RequestError: If weights are asked for in fewer bits.
    """
    told = read_description(source) if is_description(source) else ModelFile(backbone=os.fspath(source))
    if told.weights:
        raise RequestError(f"{os.fspath(source)}: weights in {told.weights} are not written; leave weights out of it")
    folder = checkpoint.resolve(told.backbone)
    require_replaceable(destination, folder)
    given = MediaSources(image=sources.image or told.image or None, speech=sources.speech or told.speech or None)
    model = load(
        folder, dtype=dtype or told.dtype or _stored_dtype(folder), sources=given, text_len=told.text_len or None
    )
    text, layout, network = model.tokenizers.text, model.vocabulary, model.model
    assert isinstance(text, ByteLevelText)
    if text_len is not None:
        layout, network = _moved(network, layout, text_len, folder)
    places = {name: media_place(folder, name, getattr(given, name)) for name in MEDIA}
    media = {name: place for name, place in places.items() if place is not None}
    model.tokenizers.prepare(Modality(name) for name in media)  # what cannot be read is not taken along

    def write(fresh: Path) -> None:
        if to == "published":
            more = {VIDEO_KEY: _frames(model)}
            publish.write(fresh, network, layout, text.to_json(), card=_card(folder), more=more)
        else:
            parts = _parts(model, network, layout)
            for name, part in parts.items():
                checkpoint.write_part(fresh / name, part, publish.MAX_SHARD_BYTES)
            names = sorted([*parts, *(media if layout.name == "embedded" else ())])
            checkpoint.write_part(fresh, Checkpoint(kind="model", config={"parts": names}))
        for name, place in media.items():
            copy_media(place, fresh / name)

    checkpoint.replace_folder(destination, write)


def _stored_dtype(folder: Path) -> torch.dtype:
    """What the weights are stored in; float32, which rounds nothing, where they differ."""
    home = folder if published.is_published(folder) else folder / "backbone"
    found = {stored.dtype for stored in open_repository(home).tensors.values()}
    return DTYPES.get(found.pop(), torch.float32) if len(found) == 1 else torch.float32


def _moved(network: Transformer, layout: Vocabulary, text_len: int, folder: Path) -> tuple[Vocabulary, Transformer]:
    """The network with its rows in another layout."""
    try:
        after = vocabulary.published(
            text_len,
            name=layout.name,
            size=layout.size,
            image_codes=len(layout.image),
            speech_codes=len(layout.speech),
        )
        state = remap(network.state_dict(), layout, after)
    except VocabularyError as error:
        raise CheckpointError(f"{folder}: image codes cannot begin at {text_len} ({error})") from error
    with torch.device("meta"):
        moved = Transformer(network.config)
    moved.load_state_dict(state, assign=True)
    return after, moved


def media_place(folder: Path, name: str, given: str | os.PathLike[str] | None) -> Path | None:
    """The folder of a media tokenizer that goes along, None where there is none at hand."""
    if given is not None:
        return checkpoint.resolve(given)
    beside = folder / name
    return beside if beside.is_dir() else None


def copy_media(place: Path, fresh: Path) -> None:
    """Weights, config and notes of a media tokenizer, and nothing else; with checksums, where it has none."""
    fresh.mkdir()
    names = sorted(path.name for path in place.iterdir() if path.is_file() and path.suffix in COPIED)
    for name in names:
        shutil.copyfile(place / name, fresh / name)
    if (place / SUMS).is_file():
        shutil.copyfile(place / SUMS, fresh / SUMS)
    else:
        sums = checked_sums(fresh, [fresh / name for name in names])
        (fresh / SUMS).write_text("".join(f"{digest}  {path.name}\n" for path, digest in sums.items()))


def _parts(model: Dynin, network: Transformer, layout: Vocabulary) -> dict[str, Checkpoint]:
    """Backbone and text tokenizer in our own format."""
    text = model.tokenizers.text
    assert isinstance(text, ByteLevelText)
    is_small = layout.name == "embedded"
    backbone = Checkpoint(
        kind="backbone",
        config={"network": network.config.to_dict(), "video": _frames(model)},
        tensors=network.state_dict(),
        vocabulary=layout,
        fingerprints=model.tokenizers.fingerprints() if is_small else {"text": text.fingerprint()},
    )
    words = Checkpoint(kind="text", config={}, files={"tokenizer.json": text.to_json().encode()})
    return {"backbone": backbone, "text": words}


def _frames(model: Dynin) -> dict[str, object]:
    """How the model sees and makes videos."""
    return {"num_frames": model.tokenizers.video.num_frames, "rate_hz": model.tokenizers.video.rate_hz}


def _card(folder: Path) -> str:
    """What the model's own card says, without its header."""
    path = folder / "README.md"
    if not path.is_file():
        return ""
    text = path.read_text(encoding="utf-8", errors="replace")
    if text.startswith("---\n"):
        text = text[4:].partition("\n---\n")[2]
    return text.partition("\n## Use\n")[0]
