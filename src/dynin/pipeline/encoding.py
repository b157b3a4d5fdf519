"""A model's tokenizers without its network: what preparing data needs.

Enters: what names a model. Leaves: an `Encoding`. Does not know rows or caches. Published models are read up to the
headers of their weights; their media tokenizers are read when they are first used.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from dynin import checkpoint
from dynin.errors import CheckpointError
from dynin.model import published
from dynin.model.config import ModelConfig
from dynin.model.published import CONFIG, is_published
from dynin.pipeline.description import is_description
from dynin.pipeline.description import read as read_description
from dynin.pipeline.folder import EMBEDDED_FOLDER
from dynin.pipeline.parts import MediaSources, small_image, small_speech, with_media
from dynin.pipeline.published import frames_of, read_text
from dynin.sequence.task import TABLES, Task
from dynin.tokenizers.bundle import Tokenizers
from dynin.tokenizers.text import ByteLevelText
from dynin.tokenizers.video import VideoTokenizer
from dynin.vocabulary import Vocabulary


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Encoding:
    """All of a model that turns values into rows."""

    tokenizers: Tokenizers
    vocabulary: Vocabulary
    max_len: int

    @property
    def tasks(self) -> Mapping[str, Task]:
        """The task table of the vocabulary."""
        return TABLES[self.vocabulary.name]


def read(path_or_id: str | os.PathLike[str] | None = None, *, device: torch.device | str | None = None) -> Encoding:
    """The tokenizers of a model; None takes the one that ships with the code. Names and errors as in `folder.load`.

    Args:
        device: Where the tokenizers of published models compute.
    """
    sources = MediaSources()
    text_len = None
    if path_or_id is not None and is_description(path_or_id):
        told = read_description(path_or_id)
        sources, text_len = MediaSources(image=told.image or None, speech=told.speech or None), told.text_len or None
        path_or_id = told.backbone
    folder = EMBEDDED_FOLDER if path_or_id is None else checkpoint.resolve(path_or_id)
    if is_published(folder):
        found = published.read(folder)
        text, layout = read_text(found, text_len)
        tokenizers = with_media(folder, text, layout, sources, device=device)
        rates = frames_of(found.values, folder / CONFIG)
        tokenizers = replace(tokenizers, video=replace(tokenizers.video, **rates))  # type: ignore[arg-type]
        return Encoding(tokenizers=tokenizers, vocabulary=layout, max_len=found.config.max_len)
    backbone = checkpoint.read_config(folder / "backbone")
    if backbone.vocabulary is None or backbone.vocabulary.name not in TABLES:
        raise CheckpointError(f"{folder / 'backbone'} has no known vocabulary layout; known: {', '.join(TABLES)}")
    text = ByteLevelText.from_json(checkpoint.load(folder / "text").files["tokenizer.json"].decode(), f"{folder}/text")
    network: Mapping[str, object] = backbone.config["network"]  # type: ignore[assignment]
    if backbone.vocabulary.name == "embedded":
        image = small_image(checkpoint.load(folder / "image"))
        frames: Mapping[str, float] = backbone.config["video"]  # type: ignore[assignment]
        video = VideoTokenizer(image=image, num_frames=int(frames["num_frames"]), rate_hz=float(frames["rate_hz"]))
        speech = small_speech(checkpoint.load(folder / "speech"))
        tokenizers = Tokenizers(text=text, image=image, video=video, speech=speech)
    else:
        tokenizers = with_media(folder, text, backbone.vocabulary, sources, device=device)
    return Encoding(
        tokenizers=tokenizers, vocabulary=backbone.vocabulary, max_len=ModelConfig.from_dict(network).max_len
    )
