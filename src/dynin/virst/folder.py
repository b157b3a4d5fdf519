"""A trained VIRST in one folder: what it learned, without the backbone that it starts from.

Enters: a `Virst`, or a folder. Leaves: a folder, or a `Virst`, larger where it shall be. The layout of files is
`checkpoint.py`'s. Does not know the published names (`virst.published`).

    config        settings of the VIRST, config of the mask branch
    tensors       backbone.* (adapters and [ST] embeddings), initial.*, second.*, branch.*
    fingerprints  the start that the adapters fit
"""

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from dynin import checkpoint
from dynin.checkpoint import Checkpoint
from dynin.config import from_dict, to_dict
from dynin.errors import CheckpointError, ConfigError
from dynin.repository import require_replaceable
from dynin.virst.branch import build as branches
from dynin.virst.branch.sam2 import Sam2Branch
from dynin.virst.build import BACKBONE, DETAIL, KIND, backbone_of, read_branch, read_virst, require_start
from dynin.virst.config import VirstConfig
from dynin.virst.model import Virst

POINTS = "second.points."


def learned(model: Virst) -> dict[str, Tensor]:
    """Everything of a VIRST that does not come with the start of its backbone, by name."""
    return {
        name: value
        for name, value in model.state_dict().items()
        if not name.startswith(BACKBONE) or model.backbone.is_learned(name.removeprefix(BACKBONE))
    }


def save(
    folder: Path,
    model: Virst,
    *,
    dtype: torch.dtype = torch.bfloat16,
    provenance: Mapping[str, object] | None = None,
    tensors: Mapping[str, Tensor] | None = None,
) -> None:
    """Write or replace a VIRST, whole or not at all.

    Args:
        dtype: Of every stored weight; loading gives float32 again, rounded.
        provenance: Plain values: data, steps, hours, hardware, scores.
        tensors: What takes the place of the model's own values, such as their running averages.

    Raises:
        CheckpointError: If the mask branch has no config that it could be built from again, or the folder holds
            something else or cannot be written.
    """
    require_replaceable(folder)
    if not isinstance(model.branch, Sam2Branch):
        raise CheckpointError(
            f"a VIRST with a mask branch of {type(model.branch).__name__} cannot be written; expected Sam2Branch"
        )
    own = learned(model)
    values = {name: value.detach() for name, value in {**own, **(tensors or {})}.items()}
    checkpoint.require_fit({name: tuple(value.shape) for name, value in own.items()}, values)
    part = Checkpoint(
        kind=KIND,
        config={
            "virst": json.loads(json.dumps(to_dict(model.config))),
            "branch": branches.config_values(model.branch),
        },
        tensors={name: value.to(dtype) if value.is_floating_point() else value for name, value in values.items()},
        fingerprints={"start": model.backbone.origin()},
        provenance=provenance or {},
    )
    checkpoint.save(folder, part)


def grown(model: Virst, adds: Collection[str], *, seed: int) -> Virst:
    """The same VIRST with what it did not have: "points" of the second fusion, or "details" of the reader of frames.

    Details change nothing until they learn; points are told to the mask branch from the start.

    Args:
        seed: Of the new weights.

    Raises:
        ConfigError: If it has them, or has nothing that they could be added to.
    """
    config = model.config
    has = {"points": config.fusion.has_points, "details": config.backbone.reader_details}
    if twice := [name for name in adds if has[name]]:
        raise ConfigError(
            f"setting 'adds' is {list(adds)}: the VIRST to start from has {' and '.join(twice)}; leave it out"
        )
    lacks = {
        "points": "a second fusion that reads cells" if not _finds_points(config) else "",
        "details": "a reader of frames" if not config.backbone.reader_width else "",
    }
    if wanting := [f"{name} need {lacks[name]}" for name in adds if lacks[name]]:
        raise ConfigError(
            f"setting 'adds' is {list(adds)}: {', '.join(wanting)}, which the VIRST to start from lacks; leave that out"
        )
    fusion = replace(config.fusion, has_points=config.fusion.has_points or "points" in adds)
    settings = replace(config.backbone, reader_details=config.backbone.reader_details or "details" in adds)
    config = replace(config, fusion=fusion, backbone=settings)
    whole = Virst(config, backbone_of(config, seed=seed, device=model.device), model.branch, seed=seed)
    missing, unknown = whole.load_state_dict(model.state_dict(), strict=False)
    strange = [name for name in missing if not name.startswith((POINTS, BACKBONE + DETAIL))] + list(unknown)
    assert not strange, strange
    return whole.to(model.device).eval()


def _finds_points(config: VirstConfig) -> bool:
    fusion, kind = config.fusion, config.backbone.kind
    return fusion.reads_cells and fusion.second == "fusion" and kind == "dynin"


def load(
    path_or_id: str | os.PathLike[str],
    *,
    device: torch.device | str | None = None,
    start: str | None = None,
    is_learning: bool = False,
) -> Virst:
    """Read and verify a VIRST, in float32, ready to segment.

    Args:
        path_or_id: A folder that `save` wrote, or `org/name` on the model hub.
        device: Where it goes; None leaves it where tensors are made by default.
        start: The folder or hub id of the backbone's start, where it is not where it was in training.
        is_learning: Leave what can learn with gradients, to train on.

    Raises:
        CheckpointError: If a file is missing or damaged, it is no VIRST, or the start is another than it was trained
            with.
    """
    folder = checkpoint.resolve(path_or_id)
    part = read_virst(folder)
    try:
        config = from_dict(part.config["virst"], VirstConfig)  # type: ignore[arg-type]
    except (KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(f"{folder}: its config makes no VIRST ({error}); fetch it again") from error
    if start is not None:
        config = replace(config, backbone=replace(config.backbone, start=start))
    backbone = backbone_of(config, seed=0, device=device)
    require_start(backbone, part, folder, config.backbone.start)
    model = Virst(config, backbone, read_branch(part, folder), seed=0)
    names = {name: tuple(value.shape) for name, value in learned(model).items()}
    checkpoint.require_fit(names, part.tensors)
    values = {name: value.float() if value.is_floating_point() else value for name, value in part.tensors.items()}
    model.load_state_dict(values, strict=False)  # the start's own tensors are there already
    model = model.to(device).eval()
    return model if is_learning else model.requires_grad_(False)
