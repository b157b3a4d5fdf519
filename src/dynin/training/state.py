"""The exact state of a run: what learns, its average, optimizers, position; sharded over processes; whole or absent.

Enters: the parts of a run. Leaves: a folder for each saved step, and the same parts again, in any number of processes.
Random draws are derived from (seed, step), so the position is all there is to remember of them. Does not know tasks or
losses.

    state/LATEST                 name of the step to go on from
    state/step-00000250/         shard-*.safetensors (one for each process), position.json, MANIFEST.json

A step is written beside its place, its files are synced, listed with size and SHA-256 in the manifest, and only then is
it renamed; LATEST follows. So a run that is killed at any moment finds the step before or the one after, never a mix.
Shards are written and read by `torch.distributed.checkpoint`; nothing is pickled.
"""

import json
import logging
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from dynin.errors import CheckpointError
from dynin.media.files import replace_whole
from dynin.repository import sha256, sync
from dynin.training import processes
from dynin.training.optim import Average, plain, set_rate

LATEST, MANIFEST, POSITION = "LATEST", "MANIFEST.json", "position.json"
FORMAT = 1
KEPT = 2
"""Steps that are kept."""
STEP = re.compile(r"step-\d{8,}", re.ASCII)
"""Names of finished steps."""
Optimizers = Sequence[torch.optim.Optimizer]


def save(
    folder: Path,
    step: int,
    model: nn.Module,
    average: Average | None,
    optimizers: Optimizers,
    notes: Mapping[str, Any] | None = None,
) -> None:
    """Keep a step; a run killed at any moment leaves the step before or this one. Every process calls it.

    Args:
        average: None for a run that keeps none.
        notes: What else the run wants to find again, as JSON can hold it; see `read_notes`.

    Raises:
        CheckpointError: If the disk refuses; the step before stays.
    """
    place, fresh = folder / _name(step), folder / (_name(step) + ".tmp")
    failure = ""
    try:
        if processes.rank() == 0:
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
        processes.meet()
        writer = dcp.HuggingFaceStorageWriter(str(fresh), save_distributed=True)
        _prime(optimizers)
        with _quiet():
            dcp.save(_parts(model, average, optimizers), storage_writer=writer)
        if processes.rank() == 0:
            _commit(folder, fresh, place, {"step": step, "notes": dict(notes or {})})
    except (OSError, CheckpointException) as error:
        failure = _reason(error)
    for reason in processes.gather(failure):
        if reason:
            if processes.rank() == 0:
                shutil.rmtree(fresh, ignore_errors=True)
            raise CheckpointError(
                f"step {step} could not be saved in {folder} ({reason}); what was saved before stays: make room, then "
                "start the same command again"
            )


def load(
    folder: Path,
    model: nn.Module,
    average: Average | None,
    optimizers: Optimizers,
    name: str | None = None,
) -> int:
    """Restore a run; returns the step it stands at, 0 where there is nothing to resume. Every process calls it.

    Args:
        name: A step that `choose` gave; later ones are forgotten. None takes the latest.

    Raises:
        CheckpointError: If a part is missing or damaged, or belongs to other settings.
    """
    name = choose(folder) if name is None else name
    if not name:
        return 0
    place = folder / name
    _prime(optimizers)
    parts = _parts(model, average, optimizers)
    reader = dcp.HuggingFaceStorageReader(str(place))
    _require_fit(place, parts, reader)
    with _quiet():
        dcp.load(parts, storage_reader=reader)
    if processes.rank() == 0 and name != _latest(folder):
        _point(folder, name)
        for later in (step for step in _steps(folder) if step > name):
            shutil.rmtree(folder / later)
    return int(_position(place)["step"])


def choose(folder: Path, *, is_previous: bool = False) -> str:
    """The step to go on from, verified by the first process; empty where there is none. Every process calls it.

    Args:
        is_previous: Take the step before the latest one.

    Raises:
        CheckpointError: If a file of the step is damaged; the file and the step before are named.
    """
    return processes.shared(lambda: _chosen(folder, is_previous=is_previous))


def read_step(folder: Path) -> int:
    """The step a state stands at, 0 where there is none."""
    name = _latest(folder)
    return int(_position(folder / name)["step"]) if name else 0


def read_notes(folder: Path, name: str | None = None) -> dict[str, Any]:
    """The notes saved with a step, the latest by default; empty where there is none.

    Raises:
        CheckpointError: If they cannot be read.
    """
    name = _latest(folder) if name is None else name
    return dict(_position(folder / name).get("notes", {})) if name else {}


def read_tensors(folder: Path, part: str) -> dict[str, Tensor]:
    """The whole tensors of one part of the latest step, "model" or "average", put together from its shards.

    Raises:
        CheckpointError: If there is no step, or it is damaged.
    """
    name = _chosen(folder, is_previous=False)
    if not name:
        raise CheckpointError(f"{folder}: no step was saved yet; let the run come to its first saving")
    reader = dcp.HuggingFaceStorageReader(str(folder / name))
    found = reader.read_metadata().state_dict_metadata
    wanted = {
        key: torch.empty(info.size, dtype=info.properties.dtype)
        for key, info in found.items()
        if key.startswith(part + ".") and isinstance(info, TensorStorageMetadata)
    }
    if not wanted:
        raise CheckpointError(f"{folder / name}: holds no {part}; its parts: {', '.join(_kinds(found))}")
    with _quiet():
        dcp.load(wanted, storage_reader=reader, no_dist=True)
    return {key.removeprefix(part + "."): value for key, value in wanted.items()}


def verify(place: Path) -> None:
    """Compare a step's files with its manifest.

    Raises:
        CheckpointError: If a file is missing, cut, altered, or does not belong; it is named.
    """
    try:
        manifest = json.loads((place / MANIFEST).read_text())
        listed: Mapping[str, Mapping[str, Any]] = manifest["files"]
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{place / MANIFEST}: missing or damaged") from error
    if manifest.get("format") != FORMAT:
        raise CheckpointError(f"{place / MANIFEST}: has format {manifest.get('format')}, this code reads {FORMAT}")
    strange = sorted(path.name for path in place.iterdir() if path.name not in {*listed, MANIFEST})
    if strange:
        raise CheckpointError(f"{place / strange[0]}: does not belong to this step")
    for name, facts in listed.items():
        path = place / name
        if not path.is_file():
            raise CheckpointError(f"{path}: missing")
        if path.stat().st_size != facts["bytes"]:
            raise CheckpointError(f"{path}: has {path.stat().st_size:,} bytes, {facts['bytes']:,} were written")
        if sha256(path) != facts["sha256"]:
            raise CheckpointError(f"{path}: its content changed since it was written")


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _commit(folder: Path, fresh: Path, place: Path, position: Mapping[str, Any]) -> None:
    """Sync, list, rename, point, and only then forget what is too old."""
    (fresh / POSITION).write_text(json.dumps(position))
    files = {path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in sorted(fresh.iterdir())}
    (fresh / MANIFEST).write_text(json.dumps({"format": FORMAT, "files": files}, indent=1))
    for path in (*fresh.iterdir(), fresh):
        sync(path)
    shutil.rmtree(place, ignore_errors=True)
    fresh.rename(place)
    sync(folder)
    _point(folder, place.name)
    for name in _steps(folder)[:-KEPT]:
        shutil.rmtree(folder / name)


def _point(folder: Path, name: str) -> None:
    """Let LATEST name a step."""
    with replace_whole(folder / LATEST) as temporary:
        temporary.write_text(name)
    sync(folder)


def _steps(folder: Path) -> list[str]:
    """Names of the steps that are there, oldest first."""
    return sorted(path.name for path in folder.glob("step-*") if STEP.fullmatch(path.name))


def _latest(folder: Path) -> str:
    """The step that LATEST names, empty where nothing was saved; CheckpointError where it names none."""
    path, steps = folder / LATEST, _steps(folder)
    if not path.is_file():  # nothing was saved, or killed between the first step and its LATEST
        return steps[-1] if steps else ""
    name = path.read_bytes().decode("ascii", "replace").strip()
    if not STEP.fullmatch(name):
        cure = f"delete this file to go on from {steps[-1]}" if steps else "delete the folder to start again"
        raise CheckpointError(f"{path}: damaged, it names no step; {cure}")
    return name


def _chosen(folder: Path, *, is_previous: bool) -> str:
    """The step to go on from, verified; empty where there is none."""
    name = _latest(folder)
    if not name:
        return ""
    earlier = [step for step in _steps(folder) if step < name]
    if is_previous:
        if not earlier:
            raise CheckpointError(f"{folder}: there is no step before {name}; delete the folder to start again")
        name = earlier[-1]
    try:
        verify(folder / name)
    except CheckpointError as error:
        cure = f"give --resume previous to go on from {earlier[-1]}" if earlier else "delete the folder to start again"
        raise CheckpointError(f"{error}; {cure}") from error
    return name


def _position(place: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((place / POSITION).read_text()))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{place / POSITION}: missing or damaged; give --resume previous, or delete the folder to start again"
        ) from error


def _parts(model: nn.Module, average: Average | None, optimizers: Optimizers) -> dict[str, Tensor]:
    """Every tensor that a run changes, by name; the tensors themselves, so that loading fills them in place."""
    still = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    parts = {f"model.{name}": value for name, value in model.state_dict().items() if name not in still}
    if average is not None:
        parts |= {f"average.{name}": value for name, value in average.tensors.items()}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for optimizer in optimizers:
        for parameter, entry in optimizer.state.items():
            for key, value in entry.items():
                parts |= plain(f"optimizer.{names[id(parameter)]}.{key}", value)
    return parts


@torch.no_grad()
def _prime(optimizers: Optimizers) -> None:
    """Make the tensors of optimizers that have not stepped yet, without moving a weight."""
    for optimizer in optimizers:
        if optimizer.state:
            continue
        rates = [float(group["lr"]) for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            set_rate(group, 0.0)
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            set_rate(group, rate)


def _require_fit(place: Path, parts: Mapping[str, Tensor], reader: dcp.HuggingFaceStorageReader) -> None:
    """CheckpointError where a step holds other tensors than the run."""
    found = {
        name: tuple(info.size)
        for name, info in reader.read_metadata().state_dict_metadata.items()
        if isinstance(info, TensorStorageMetadata)
    }
    wanted = {name: tuple(value.shape) for name, value in parts.items()}
    if found == wanted:
        return
    told = [f"{name} is missing" for name in sorted(wanted.keys() - found.keys())]
    told += [f"{name} is not part of this run" for name in sorted(found.keys() - wanted.keys())]
    told += [
        f"{name} is {found[name]}, the run has {wanted[name]}"
        for name in sorted(found.keys() & wanted.keys())
        if found[name] != wanted[name]
    ]
    raise CheckpointError(
        f"{place}: the state cannot be resumed with these settings: {told[0]}"
        f"{f', and {len(told) - 1} more' if len(told) > 1 else ''}; use the settings that it was saved with, or "
        "another name for the run"
    )


def _kinds(names: Mapping[str, object]) -> list[str]:
    return sorted({name.partition(".")[0] for name in names})


def _reason(error: BaseException) -> str:
    """What the system said, dug out of what the library wraps around it."""
    if isinstance(error, CheckpointException) and error.failures:
        failure = next(iter(error.failures.values()))
        error = failure[0] if isinstance(failure, tuple) else failure
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).splitlines()[0] if str(error) else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's notices that one process saves alone."""
    logger = logging.getLogger("torch.distributed.checkpoint")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            yield
    finally:
        logger.setLevel(level)
