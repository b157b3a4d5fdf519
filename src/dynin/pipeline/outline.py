"""A model without its weights: the shape of its network, its vocabulary, and how large its tokenizers are.

Enters: what names a model: a folder, a hub id (of which the config alone is fetched), a TOML file, `8b`, or nothing for
the embedded model. Leaves: an `Outline`. Does not know tasks; reads configs and headers, never a tensor.

    named                        known from
    a folder                     config.json, headers
    a hub id, or in a TOML       config.json; for the published ids, where that cannot be fetched, the 8B sizes
    8b                           the 8B sizes
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from dynin import checkpoint
from dynin.errors import CheckpointError, ConfigError
from dynin.model import published
from dynin.model.config import PUBLISHED_8B, ModelConfig
from dynin.model.family import FAMILIES, Family, family_of, require_known, stored_layout
from dynin.model.published import CONFIG
from dynin.pipeline.description import ModelFile, is_description
from dynin.pipeline.description import read as read_description
from dynin.pipeline.folder import EMBEDDED_FOLDER, require_ours
from dynin.pipeline.parts import NUM_FRAMES, MediaSources, held_bytes
from dynin.pipeline.published import VIDEO_KEY, frames_of
from dynin.repository import Repository, open_repository, read_json, verify
from dynin.vocabulary import Vocabulary

NAMES: Mapping[str, str] = MappingProxyType(
    {
        "8b": "published",
        "snu-aidas/Dynin-Omni": "published",
        "Gen-Verse/MMaDA-8B-MixCoT": "mmada",
        "GSAI-ML/LLaDA-8B-Instruct": "llada",
    }
)
"""Models of the 8B shape, and their families."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outline:
    """What is known of a model before its weights are read."""

    name: str
    network: ModelConfig
    vocabulary: Vocabulary
    stored_size: int
    """Bytes of a stored number."""
    file_bytes: int
    """Of the network's files that are open at a time while weights are read; 0 where unknown."""
    media_file_bytes: int = 0
    """Of the tokenizers' files that are open beside them."""
    image_bytes: int = 0
    """Of the picture tokenizer's weights as they are held, in float32."""
    speech_bytes: int = 0
    image_px: int = 512
    num_frames: int = NUM_FRAMES
    told: ModelFile | None = None
    note: str = ""
    """Where the sizes are from, if not from the model itself."""

    @property
    def is_embedded(self) -> bool:
        """Whether it has the small tokenizers, which are read with the model."""
        return self.vocabulary.name == "embedded"


def outline(path_or_id: str | os.PathLike[str] | None = None) -> Outline:
    """What a model's config and headers say.

    Raises:
        CheckpointError: If there is no such model, or its config is damaged or of another family.
    """
    told = None if path_or_id is None or not is_description(path_or_id) else read_description(path_or_id)
    name = os.fspath(EMBEDDED_FOLDER if path_or_id is None else (told.backbone if told else path_or_id))
    found = _found(name)
    if path_or_id is None:
        found = replace(found, name="the embedded model")
    if told is not None:
        found = replace(found, told=told)
    sources = MediaSources() if told is None else MediaSources(image=told.image or None, speech=told.speech or None)
    held = held_bytes(Path(name), found.vocabulary, sources)
    return replace(found, image_bytes=held["image"], speech_bytes=held["speech"])


def _found(name: str) -> Outline:
    """The outline of a backbone."""
    plain = name.partition("@")[0]
    if plain == "8b":
        return _of_family(FAMILIES[NAMES[plain]], name, "the sizes of the published 8B model")
    try:
        folder = checkpoint.resolve(name, is_config_only=True)
    except CheckpointError:
        if plain not in NAMES:
            raise
        note = f"the sizes of the published 8B model, as {CONFIG} could not be fetched"
        return _of_family(FAMILIES[NAMES[plain]], name, note)
    return _of_published(folder, name) if published.is_published(folder) else _of_ours(folder, name)


def _of_family(family: Family, name: str, note: str) -> Outline:
    return Outline(
        name=name,
        network=replace(PUBLISHED_8B, num_rows=family.num_rows),
        vocabulary=family.layout(),
        stored_size=2,
        file_bytes=0,
        note=note,
    )


def _of_published(folder: Path, name: str) -> Outline:
    place = folder / CONFIG
    values = read_json(place)
    files = _files(folder)
    network = published.config_of(values, place) if files is None else published.read(folder).config
    layout = stored_layout(values, place) or family_of(values, place).layout(num_rows=network.num_rows)
    return Outline(
        name=name,
        network=network,
        vocabulary=layout,
        stored_size=2 if files is None else files.dtype.itemsize,
        file_bytes=0 if files is None else max(shard.stat().st_size for shard in files.shards),
        num_frames=int(frames_of(values, place).get("num_frames", NUM_FRAMES)),
    )


def _of_ours(folder: Path, name: str) -> Outline:
    """A model in this project's own layout, all of whose files are open while it is read."""
    require_ours(folder)
    present = [part for part in ("backbone", "image", "speech") if (folder / part / CONFIG).is_file()]
    for part in present:
        verify(folder / part, [folder / part / CONFIG])
    backbone = checkpoint.read_config(folder / "backbone")
    if backbone.vocabulary is None:
        raise CheckpointError(f"{folder / 'backbone' / CONFIG}: names no vocabulary; expected a whole model's folder")
    require_known(backbone.vocabulary, folder / "backbone" / CONFIG)
    try:
        network = ModelConfig.from_dict(backbone.config["network"])  # type: ignore[arg-type]
    except (KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(
            f"{folder / 'backbone' / CONFIG}: tells of no network ({error}); fetch it again"
        ) from error
    files = open_repository(folder / "backbone")
    image = checkpoint.read_config(folder / "image").config if "image" in present else {}
    media = [open_repository(folder / part).num_bytes for part in present if part != "backbone"]
    frames = frames_of({VIDEO_KEY: backbone.config.get("video", {})}, folder / "backbone" / CONFIG)
    return Outline(
        name=name,
        network=network,
        vocabulary=backbone.vocabulary,
        stored_size=files.dtype.itemsize,
        file_bytes=files.num_bytes,
        media_file_bytes=sum(media),
        image_px=int(image.get("image_size", 512)),  # type: ignore[call-overload]
        num_frames=int(frames.get("num_frames", NUM_FRAMES)),
    )


def _files(folder: Path) -> Repository | None:
    """The headers of a folder that has weights, None where there is a config alone."""
    return open_repository(folder) if any(folder.glob("*.safetensors")) else None
