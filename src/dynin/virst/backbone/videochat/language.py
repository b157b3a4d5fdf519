"""The language model, Qwen2, from the package `transformers`; the only file here that imports it.

Enters: sizes, or a folder. Leaves: a module from embeddings to normalised states, whose weights mean nothing yet; or
the folder's tokenizer. Does not know videos.
"""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from dynin.errors import CheckpointError, RequestError
from dynin.optional import import_quietly
from dynin.tokenizers.text import ByteLevelText
from dynin.virst.backbone.videochat.config import LanguageConfig

TOKENIZER = "tokenizer.json"
_PARTS = ("vocab.json", "merges.txt")


def build(config: LanguageConfig) -> Any:
    """A `Qwen2Model`: `inputs_embeds`, `attention_mask` and `position_ids` to `last_hidden_state`.

    Raises:
        RequestError: If the package is missing.
    """
    library = _library("models.qwen2.modeling_qwen2")
    settings = library.Qwen2Config(
        vocab_size=config.num_rows,
        hidden_size=config.width,
        intermediate_size=config.mlp_dim,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_kv_heads,
        max_position_embeddings=config.max_len,
        rms_norm_eps=config.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        tie_word_embeddings=False,
        use_cache=False,
    )
    return library.Qwen2Model(settings)


def refresh_rotary(language: nn.Module) -> None:
    """Make the rotary frequencies anew, in float32, on the device of the weights.

    They follow from the sizes and are in no file: a model that was built without memory has none, and one that was
    turned into a shorter type has coarse ones, which are off by whole turns after some hundred positions.
    """
    rotary: Any = language.rotary_emb
    language.rotary_emb = type(rotary)(config=rotary.config).to(next(language.parameters()).device)


def read_text(folder: Path) -> ByteLevelText:
    """The text tokenizer of a folder: `tokenizer.json`, or the older `vocab.json` and `merges.txt`.

    Raises:
        CheckpointError: If there is neither, or it is damaged.
        RequestError: If the older files are to be read and the package is missing.
    """
    if (folder / TOKENIZER).is_file():
        return ByteLevelText.load(folder / TOKENIZER)
    if missing := [name for name in _PARTS if not (folder / name).is_file()]:
        raise CheckpointError(
            f"{folder}: has no {TOKENIZER}, and not {' and '.join(missing)} either; name the folder of "
            "VideoChat-Flash's tokenizer"
        )
    try:
        made = _library("models.qwen2.tokenization_qwen2").Qwen2Tokenizer.from_pretrained(folder, local_files_only=True)
        values = json.loads(made.backend_tokenizer.to_str())
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{folder}: {_PARTS[0]} and {_PARTS[1]} are no tokenizer; fetch them again") from error
    return ByteLevelText.from_json(json.dumps(values), str(folder))


def _library(name: str) -> ModuleType:
    try:
        return import_quietly(f"transformers.{name}")
    except ImportError as error:
        raise RequestError(
            "VideoChat-Flash needs the package transformers, which is missing or older than 5.17; run: "
            "pip install 'dynin[published]'"
        ) from error
