"""Greedy block decoding equals the published sampler token for token, on every backbone fixture of the folder.

Fixture: `backbone_*.npz` beside `backbone_*.json`. Weights follow from their names, in float32 on a CPU; tokens must be
equal, since the recorded runs have no near-ties at float32 accuracy.
"""

import json
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dynin.decoding.canvas import Canvas, Segment
from dynin.decoding.decoder import ParallelDecoder
from dynin.decoding.policy import published_text
from dynin.model.config import ModelConfig
from dynin.model.convert import from_published
from dynin.model.transformer import Transformer

GOLDEN = Path(os.environ.get("DYNIN_GOLDEN") or Path(__file__).parent / "golden")
FIXTURES = sorted(GOLDEN.glob("backbone_*.npz"))
PROMPT_LEN = 16
# new places, steps, block length, guidance scale
RUNS = {
    "decode_a": (32, 32, 8, 0.0),
    "decode_b": (32, 16, 16, 0.0),
    "decode_c": (24, 12, 24, 0.0),
    "decode_cfg": (32, 16, 16, 1.5),
}


def weights_from_names(card: dict) -> dict[str, Tensor]:
    """The recorded run's weights: normal numbers seeded by each tensor's name."""
    tensors = {}
    for name, shape in card["tensors"].items():
        rng = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
        value = (rng.standard_normal(shape) * card["weight_scale"]).astype(np.float32)
        is_norm = len(shape) == 1 and name.endswith(("norm.weight", "ln_f.weight"))
        tensors[name] = torch.from_numpy(value + np.float32(is_norm))
    return tensors


class ModelDenoiser:
    """The backbone as the decoder wants it."""

    def __init__(self, card: dict) -> None:
        given = card["config"]
        config = ModelConfig(
            d_model=given["d_model"],
            num_heads=given["n_heads"],
            num_kv_heads=given["n_kv_heads"],
            num_layers=given["n_layers"],
            mlp_dim=given["mlp_hidden_size"],
            num_rows=given["embedding_size"],
            max_len=4096,
            rope_theta=given["rope_theta"],
            norm_eps=card["fixed"]["rms_norm_eps"],
        )
        self.model = Transformer(config)
        self.model.load_state_dict(from_published(weights_from_names(card), config))

    def __call__(self, ids: Tensor, attend: Tensor | None, rows: Tensor, allowed: Tensor | None) -> Tensor:
        return self.model.head(self.model.hidden(ids, attend).flatten(0, 1)[rows], allowed)


@pytest.fixture(scope="module", params=FIXTURES, ids=lambda path: path.stem)
def recorded(request: pytest.FixtureRequest) -> tuple[ModelDenoiser, int, dict[str, np.ndarray]]:
    """A fixture's denoiser, mask id and arrays."""
    card = json.loads(request.param.with_suffix(".json").read_text())
    with np.load(request.param) as arrays:
        return ModelDenoiser(card), card["config"]["mask_token_id"], dict(arrays)


def test_there_are_fixtures() -> None:
    assert list(GOLDEN.glob("*.npz")), f"no *.npz in {GOLDEN}"


@pytest.mark.parametrize("name", list(RUNS))
def test_greedy_block_decoding_equals_the_recorded_trace(recorded, name: str) -> None:
    denoiser, mask_id, arrays = recorded
    num_new, num_steps, block_len, scale = RUNS[name]
    prompt = torch.from_numpy(arrays["ids"][:1, :PROMPT_LEN])
    ids = torch.cat([prompt, torch.full((1, num_new), mask_id)], dim=1)
    segment = Segment(
        name="text",
        is_target=torch.arange(ids.shape[1])[None] >= PROMPT_LEN,
        allowed_ids=None,
        policy=published_text(num_new=num_new, num_steps=num_steps, block_len=block_len, guidance_scale=scale),
    )
    canvas = Canvas(ids=ids, uncond_ids=torch.full_like(ids, mask_id))
    result = ParallelDecoder(denoiser, mask_id).run(canvas, [segment])
    assert result.ids.tolist() == arrays[name].tolist()
    assert result.num_forwards == num_steps
