"""Published weights to a mask branch and back; the only file that knows the published names of SAM2.

Enters: a folder, or tensors by published name. Leaves: a branch, or tensors by published name. Does not know what the
network does with them, nor pickles: `dynin.pickled` turns a published `.pt` into the safetensors that are read here.

Two layouts are read: that of `transformers`, with a config.json that says the family and the sizes; and that of SAM2
itself, whose sizes follow from the tensors. A published VIRST holds the second one below `model.seg_model.`.

    image_encoder.trunk.{patch_embed.proj, pos_embed, pos_embed_window, blocks.N.{norm1,attn,norm2,mlp.layers.N,proj}}
    image_encoder.neck.convs.N.conv    memory_attention.*    memory_encoder.*    sam_prompt_encoder.*
    sam_mask_decoder.*    obj_ptr_proj.layers.N    obj_ptr_tpos_proj    maskmem_tpos_enc    no_*    mask_downsample
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from dynin.checkpoint import require_fit
from dynin.errors import CheckpointError, ConfigError
from dynin.repository import Repository, open_repository, read_json, require_of, verify
from dynin.virst.branch.build import build
from dynin.virst.branch.edgetam import FAMILIES
from dynin.virst.branch.sam2 import SAM2, Sam2Branch

VIRST_PREFIX = "model.seg_model."
"""Where a published VIRST keeps the mask branch, once the wrapping of `peft` is taken off."""

_CONFIG = "config.json"
_IMAGE_CODE = "shared_image_embedding.positional_embedding"
_PROMPT_CODE = "prompt_encoder.shared_embedding.positional_embedding"
_POINTS = "prompt_encoder.point_embed.weight"
_PUBLISHED_POINTS = "sam_prompt_encoder.point_embeddings.{}.weight"
_HEADS = r"(iou_prediction_head|pred_obj_score_head|output_hypernetworks_mlps\.\d+|obj_ptr_proj)"
_RULES: tuple[tuple[str, str], ...] = (
    (r"^vision_encoder\.backbone\.patch_embed\.projection\.", "image_encoder.trunk.patch_embed.proj."),
    (r"^vision_encoder\.backbone\.", "image_encoder.trunk."),
    (r"^vision_encoder\.neck\.convs\.(\d+)\.", r"image_encoder.neck.convs.\1.conv."),
    (r"^prompt_encoder\.", "sam_prompt_encoder."),
    (r"^mask_decoder\.", "sam_mask_decoder."),
    (r"^memory_temporal_positional_encoding$", "maskmem_tpos_enc"),
    (r"^no_memory_embedding$", "no_mem_embed"),
    (r"^no_memory_positional_encoding$", "no_mem_pos_enc"),
    (r"^no_object_pointer$", "no_obj_ptr"),
    (r"^object_pointer_proj\.", "obj_ptr_proj."),
    (r"^temporal_positional_encoding_projection_layer\.", "obj_ptr_tpos_proj."),
    (r"^occlusion_spatial_embedding_parameter$", "no_obj_embed_spatial"),
    (r"\.shared_embedding\.positional_embedding$", ".pe_layer.positional_encoding_gaussian_matrix"),
    (r"\.mask_embed\.conv1\.", ".mask_downscaling.0."),
    (r"\.mask_embed\.layer_norm1\.", ".mask_downscaling.1."),
    (r"\.mask_embed\.conv2\.", ".mask_downscaling.3."),
    (r"\.mask_embed\.layer_norm2\.", ".mask_downscaling.4."),
    (r"\.mask_embed\.conv3\.", ".mask_downscaling.6."),
    (r"\.upscale_conv1\.", ".output_upscaling.0."),
    (r"\.upscale_layer_norm\.", ".output_upscaling.1."),
    (r"\.upscale_conv2\.", ".output_upscaling.3."),
    (r"^memory_encoder\.projection\.", "memory_encoder.out_proj."),
    (r"\.feature_projection\.", ".pix_feat_proj."),
    (r"\.memory_fuser\.", ".fuser."),
    (r"\.depthwise_conv\.", ".dwconv."),
    (r"\.pointwise_conv(\d)\.", r".pwconv\1."),
    (r"(fuser\.layers\.\d+)\.scale$", r"\1.gamma"),
    (r"\.mlp\.proj_in\.", ".mlp.layers.0."),
    (r"\.mlp\.proj_out\.", ".mlp.layers.1."),
    (rf"{_HEADS}\.layers\.0\.", r"\1.layers.1."),
    (rf"{_HEADS}\.proj_in\.", r"\1.layers.0."),
    (rf"{_HEADS}\.proj_out\.", r"\1.layers.2."),
    (r"\.o_proj\.", ".out_proj."),
    (r"\.layer_norm", ".norm"),
)
"""From the names of `transformers` to those of SAM2, all in this order; heads have three layers, as all published."""

_MASK_LAYER = re.compile(r"(memory_encoder\.mask_downsampler)\.layers\.(\d+)\.(conv|layer_norm)\.(.+)")
_MASK_END = re.compile(r"(memory_encoder\.mask_downsampler)\.final_conv\.(.+)")
_MODULES_A_LAYER = 3
"""Convolution, norm and activation, counted one after another in SAM2."""


def _size(width: int, heads: int, blocks: list[int], whole: list[int], window: list[int], code_px: int) -> dict:
    widths = [width * 2**stage for stage in range(4)]
    return {
        "model_type": SAM2.model_type,
        "vision_config": {
            "backbone_config": {
                "model_type": "sam2_hiera_det_model",
                "hidden_size": width,
                "embed_dim_per_stage": widths,
                "num_attention_heads_per_stage": [heads * 2**stage for stage in range(4)],
                "blocks_per_stage": blocks,
                "global_attention_blocks": whole,
                "window_size_per_stage": window,
                "window_positional_embedding_background_size": [code_px, code_px],
            },
            "backbone_channel_list": widths[::-1],
        },
    }


SIZES: Mapping[str, Mapping[str, object]] = {
    "sam2.1_hiera_tiny": _size(96, 1, [1, 2, 7, 2], [5, 7, 9], [8, 4, 14, 7], 7),
    "sam2.1_hiera_small": _size(96, 1, [1, 2, 11, 2], [7, 10, 13], [8, 4, 14, 7], 7),
    "sam2.1_hiera_base_plus": _size(112, 2, [2, 3, 16, 3], [12, 16, 20], [8, 4, 14, 7], 14),
    "sam2.1_hiera_large": _size(144, 2, [2, 6, 36, 4], [23, 33, 43], [8, 4, 16, 8], 7),
}
"""The published sizes as configs of `transformers`; everything else has the library's defaults. VIRST has the last."""


def published_name(name: str, num_mask_layers: int) -> str:
    """The name that SAM2 has for a tensor of `transformers`.

    Args:
        num_mask_layers: Of the memory encoder's network that shrinks masks.
    """
    if found := _MASK_LAYER.fullmatch(name):
        at = _MODULES_A_LAYER * int(found[2]) + (found[3] == "layer_norm")
        return f"{found[1]}.encoder.{at}.{found[4]}"
    if found := _MASK_END.fullmatch(name):
        return f"{found[1]}.encoder.{_MODULES_A_LAYER * num_mask_layers}.{found[2]}"
    for pattern, new in _RULES:
        name = re.sub(pattern, new, name)
    return name


def to_published(branch: Sam2Branch) -> dict[str, Tensor]:
    """The tensors of a SAM2 branch by the names of SAM2; the four kinds of points apart, each code once."""
    state: dict[str, Tensor] = branch.network.state_dict()
    num_mask_layers = len(branch.network.memory_encoder.mask_downsampler.layers)
    made = {
        published_name(name, num_mask_layers): value
        for name, value in state.items()
        if name not in (_IMAGE_CODE, _POINTS)
    }
    points = state[_POINTS]
    return made | {_PUBLISHED_POINTS.format(kind): points[kind : kind + 1] for kind in range(len(points))}


def from_published(tensors: Mapping[str, Tensor], branch: Sam2Branch) -> dict[str, Tensor]:
    """The state of a branch's network, sharing memory with the given tensors where they are used as they are.

    Raises:
        CheckpointError: Listing every name that is missing or unknown and every shape that is wrong.
    """
    expected = {name: tuple(value.shape) for name, value in to_published(branch).items()}
    require_fit(expected, tensors)
    num_mask_layers = len(branch.network.memory_encoder.mask_downsampler.layers)
    state: dict[str, Tensor] = {}
    for name, value in branch.network.state_dict().items():
        if name == _POINTS:
            state[name] = torch.cat([tensors[_PUBLISHED_POINTS.format(kind)] for kind in range(len(value))])
        else:
            source = _PROMPT_CODE if name == _IMAGE_CODE else name
            state[name] = tensors[published_name(source, num_mask_layers)]
    return state


def size_of(tensors: Mapping[str, tuple[int, ...]]) -> str:
    """Which published size tensors have, by names and shapes of the image encoder.

    Raises:
        CheckpointError: If it is none of them.
    """
    width = tensors.get("image_encoder.trunk.patch_embed.proj.bias", (0,))[0]
    blocks = {found[1] for name in tensors if (found := re.match(r"image_encoder\.trunk\.blocks\.(\d+)\.", name))}
    for name, values in SIZES.items():
        encoder = values["vision_config"]["backbone_config"]  # type: ignore[index]
        if encoder["hidden_size"] == width and sum(encoder["blocks_per_stage"]) == len(blocks):
            return name
    raise CheckpointError(
        f"an image encoder of width {width} with {len(blocks)} blocks is of no published size; expected one of "
        f"{', '.join(SIZES)}, or a folder with the config of transformers"
    )


def without_prefix(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The mask branch of a published VIRST by the names of SAM2: what stands before `image_encoder.` is taken off.

    Raises:
        CheckpointError: If there is no image encoder, or a tensor lies elsewhere.
    """
    mark = "image_encoder."
    prefixes = {name[: name.index(mark)] for name in tensors if mark in name}
    prefix = min(prefixes, key=len, default=None)
    if prefix is None or any(not name.startswith(prefix) for name in tensors):
        raise CheckpointError(
            f"{_some(tensors)} are no mask branch of SAM2; expected its tensors below {VIRST_PREFIX}; give the folder "
            "of a published VIRST or SAM2.1"
        )
    return {name.removeprefix(prefix): value for name, value in tensors.items()}


def from_virst(tensors: Mapping[str, Tensor], dtype: torch.dtype = torch.float32) -> Sam2Branch:
    """The mask branch of a published VIRST, from its tensors below `VIRST_PREFIX`, with adapters folded in already.

    Raises:
        CheckpointError: If the tensors are not exactly those of one published size.
    """
    plain = without_prefix(tensors)
    branch = build(SIZES[size_of({name: tuple(value.shape) for name, value in plain.items()})])
    return _filled(branch, from_published(plain, branch), dtype)


def load(folder: Path, *, dtype: torch.dtype = torch.float32) -> Sam2Branch:
    """The mask branch in a folder, on the CPU, ready to be asked, in either layout.

    Raises:
        CheckpointError: If the weights are missing, pickled, damaged, or do not fit exactly.
        RequestError: If the library is missing.
    """
    stored = open_repository(folder)
    verify(folder, stored.shards)
    given = dict(stored.stream())
    config = read_json(folder / _CONFIG) if (folder / _CONFIG).is_file() else {}
    try:
        if config.get("model_type") in FAMILIES:
            branch = build(config)
            require_of(folder, "mask branch", given, branch.network.state_dict().keys())
            shapes = {name: tuple(value.shape) for name, value in branch.network.state_dict().items()}
            require_fit(shapes, given)
            return _filled(branch, given, dtype)
        _require_sam2(folder, stored)
        branch = build(SIZES[size_of(stored.shapes)])
        return _filled(branch, from_published(given, branch), dtype)
    except (CheckpointError, ConfigError) as error:
        message = str(error) if str(error).startswith(str(folder)) else f"{folder}: {error}"
        raise CheckpointError(message) from error


def _require_sam2(folder: Path, stored: Repository) -> None:
    if not any(name.startswith("image_encoder.") for name in stored.tensors):
        raise CheckpointError(
            f"{folder}: holds no mask branch but {_some(stored.tensors)}; name a folder with the weights of SAM2.1, "
            f"or with a config.json whose model_type is one of {', '.join(FAMILIES)}"
        )


def _filled(branch: Sam2Branch, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> Sam2Branch:
    """Copied: what lies in a file as it is would keep the whole file mapped."""
    state = {name: value.to(dtype=dtype, copy=True) for name, value in tensors.items()}
    branch.network.load_state_dict(state, assign=True)
    return branch.eval().requires_grad_(False)


def _some(names: Iterable[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:4]) + (f" and {len(listed) - 4} more" if len(listed) > 4 else "")
