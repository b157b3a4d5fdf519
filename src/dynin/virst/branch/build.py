"""Settings to a mask branch and back; the only file that builds networks of `transformers` for masks.

Enters: a config as plain values, a generator. Leaves: a branch with drawn weights, to be trained or filled. Does not
know files or published names.

The package is an optional extra and is imported when the first branch is built.
"""

import json
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn

from dynin.config import suggest
from dynin.errors import ConfigError, RequestError
from dynin.optional import import_quietly, quietly
from dynin.virst.branch.edgetam import FAMILIES
from dynin.virst.branch.sam2 import SAM2, Sam2Branch

MEMORY_WIDTH = 64
"""Width of memory tokens; the memory attention of `transformers` reads no other."""

COARSE_STRIDE = 4
"""Cells are this many times coarser than mask logits."""
_OLD_THETA = "memory_attention_rope_theta"
"""As published configs name the base of the memory attention's angles; the library warns about the name."""
_REFUSALS = (TypeError, ValueError, KeyError, AttributeError, RuntimeError, ImportError, StrictDataclassError)


def library() -> ModuleType:
    """The package `transformers`; RequestError with the command that installs it where it is missing."""
    try:
        return import_quietly("transformers")
    except ImportError as error:
        raise RequestError(
            "the package transformers is missing and masks are made by one of its networks; "
            "run: pip install 'dynin[segmentation]'"
        ) from error


def small_config(
    image_px: int = 64, *, width: int = 64, hiera_width: int = 24, num_layers: int = 2, patch_px: int = 2
) -> dict[str, object]:
    """A SAM2 of about a million parameters, to be trained from the start on small frames.

    The memory encoder takes masks at the size of the frame; the library's own loop enlarges them to 16 times the cells,
    so it could not run a branch with patches of fewer than 4 px.

    Args:
        image_px: Side of the frames; a multiple of 16 times `patch_px`.
        width: Of prompts, cells and pointers; a multiple of `MEMORY_WIDTH`.
        hiera_width: Of the first of the image encoder's four stages; each later one is twice as wide.
        num_layers: Of memory attention, and of the mask decoder.
        patch_px: Pixels from one patch to the next: mask logits are so much coarser than the frame, cells four times
            more.

    Raises:
        ConfigError: If the sizes do not fit each other.
    """
    if width % MEMORY_WIDTH or image_px % (16 * patch_px) or min(width, image_px, hiera_width, num_layers) < 1:
        raise ConfigError(
            f"a mask branch of width {width} for frames of {image_px} px in patches of {patch_px} px was asked for, "
            f"expected a width that is a multiple of {MEMORY_WIDTH} and a side that is a multiple of {16 * patch_px} px"
        )
    logits = image_px // patch_px
    cells = logits // COARSE_STRIDE
    widths = [hiera_width * 2**stage for stage in range(4)]
    return {
        "model_type": SAM2.model_type,
        "image_size": image_px,
        "vision_config": {
            "backbone_config": {
                "model_type": "sam2_hiera_det_model",
                "hidden_size": hiera_width,
                "image_size": [image_px, image_px],
                "patch_kernel_size": [2 * patch_px - 1, 2 * patch_px - 1],
                "patch_stride": [patch_px, patch_px],
                "patch_padding": [patch_px - 1, patch_px - 1],
                "embed_dim_per_stage": widths,
                "num_attention_heads_per_stage": [1, 2, 4, 8],
                "blocks_per_stage": [1, 1, 2, 1],
                "global_attention_blocks": [3],
                "window_size_per_stage": [8, 4, 8, 4],
                "window_positional_embedding_background_size": [cells, cells],
            },
            "backbone_channel_list": widths[::-1],
            "backbone_feature_sizes": [[logits, logits], [logits // 2, logits // 2], [cells, cells]],
            "fpn_hidden_size": width,
        },
        "prompt_encoder_config": {
            "hidden_size": width,
            "image_size": image_px,
            "patch_size": patch_px * COARSE_STRIDE,
            "mask_input_channels": 4,
        },
        "mask_decoder_config": {
            "hidden_size": width,
            "mlp_dim": 2 * width,
            "num_hidden_layers": num_layers,
            "num_attention_heads": 4,
            "iou_head_hidden_dim": width,
        },
        "memory_attention_hidden_size": width,
        "memory_attention_num_layers": num_layers,
        "memory_attention_feed_forward_hidden_size": 2 * width,
        "memory_attention_dropout": 0.0,
        "memory_attention_rope_dropout": 0.0,
        "memory_attention_rope_feat_sizes": [cells, cells],
        "memory_encoder_hidden_size": width,
        "memory_encoder_output_channels": MEMORY_WIDTH,
        "mask_downsampler_total_stride": 1 << (patch_px * COARSE_STRIDE).bit_length() - 1,  # halved so often it can be
        "mask_downsampler_embed_dim": width,
        "memory_fuser_embed_dim": width,
        "memory_fuser_intermediate_dim": 2 * width,
        "memory_fuser_layer_scale_init_value": 0.1,
    }


def build(values: Mapping[str, object], generator: torch.Generator | None = None) -> Sam2Branch:
    """A branch with weights drawn by the generator; without one they mean nothing and wait to be filled.

    Args:
        values: A config of `transformers` as plain values; its `model_type` says the family. What it does not name has
            the library's default, which is that of SAM2.1.

    Raises:
        ConfigError: If the family is unknown, or the library refuses the values.
        RequestError: If the library is missing.
    """
    family = FAMILIES.get(str(values.get("model_type")))
    if family is None:
        received = str(values.get("model_type"))
        raise ConfigError(
            f"a mask branch of model type {received!r} was asked for, expected one of "
            f"{', '.join(FAMILIES)}{suggest(received, FAMILIES)}"
        )
    package = library()
    given = dict(values)
    if (theta := given.pop(_OLD_THETA, None)) is not None:
        given.setdefault("rope_parameters", {"rope_type": "axial", "rope_theta": theta})
    try:
        with quietly(), torch.random.fork_rng(devices=[]):  # what the library draws is drawn anew or filled
            config = getattr(package, family.config_name).from_dict(given)
            network = getattr(package, family.class_name)(config)
    except _REFUSALS as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"the config makes no {family.class_name} ({reason}); correct the config of the branch"
        ) from error
    if generator is not None:
        initialise(network, generator)
    return Sam2Branch(network.train(), family)


def config_values(branch: Sam2Branch) -> dict[str, object]:
    """The config that `build` makes the same network from."""
    return json.loads(json.dumps(branch.network.config.to_dict(), default=str))


@torch.no_grad()
def initialise(network: Any, generator: torch.Generator) -> None:
    """Draw every weight.

    | tensor | drawn from |
    | --- | --- |
    | matrices and kernels of layers | uniform, within 1 / sqrt(inputs) |
    | their biases | 0 |
    | norms | 1, their biases 0 |
    | learned tokens | normal |
    | learned position and time codes, marks of absence | normal of deviation 0.02 |
    | scales of the memory fuser's layers | as its config says |

    The random frequencies that code positions in the frame are drawn once and stand at both of their places.
    """
    modules: list[Any] = list(network.modules())
    for module in modules:
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            fan_in = module.weight.shape[0] if isinstance(module, nn.ConvTranspose2d) else module.weight[0].numel()
            bound = float(fan_in) ** -0.5
            module.weight.uniform_(-bound, bound, generator=generator)
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.LayerNorm):
            module.weight.fill_(1)
            module.bias.zero_()
        elif isinstance(module, nn.Embedding):
            module.weight.normal_(generator=generator)
        else:
            for name, value in module.named_parameters(recurse=False):
                if name == "scale":
                    value.fill_(network.config.memory_fuser_layer_scale_init_value)
                else:
                    value.normal_(std=0.02, generator=generator)
    frequencies, again = network.shared_image_embedding, network.prompt_encoder.shared_embedding
    frequencies.positional_embedding.normal_(std=frequencies.scale, generator=generator)
    again.positional_embedding.copy_(frequencies.positional_embedding)
