"""Settings to a new VIRST: the backbone from its start, a mask branch, fusions with drawn weights.

Enters: a `VirstConfig`, a seed. Leaves: a `Virst`. Does not know checkpoints of VIRST (`virst.folder`) or trainings.
"""

from pathlib import Path

import torch
from torch import nn

from dynin import checkpoint
from dynin.checkpoint import Checkpoint
from dynin.errors import CheckpointError, ConfigError
from dynin.repository import read_json
from dynin.virst.backbone.protocol import Backbone
from dynin.virst.branch import build as branches
from dynin.virst.branch import convert
from dynin.virst.branch.protocol import MaskBranch
from dynin.virst.branch.sam2 import Sam2Branch
from dynin.virst.config import BackboneConfig, BranchConfig, VirstConfig
from dynin.virst.model import Virst

KIND, READER = "virst", "frame-reader"
"""Of checkpoints."""
CONFIG = "config.json"
BACKBONE, BRANCH = "backbone.", "branch."
DETAIL = "reader.detail."
"""Of a backbone: what the reader of frames tells besides codes."""


def build(config: VirstConfig, *, seed: int, device: torch.device | str | None = None) -> Virst:
    """A new VIRST.

    Raises:
        CheckpointError: If a start is missing or damaged.
        ConfigError: If settings contradict each other or a part.
        RequestError: If the package transformers is missing.
    """
    backbone = backbone_of(config, seed=seed, device=device)
    if config.backbone.reader_start:
        take_reader(backbone, config.backbone.reader_start)
    if config.backbone.learned_start:
        take_learned(backbone, config.backbone)
    return Virst(config, backbone, branch_of(config.branch, seed=seed), seed=seed).to(device)


def backbone_of(config: VirstConfig, *, seed: int, device: torch.device | str | None = None) -> Backbone:
    """The backbone that the settings name, with new adapters; errors as in `build`."""
    settings, num_st, has_distinct_st = config.backbone, config.num_st, config.has_distinct_st
    if config.backbone.kind == "videochat":
        from dynin.virst.backbone.videochat.load import load_start

        return load_start(settings, num_st=num_st, has_distinct_st=has_distinct_st, seed=seed, device=device)
    from dynin.virst.backbone.dynin import DyninBackbone

    return DyninBackbone.load(settings, num_st=num_st, has_distinct_st=has_distinct_st, seed=seed, device=device)


def take_reader(backbone: Backbone, start: str) -> None:
    """Give a backbone the weights of a reader of frames that was trained before.

    Raises:
        CheckpointError: If the folder holds none, or one of other sizes.
    """
    place = checkpoint.resolve(start)
    part = checkpoint.load(place)
    reader = getattr(backbone, "reader", None)
    if part.kind != READER or reader is None:
        raise CheckpointError(
            f"{place}: holds {part.kind}, expected {READER}; name a folder that `dynin virst train-reader` wrote"
        )
    own = {name: tuple(value.shape) for name, value in reader.state_dict().items() if not name.startswith("detail.")}
    checkpoint.require_fit(own, part.tensors)
    reader.load_state_dict({name: value.float() for name, value in part.tensors.items()}, strict=False)


def read_virst(place: Path) -> Checkpoint:
    """A folder that VIRST was saved in, verified.

    Raises:
        CheckpointError: If a file is missing or damaged, or it holds something else.
    """
    part = checkpoint.load(place)
    if part.kind != KIND:
        raise CheckpointError(f"{place}: holds {part.kind}, expected a VIRST; name a folder that VIRST was saved in")
    return part


def require_start(backbone: Backbone, part: Checkpoint, place: Path, start: str) -> None:
    """CheckpointError unless what a VIRST has learned fits the model that a backbone starts from."""
    if backbone.origin() != part.fingerprints.get("start"):
        raise CheckpointError(
            f"{place}: was trained beside another content of {start or 'the model that ships'}; give the folder of "
            "that model as `start`, or train anew"
        )


def take_learned(backbone: Backbone, config: BackboneConfig) -> None:
    """Give a backbone what that of the VIRST named in its settings has learned beside the same start.

    Raises:
        CheckpointError: If the folder holds no VIRST, one beside another start, or one of other sizes.
    """
    place = checkpoint.resolve(config.learned_start)
    part = read_virst(place)
    require_start(backbone, part, place, config.start)
    assert isinstance(backbone, nn.Module)
    own = {name: value for name, value in backbone.state_dict().items() if backbone.is_learned(name)}
    held = {name.removeprefix(BACKBONE): value for name, value in part.tensors.items() if name.startswith(BACKBONE)}
    missing = {name for name in own if name.startswith(DETAIL) and name not in held}  # these start as nothing
    wanted = {name: tuple(value.shape) for name, value in own.items() if name not in missing}
    checkpoint.require_fit(wanted, held)
    backbone.load_state_dict({name: value.float() for name, value in held.items()}, strict=False)


def branch_of(config: BranchConfig, *, seed: int) -> MaskBranch:
    """A mask branch from published weights or from another VIRST, or a new one; errors as in `build`."""
    if config.start:
        place = checkpoint.resolve(config.start)
        if (place / CONFIG).is_file() and read_json(place / CONFIG).get("kind") == KIND:
            return read_branch(checkpoint.load(place), place)
        read = convert.load(place)
        branch = branches.build(branches.config_values(read))  # what is read is frozen; what is built can learn
        branch.load_state_dict(read.state_dict())
        return branch
    values = branches.small_config(
        config.image_px,
        width=config.width,
        hiera_width=config.hiera_width,
        num_layers=config.num_layers,
        patch_px=config.patch_px,
    )
    return branches.build(values, torch.Generator().manual_seed(seed))


def read_branch(part: Checkpoint, place: Path) -> Sam2Branch:
    """The mask branch in a checkpoint of VIRST, in float32, able to learn.

    Raises:
        CheckpointError: If its config or tensors do not make one.
    """
    try:
        branch = branches.build(part.config["branch"])  # type: ignore[arg-type]
    except (KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(f"{place}: its config makes no mask branch ({error}); fetch it again") from error
    held = {name.removeprefix(BRANCH): value for name, value in part.tensors.items() if name.startswith(BRANCH)}
    checkpoint.require_fit({name: tuple(value.shape) for name, value in branch.state_dict().items()}, held)
    branch.load_state_dict(
        {name: value.float() if value.is_floating_point() else value for name, value in held.items()}
    )
    return branch
