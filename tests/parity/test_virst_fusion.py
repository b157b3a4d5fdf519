"""Both fusions of VIRST against recorded numbers of the published modules; weights follow from their names."""

import json
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from dynin.virst.cells import SeenFrames
from dynin.virst.config import FusionConfig
from dynin.virst.fusion import InitialFusion, SecondFusion

FOLDER = Path(os.environ.get("DYNIN_GOLDEN", Path(__file__).parent / "golden"))
TABLE = FOLDER / "virst_fusion_tensors.json"
RECORDED = sorted(FOLDER.glob("virst_fusion_*.npz")) if TABLE.is_file() else []
INITIAL, SECOND = "initial_seg_fusion_module.", "seg_prompter."
NUM_FRAMES, NUM_ST, ST_DIM, DIM, SIDE = 3, 10, 128, 256, 64


def values_of(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """The values that follow from a published tensor's name."""
    if not shape:
        return torch.tensor(0.1)
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    values = torch.from_numpy(generator.standard_normal(shape).astype(np.float32))
    if len(shape) == 1:
        return values * 0.1 + float("norm" in name and name.endswith("weight"))
    return values / np.prod(shape[1:]) ** 0.5


def filled(module: torch.nn.Module, prefix: str) -> torch.nn.Module:
    """A module with the published names and shapes, every tensor of them."""
    table = {name: tuple(shape) for name, shape in json.loads(TABLE.read_text()).items()}
    state = {name.removeprefix(prefix): values_of(name, table[name]) for name in table if name.startswith(prefix)}
    module.load_state_dict(state, strict=True)
    return module.eval()


def inputs(seed: int) -> tuple[SeenFrames, torch.Tensor]:
    draw = np.random.Generator(np.random.PCG64(seed))
    features = draw.standard_normal((1, NUM_FRAMES, DIM, SIDE, SIDE)).astype(np.float32)
    embeddings = draw.standard_normal((1, NUM_ST, ST_DIM)).astype(np.float32)
    seen = SeenFrames(
        features=torch.from_numpy(features),
        is_frame=torch.ones(1, NUM_FRAMES, dtype=torch.bool),
        times=torch.arange(NUM_FRAMES, dtype=torch.float32)[None],
    )
    return seen, torch.from_numpy(embeddings)


def largest_difference(ours: torch.Tensor, recorded: np.ndarray) -> float:
    assert tuple(ours.shape) == recorded.shape
    return float(np.abs(ours.numpy() - recorded).max() / np.abs(recorded).max())


@pytest.mark.skipif(not RECORDED, reason=f"no fixture virst_fusion_*.npz in {FOLDER}")
@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
@torch.no_grad()
def test_both_fusions_give_the_recorded_numbers(path: Path):
    recorded = np.load(path)
    seen, embeddings = inputs(int(recorded["seed"]))
    assert seen.features.double().sum().item() == pytest.approx(float(recorded["feature_checksum"]))
    videos = torch.zeros(1, dtype=torch.long)
    config = FusionConfig()
    fused = filled(InitialFusion(ST_DIM, DIM, config), INITIAL)(embeddings, seen, videos)
    assert largest_difference(fused, recorded["initial"]) < 1e-4
    second = filled(SecondFusion(ST_DIM, DIM, config), SECOND)
    prompts = second(torch.from_numpy(recorded["initial"]), seen, videos)
    assert largest_difference(prompts.tokens, recorded["prompts"]) < 1e-4
    scored = second(fused, seen, videos, wants_scores=True)
    assert largest_difference(scored.tokens, recorded["prompts"]) < 1e-4
    assert scored.frame_scores.sum().item() == pytest.approx(1 / 64)


@torch.no_grad()
def test_the_published_sizes_have_the_published_numbers_of_weights():
    with torch.device("meta"):
        initial, second = InitialFusion(3584, 256, FusionConfig()), SecondFusion(3584, 256, FusionConfig())
    assert sum(value.numel() for value in initial.state_dict().values()) == 54_100_737
    assert sum(value.numel() for value in second.state_dict().values()) == 4_795_392
