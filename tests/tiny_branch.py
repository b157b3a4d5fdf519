"""Mask branches with drawn weights, small enough to answer in milliseconds, and clips for them."""

import functools
from typing import Any

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from dynin.virst.branch.build import build, small_config
from dynin.virst.branch.sam2 import Sam2Branch

SPREAD = 30.0

transformers = pytest.importorskip("transformers")

IMAGE_PX = 64
WIDTH = 128
"""Twice the width of a memory, so that a pointer becomes two tokens; the library's own loop cannot do with one."""


def sam2_config() -> dict[str, Any]:
    return small_config(IMAGE_PX, width=WIDTH, hiera_width=8, patch_px=4)


def edgetam_config() -> dict[str, Any]:
    """EdgeTAM's memory behind the image encoder of SAM2: its own encoder is a network of another package."""
    values = sam2_config()
    values["model_type"] = "edgetam_video"
    values["memory_attention_rope_k_sizes"] = [2, 2]
    values["memory_attention_mlp_hidden_size"] = values.pop("memory_attention_feed_forward_hidden_size")
    values |= {"perceiver_resampler_num_latents": 3, "perceiver_resampler_num_latents_2d": 4}
    return values


def sam3_config() -> dict[str, Any]:
    """The tracker of SAM3 behind a vision transformer of two layers."""
    values = sam2_config()
    values["model_type"] = "sam3_tracker_video"
    values["vision_config"] = {
        "model_type": "sam3_vision_model",
        "backbone_config": {
            "model_type": "sam3_vit_model",
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": IMAGE_PX,
            "pretrain_image_size": IMAGE_PX,
            "patch_size": 16,
            "window_size": 2,
            "global_attn_indexes": [1],
        },
        "fpn_hidden_size": WIDTH,
    }
    return values


@functools.cache
def shared_branch(seed: int = 0) -> Sam2Branch:
    """A branch in evaluation; it is handed to every caller, so that none may change it."""
    return make_branch(sam2_config(), seed).eval()


def make_branch(values: dict[str, Any], seed: int = 0) -> Sam2Branch:
    """A branch in which no learned code is near nothing, and object scores are not all alike, as those drawn are."""
    generator = torch.Generator().manual_seed(seed)
    branch = build(values, generator)
    with torch.no_grad():
        branch.network.mask_decoder.pred_obj_score_head.proj_out.weight.mul_(SPREAD)
        for name, value in branch.network.named_parameters():
            if "." not in name:
                value.normal_(generator=generator)
    return branch


def random_frames(count: int, seed: int = 1) -> Float[Tensor, "T 3 Y X"]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, IMAGE_PX, IMAGE_PX, generator=generator) * 2 - 1
