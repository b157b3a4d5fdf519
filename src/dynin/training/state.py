"""The exact state of a run: weights, average, optimizer, position.

Enters: the parts of a run. Leaves: a folder that is whole or absent, and the same parts again. Random draws are derived
from (seed, step), so the position is all there is to remember of them. Does not know tasks or losses.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dynin.errors import CheckpointError
from dynin.training.optim import Average


def save(
    folder: Path,
    step: int,
    model: nn.Module,
    average: Average | None,
    optimizers: Sequence[torch.optim.Optimizer],
    notes: Mapping[str, Any] | None = None,
) -> None:
    """Replace the state in `folder` as a whole: a run killed at any moment leaves the old state or the new one.

    Args:
        average: None for a run that keeps none.
        notes: What else the run wants to find again, as JSON can hold it; see `read_notes`.
    """
    fresh, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    tensors = {
        "model": {name: value.contiguous() for name, value in model.state_dict().items()},
        "optimizer": _flatten(optimizers),
    }
    if average is not None:
        tensors["average"] = average.tensors
    for part, values in tensors.items():
        save_file(values, fresh / f"{part}.safetensors")
    (fresh / "position.json").write_text(json.dumps({"step": step, "notes": dict(notes or {})}))
    for path in fresh.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def load(folder: Path, model: nn.Module, average: Average | None, optimizers: Sequence[torch.optim.Optimizer]) -> int:
    """Restore a run; returns the step it stands at, 0 where there is nothing to resume.

    Raises:
        CheckpointError: If a part is missing or damaged.
    """
    if not _is_there(folder):
        return 0
    names = ("model", "optimizer") if average is None else ("model", "average", "optimizer")
    try:
        parts = {part: load_file(folder / f"{part}.safetensors") for part in names}
        position = json.loads((folder / "position.json").read_text())
        model.load_state_dict(parts["model"])
        if average is not None:
            average.tensors = {name: value.to(average.tensors[name].device) for name, value in parts["average"].items()}
        _unflatten(optimizers, parts["optimizer"])
    except (OSError, SafetensorError, json.JSONDecodeError, KeyError, RuntimeError) as error:
        raise CheckpointError(
            f"the state in {folder} cannot be resumed ({type(error).__name__}: {error}); "
            "delete the folder to start again, or name other settings' folder"
        ) from error
    return int(position["step"])


def read_step(folder: Path) -> int:
    """The step a state stands at, 0 where there is none."""
    return int(json.loads((folder / "position.json").read_text())["step"]) if _is_there(folder) else 0


def read_notes(folder: Path) -> dict[str, Any]:
    """The notes saved with a state; empty where there is none. CheckpointError if they cannot be read."""
    if not _is_there(folder):
        return {}
    try:
        return dict(json.loads((folder / "position.json").read_text()).get("notes", {}))
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"the state in {folder} cannot be read ({error}); delete the folder to start again"
        ) from error


def _is_there(folder: Path) -> bool:
    """Whether a state can be resumed; one that a killed run left aside is put back."""
    old = folder.with_name(folder.name + ".old")
    if not folder.exists() and old.exists():
        old.rename(folder)
    return folder.exists()


def _flatten(optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Tensor]:
    return {
        f"{number}.{index}.{key}": torch.as_tensor(value).contiguous()
        for number, optimizer in enumerate(optimizers)
        for index, entry in optimizer.state_dict()["state"].items()
        for key, value in entry.items()
    }


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """The parameters in the order in which a state numbers them."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _unflatten(optimizers: Sequence[torch.optim.Optimizer], tensors: dict[str, Tensor]) -> None:
    """Put the values back; rates and other settings stay those that the optimizers were built with."""
    entries: dict[tuple[int, int], dict[str, Tensor]] = {}
    for name, value in tensors.items():
        number, index, key = name.split(".", 2)
        entries.setdefault((int(number), int(index)), {})[key] = value
    for (owner, at), entry in entries.items():
        parameters = _parameters(optimizers[owner]) if owner < len(optimizers) else []
        shapes = {tuple(value.shape) for value in entry.values() if value.ndim}
        if at >= len(parameters) or shapes - {tuple(parameters[at].shape)}:
            raise RuntimeError("its optimizers hold other parameters than those of these settings")
    for place, optimizer in enumerate(optimizers):
        state = optimizer.state_dict()
        state["state"] = {at: entry for (owner, at), entry in entries.items() if owner == place}
        optimizer.load_state_dict(state)
