"""The golden backbones, rebuilt from their tensors' names."""

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dynin.model.config import ModelConfig
from dynin.model.convert import from_published
from dynin.model.transformer import Transformer

FOLDER = Path(os.environ.get("DYNIN_GOLDEN", Path(__file__).parent / "golden"))


def backbone_cards() -> list[Path]:
    """The JSON files of all backbone fixtures that have their arrays beside them."""
    return [path.with_suffix(".json") for path in sorted(FOLDER.glob("backbone_*.npz"))]


def values_of(name: str, shape: tuple[int, ...], scale: float) -> Tensor:
    """The values that follow from a published tensor's name; norm weights lie around 1."""
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    values = (generator.standard_normal(shape) * scale).astype(np.float32)
    is_norm = len(shape) == 1 and name.endswith(("norm.weight", "ln_f.weight"))
    return torch.from_numpy(values + np.float32(is_norm))


def config_of(card: Mapping) -> ModelConfig:
    values, fixed = card["config"], card["fixed"]
    return ModelConfig(
        d_model=values["d_model"],
        num_heads=values["n_heads"],
        num_kv_heads=values["n_kv_heads"],
        num_layers=values["n_layers"],
        mlp_dim=values["mlp_hidden_size"],
        num_rows=values["embedding_size"],
        max_len=256,
        rope_theta=values["rope_theta"],
        norm_eps=fixed["rms_norm_eps"],
    )


def golden_tensors(card: Mapping) -> dict[str, Tensor]:
    """All tensors of a fixture by published name."""
    return {name: values_of(name, tuple(shape), card["weight_scale"]) for name, shape in card["tensors"].items()}


def golden_model(path: Path) -> Transformer:
    """The model of a fixture in float32, ready to compare."""
    card = json.loads(path.read_text())
    config = config_of(card)
    model = Transformer(config)
    model.load_state_dict(from_published(golden_tensors(card), config))
    return model.eval()
