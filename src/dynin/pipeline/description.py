"""A model told in a TOML file: where its parts are, and how its weights are held.

Enters: a TOML file, such as those in `configs/models`. Leaves: a `ModelFile`. Does not know what a part contains.

    backbone = "snu-aidas/Dynin-Omni"        a folder or hub id, also with @revision
    image = "snu-aidas/magvitv2"             left out: where the family has it
    speech = "snu-aidas/emova_speech_tokenizer_hf"
    dtype = "bfloat16"                       left out: as stored
    weights = "int8"                         or int4; left out: in that dtype
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from dynin import config
from dynin.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFile:
    """Where the parts of a model are; empty for what is not said."""

    backbone: str
    """A folder or hub id; folders are looked for beside the file too."""
    image: str = ""
    speech: str = ""
    dtype: str = ""
    """float32, bfloat16 or float16."""
    weights: str = ""
    """int8 or int4: the matrices of the blocks in fewer bits."""
    text_len: int = 0
    """Number of ids below the first image code, for models whose config does not say."""


def is_description(path_or_id: str | os.PathLike[str]) -> bool:
    """Whether a TOML file is named."""
    return Path(path_or_id).suffix == ".toml"


def read(path: str | os.PathLike[str]) -> ModelFile:
    """Read a description; ConfigError for unknown or missing keys."""
    path = Path(path)
    told = config.load(path, ModelFile)
    if told.text_len < 0:
        raise ConfigError(f"{path}: text_len is {told.text_len}; expected a positive number, or leave it out")
    return replace(
        told,
        backbone=_place(path, told.backbone),
        image=_place(path, told.image),
        speech=_place(path, told.speech),
    )


def _place(path: Path, name: str) -> str:
    """A folder beside the file where there is one, else the name as it is."""
    beside = path.parent / name
    return str(beside) if name and beside.is_dir() else name
