"""Published weight names and shapes to ours, and back; the only file that knows the published ones.

Enters: tensors by published name, or ours. Leaves: the other. Does not know where the tensors are stored.

    model.transformer.wte                    embed
    model.transformer.blocks.7.attn_norm     blocks.7.attention_norm
    model.transformer.blocks.7.q_proj        blocks.7.attention.query       (k_proj key, v_proj value, attn_out output)
    model.transformer.blocks.7.ff_norm       blocks.7.mlp_norm
    model.transformer.blocks.7.ff_proj       blocks.7.mlp.gate              (up_proj up, ff_out down)
    model.transformer.ln_f                   norm
    model.transformer.ff_out                 output
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from dynin.checkpoint import require_fit
from dynin.model.config import ModelConfig
from dynin.model.transformer import Transformer

_PREFIX = "model.transformer."
IGNORED_PREFIX = "video_token_merger."
"""Of tensors that only some checkpoints have and no generation uses."""
TABLE = f"{_PREFIX}wte.weight"
"""The embedding table, whose rows are the vocabulary."""
_OUTER = {"wte": "embed", "ln_f": "norm", "ff_out": "output"}
_INNER = {
    "attn_norm": "attention_norm",
    "q_proj": "attention.query",
    "k_proj": "attention.key",
    "v_proj": "attention.value",
    "attn_out": "attention.output",
    "ff_norm": "mlp_norm",
    "ff_proj": "mlp.gate",
    "up_proj": "mlp.up",
    "ff_out": "mlp.down",
}


def published_names(config: ModelConfig) -> dict[str, str]:
    """Every published name of a model of this shape, with ours."""
    names = {f"{_PREFIX}{theirs}.weight": f"{ours}.weight" for theirs, ours in _OUTER.items()}
    for layer in range(config.num_layers):
        for theirs, ours in _INNER.items():
            names[f"{_PREFIX}blocks.{layer}.{theirs}.weight"] = f"blocks.{layer}.{ours}.weight"
    return names


def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Our names with their shapes, without allocating any memory."""
    with torch.device("meta"):
        model = Transformer(config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def from_published(tensors: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Tensors by our names, sharing memory with the given ones.

    The extra tensors of checkpoints trained with video merging are passed over; generation never uses them.

    Raises:
        CheckpointError: Listing every name that is missing or unknown and every shape that is wrong.
    """
    names, shapes = published_names(config), expected_shapes(config)
    given = {name: tensor for name, tensor in tensors.items() if not name.startswith(IGNORED_PREFIX)}
    require_fit({theirs: shapes[ours] for theirs, ours in names.items()}, given)
    return {ours: given[theirs] for theirs, ours in names.items()}


def to_published(tensors: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """The inverse of `from_published`, with the same errors."""
    require_fit(expected_shapes(config), tensors)
    return {theirs: tensors[ours] for theirs, ours in published_names(config).items()}
