"""A VIRST with drawn weights, small enough to answer in a moment, and examples for it."""

from functools import partial

import numpy as np
import torch

from dynin.data.referring.example import ReferringExample
from dynin.testing import tiny
from dynin.training.config import LoraConfig
from dynin.virst.backbone.dynin import DyninBackbone
from dynin.virst.config import BackboneConfig, FrameConfig, FusionConfig, VirstConfig
from dynin.virst.model import Virst
from tests import tiny_branch

CONFIG = VirstConfig(
    num_st=2,
    frames=FrameConfig(num_frames=4, num_seg=4),
    fusion=FusionConfig(num_downs=1, initial_heads=2, heads=2, dropout=0.0),
    backbone=BackboneConfig(lora=LoraConfig(rank=2)),
)


def make_virst(config: VirstConfig = CONFIG, seed: int = 0) -> Virst:
    backbone = DyninBackbone(
        tiny(), config.backbone, num_st=config.num_st, has_distinct_st=config.has_distinct_st, seed=seed, origin="tiny"
    )
    with torch.no_grad():  # a new adapter's second factor is nothing and lets nothing through to the first
        for name, value in backbone.named_parameters():
            if ".lora_B" in name:
                value.normal_(std=0.05, generator=torch.Generator().manual_seed(seed))
    return Virst(config, backbone, tiny_branch.make_branch(tiny_branch.sam2_config(), seed), seed=seed)


def _frame(height: int, width: int, seed: int, index: int) -> np.ndarray:
    frame = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    frame[_mask(height, width, seed, index)] = (255, 0, 0)
    return frame


def _mask(height: int, width: int, seed: int, index: int) -> np.ndarray:
    mask = np.zeros((height, width), dtype=bool)
    mask[height // 4 : height // 2, (seed + index) % 4 : width // 2] = True
    return mask


def example(
    sentence: str = "the dog",
    *,
    frames: int = 4,
    height: int = 32,
    width: int = 32,
    seed: int = 0,
    is_empty: bool = False,
) -> ReferringExample:
    """A red rectangle that moves over noise; a sentence that means it, or nothing."""
    read_mask = partial(_mask, height, width, seed)
    return ReferringExample(
        video=f"video-{seed}",
        sentence_id=sentence.replace(" ", "-"),
        sentence=sentence,
        family="static",
        frame_names=tuple(f"{index:05d}" for index in range(frames)),
        height=height,
        width=width,
        read_frame=partial(_frame, height, width, seed),
        read_mask=(lambda index: np.zeros((height, width), dtype=bool)) if is_empty else read_mask,
        rate_hz=8.0,
    )
