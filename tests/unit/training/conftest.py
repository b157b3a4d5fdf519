"""A network small enough for plain loops."""

import pytest
import torch

from dynin.model.config import ModelConfig
from dynin.model.transformer import Transformer, initialise
from dynin.vocabulary import EMBEDDED


@pytest.fixture
def model():
    config = ModelConfig(
        d_model=16, num_heads=2, num_kv_heads=2, num_layers=1, mlp_dim=24, num_rows=EMBEDDED.size, max_len=200
    )
    model = Transformer(config)
    initialise(model, torch.Generator().manual_seed(0))
    return model
