"""A network to a folder in the published layout, so that other engines load what was trained here.

Enters: a `Transformer`, the layout of its ids and its text tokenizer. Leaves: a folder with `config.json`, shards and
their index under the published names, `tokenizer.json`, a model card and SHA256SUMS, written whole or not at all. Does
not know media tokenizers or tasks.

    config.json                          every key of the published config, and the layout of ids (dynin_vocabulary)
    model-00001-of-00004.safetensors ..  the published names, in the order of the layers
    model.safetensors.index.json         tokenizer.json   README.md   SHA256SUMS
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from dynin import checkpoint, repository
from dynin.model.config import ModelConfig
from dynin.model.convert import to_published
from dynin.model.family import LAYOUT_KEY, Family, family_of_layout, first_code
from dynin.model.published import CONFIG
from dynin.model.transformer import Transformer
from dynin.vocabulary import Vocabulary

_NOTHING: Mapping[str, object] = MappingProxyType({})
MAX_SHARD_BYTES = 5 * 10**9
"""As the hub's own tools split weights."""


def published_config(config: ModelConfig, layout: Vocabulary, family: Family) -> dict[str, object]:
    """Every key of a published `config.json`, and the layout of ids."""
    return {
        "model_type": family.model_types[0],
        "architectures": [_ARCHITECTURES[family.name]],
        "activation_type": "silu",
        "alibi": False,
        "attention_dropout": 0.0,
        "attention_layer_norm": False,
        "attention_layer_norm_with_affine": True,
        "bias_for_layer_norm": False,
        "block_group_size": 1,
        "block_type": "llama",
        "codebook_size": len(layout.image),
        "d_model": config.d_model,
        "embedding_dropout": 0.0,
        "embedding_size": config.num_rows,
        "eos_token_id": layout["eos"],
        "flash_attention": False,
        "include_bias": False,
        "include_qkv_bias": False,
        "init_cutoff_factor": None,
        "init_device": "meta",
        "init_fn": "mitchell",
        "init_std": 0.02,
        "input_emb_norm": False,
        "layer_norm_type": "rms",
        "layer_norm_with_affine": True,
        "llm_vocab_size": config.num_rows - len(layout.image) - len(layout.speech),
        "mask_token_id": layout["mask"],
        "max_sequence_length": config.max_len,
        "mlp_hidden_size": config.mlp_dim,
        "mlp_ratio": 4,
        "multi_query_attention": None,
        "n_heads": config.num_heads,
        "n_kv_heads": config.num_kv_heads,
        "n_layers": config.num_layers,
        "new_vocab_size": config.num_rows,
        "num_new_special_tokens": 0,
        "num_vq_tokens": 1024,
        "pad_token_id": layout["eos"],
        "precision": "amp_bf16",
        "residual_dropout": 0.0,
        "rms_norm_eps": config.norm_eps,
        "rope": True,
        "rope_full_precision": True,
        "rope_theta": config.rope_theta,
        "scale_logits": False,
        "use_cache": False,
        "vocab_size": config.num_rows,
        "weight_tying": False,
        "text_len": first_code(layout),
        LAYOUT_KEY: layout.to_dict(),
    }


_ARCHITECTURES = {"published": "DyninOmniModelLM", "mmada": "MMadaModelLM", "llada": "LLaDAModelLM"}


def save(
    folder: Path,
    model: Transformer,
    layout: Vocabulary,
    tokenizer_json: str,
    *,
    dtype: torch.dtype | None = None,
    card: str = "",
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write or replace a folder in the published layout.

    Args:
        layout: Of the ids; its name decides the family, and layouts of no family are written as Dynin-Omni's.
        tokenizer_json: The text tokenizer's file.
        dtype: Of every stored weight; None keeps them as they are.
        card: What README.md says, before how to load the model.

    Raises:
        CheckpointError: If the folder cannot be written, or holds something that is no model.
    """
    repository.require_replaceable(folder)
    checkpoint.replace_folder(
        folder,
        lambda fresh: write(
            fresh, model, layout, tokenizer_json, dtype=dtype, card=card, max_shard_bytes=max_shard_bytes
        ),
    )


def write(
    fresh: Path,
    model: Transformer,
    layout: Vocabulary,
    tokenizer_json: str,
    *,
    dtype: torch.dtype | None = None,
    card: str = "",
    more: Mapping[str, object] = _NOTHING,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Fill a folder that `checkpoint.replace_folder` made; arguments as in `save`.

    Args:
        more: Further keys of the config, which other engines pass over.
    """
    family = family_of_layout(layout)
    tensors: Mapping[str, Tensor] = to_published(model.state_dict(), model.config)
    if dtype is not None:
        tensors = {name: value.to(dtype) for name, value in tensors.items()}
    files = {
        CONFIG: checkpoint.to_json({**published_config(model.config, layout, family), **more}),
        "tokenizer.json": tokenizer_json.encode(),
        "README.md": model_card(card, family).encode(),
    }
    checkpoint.write_files(fresh, tensors, files, max_shard_bytes)


_CARD = """---
library_name: dynin
pipeline_tag: any-to-any
tags:
- {model_type}
---

{text}

## Use

```python
import dynin

model = dynin.load("FOLDER")
print(model.generate("hello", to="text").text)
```
"""


def model_card(text: str, family: Family) -> str:
    """README.md with the header that model hubs read, and how to load the model."""
    text = text.strip() or "# A masked-diffusion model in the published layout"
    return _CARD.format(model_type=family.model_types[0], text=text)
