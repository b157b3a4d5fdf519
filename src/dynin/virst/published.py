"""A published VIRST checkpoint to a model and back: backbone, fusions and mask branch of one folder.

Enters: a folder of safetensors with the published names, and a text tokenizer in it or beside it. Leaves: a `Virst`
that is ready to segment; or tensors by published names. Does not know what the parts do; each knows its own names.

    base_model.model.  model.layers.*, model.vision_tower.*, ..     backbone   `backbone.videochat.convert`
                       model.seg_model.*                            branch     `branch.convert`
                       model.initial_seg_fusion_module.*            initial    the same names
                       model.seg_prompter.*                         second     the same names

The published file is a pickle; `dynin convert FOLDER NEW --from-pickle` writes it as the folder that is read here.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from dynin.checkpoint import require_fit
from dynin.errors import CheckpointError, ConfigError
from dynin.training.config import LoraConfig
from dynin.virst.backbone.videochat import convert, language
from dynin.virst.backbone.videochat.config import VideoChatConfig
from dynin.virst.backbone.videochat.convert import LORA_ALPHA, Contents, Layout, Part
from dynin.virst.backbone.videochat.load import config_of, open_folder
from dynin.virst.backbone.videochat.load import load as load_backbone
from dynin.virst.backbone.videochat.model import VideoChat
from dynin.virst.backbone.videochat.prompt import PromptConfig
from dynin.virst.branch import convert as branch_names
from dynin.virst.branch.sam2 import Sam2Branch
from dynin.virst.config import PUBLISHED_FRAMES, BackboneConfig, FusionConfig, VirstConfig
from dynin.virst.model import Virst

FUSIONS = {"initial": "model.initial_seg_fusion_module.", "second": "model.seg_prompter."}
"""By our names, where the fusions lie."""
PUBLISHED = VirstConfig(
    num_st=10,
    has_distinct_st=False,
    frames=replace(PUBLISHED_FRAMES, sampling="centres"),
    fusion=FusionConfig(),
    backbone=BackboneConfig(kind="videochat", lora=LoraConfig(rank=0)),
)
"""The published model. Parity: frames are squeezed to squares, which is what the weights have seen, but they are the
middles of equal parts, not drawn; and the initial fusion is on, which the published scripts leave off."""


def load(
    folder: Path,
    *,
    config: VirstConfig = PUBLISHED,
    sizes: VideoChatConfig | None = None,
    text_folder: Path | None = None,
    prompt: PromptConfig | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    alpha: float = LORA_ALPHA,
) -> Virst:
    """The model in a folder, frozen, adapters folded in.

    Args:
        config: How it is put together. Without the initial fusion that module is passed over.
        sizes: Of the backbone, where neither `config.json` nor the published model tells them.
        text_folder: Where the text tokenizer is; None looks beside the weights.
        device: Where it goes; the backbone as it is read.
        dtype: What the backbone's weights are cast to; None takes what most are stored in. Fusions and mask branch, a
            thirtieth of the whole, are in float32.
        alpha: Adapters count alpha / rank.

    Raises:
        CheckpointError: If a part is missing, incomplete, damaged or of other sizes.
        ConfigError: If the config is not of this kind of model.
        RequestError: If the package transformers is missing.
    """
    _require_published(config)
    contents = open_folder(folder)
    _require_parts(contents)
    given = contents.read(Part.FUSIONS, torch.float32)
    backbone = load_backbone(
        contents,
        language.read_text(folder if text_folder is None else text_folder),
        replace(config_of(contents, sizes), num_st=config.num_st, has_distinct_st=config.has_distinct_st),
        prompt=prompt,
        device=device,
        dtype=dtype,
        alpha=alpha,
    )
    try:
        branch = branch_names.from_virst(contents.read(Part.MASK_BRANCH))
        model = Virst(config, backbone, branch, seed=0)
        _fill(model, given)
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from error
    return model.to(torch.get_default_device() if device is None else device).eval().requires_grad_(False)


def to_published(model: Virst, *, layout: Layout = "peft-0.4") -> dict[str, Tensor]:
    """Every tensor by the name that a published VIRST has for it, tables cut behind the [ST] token.

    Parity:
        The unused `occ_predictor` is not made; the published loader takes files that lack it.

    Raises:
        CheckpointError: If the model has no published names: another backbone or mask branch, several [ST] embeddings,
            or adapters that the layout has no names for.
    """
    if not isinstance(model.backbone, VideoChat) or not isinstance(model.branch, Sam2Branch):
        raise CheckpointError(
            f"a VIRST of {type(model.backbone).__name__} and {type(model.branch).__name__} has no published names; "
            "expected VideoChat and Sam2Branch"
        )
    st_id = model.backbone.prompter.st_id
    state = model.backbone.state_dict()
    made = convert.to_published(state, st_id, layout=layout, num_rows=st_id + 1)
    more = {
        f"{branch_names.VIRST_PREFIX}{name}": value for name, value in branch_names.to_published(model.branch).items()
    }
    for ours, prefix in FUSIONS.items():
        if (part := getattr(model, ours)) is not None:
            more |= {f"{prefix}{name}": value for name, value in part.state_dict().items()}
    before = "" if layout == "plain" else convert.WRAPPED
    return made | {f"{before}{name}": value for name, value in more.items()}


def _fill(model: Virst, given: Mapping[str, Tensor]) -> None:
    """Put the fusions' tensors in place, every one of them."""
    for ours, prefix in FUSIONS.items():
        part: nn.Module | None = getattr(model, ours)
        if part is not None:
            names = {f"{prefix}{name}": tuple(value.shape) for name, value in part.state_dict().items()}
            held = {name: value for name, value in given.items() if name.startswith(prefix)}
            require_fit(names, held)
            part.load_state_dict({name.removeprefix(prefix): value for name, value in held.items()}, assign=True)


def _require_published(config: VirstConfig) -> None:
    if config.fusion.second != "fusion" or config.fusion.positions != "rotary" or config.backbone.kind != "videochat":
        raise ConfigError(
            f"a published VIRST has a backbone of kind 'videochat' and a second fusion with rotary positions; the "
            f"config says {config.backbone.kind!r}, {config.fusion.second!r}, {config.fusion.positions!r}; start from "
            "published.PUBLISHED"
        )


def _require_parts(contents: Contents) -> None:
    """CheckpointError for VideoChat-Flash alone, or a file that lacks a part."""
    names = {Part.BACKBONE: "backbone", Part.FUSIONS: "fusions", Part.MASK_BRANCH: "mask branch"}
    if missing := [what for part, what in names.items() if not contents.parts[part]]:
        raise CheckpointError(
            f"{contents.files.folder}: has no {' and no '.join(missing)}; expected a published VIRST. VideoChat-Flash "
            "alone is where a VIRST of one's own starts from, as setting 'backbone.start'"
        )
