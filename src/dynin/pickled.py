"""Pickled weights to safetensors: the one place that opens a pickle, on explicit request, and only for tensors.

Enters: a folder with `pytorch_model.bin`, or shards of it and their index. Leaves: a folder with the same tensors as
safetensors, and the folder's JSON files. Does not know networks.

PyTorch's own restricted reader is used (`weights_only`): it builds tensors and plain containers, and refuses everything
else that a pickle could ask for.
"""

import shutil
from pathlib import Path

import torch
from torch import Tensor

from dynin import checkpoint
from dynin.errors import CheckpointError
from dynin.repository import read_json

INDEX = "pytorch_model.bin.index.json"
SINGLE_NAMES = ("pytorch_model.bin", "model.pt", "model.pth", "model.ckpt")
MAX_SHARD_BYTES = 5 * 10**9


def to_safetensors(source: Path, destination: Path) -> None:
    """Write a folder anew with safetensors in the place of pickles; its JSON and text files come along.

    Raises:
        CheckpointError: If there is no pickle, one is damaged, or one holds anything but tensors.
    """
    index = source / INDEX
    if index.is_file():
        weight_map = read_json(index).get("weight_map") or {}
        files = [source / name for name in dict.fromkeys(weight_map.values())]
    else:
        files = [source / name for name in SINGLE_NAMES if (source / name).is_file()][:1]
    if not files:
        raise CheckpointError(f"{source}: no pickled weights; expected {INDEX} or one of {', '.join(SINGLE_NAMES)}")
    tensors: dict[str, Tensor] = {}
    for path in files:
        tensors |= _read(path)

    def write(fresh: Path) -> None:
        others = {path.name: path.read_bytes() for path in source.iterdir() if _is_kept(path)}
        checkpoint.write_files(fresh, tensors, others, MAX_SHARD_BYTES)
        for folder in (path for path in source.iterdir() if path.is_dir() and not path.name.startswith(".")):
            shutil.copytree(folder, fresh / folder.name)

    checkpoint.replace_folder(destination, write)


def _is_kept(path: Path) -> bool:
    is_described = path.suffix in (".json", ".txt", ".md", ".model") and not path.name.endswith(".index.json")
    return path.is_file() and is_described


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of one pickle, without sharing memory; nested under `state_dict` where it says so."""
    try:
        values = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # what is no tensor ends in one of many errors of the reader
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path}: cannot be read as plain tensors ({reason}); fetch it again, or ask its author for safetensors"
        ) from error
    if isinstance(values, dict) and isinstance(values.get("state_dict"), dict):
        values = values["state_dict"]
    if not isinstance(values, dict) or not values:
        raise CheckpointError(f"{path}: holds {type(values).__name__}, expected tensors by name")
    wrong = [str(name) for name, value in values.items() if not isinstance(value, Tensor)]
    if wrong:
        raise CheckpointError(f"{path}: {', '.join(wrong[:4])} is no tensor; expected tensors by name")
    return {name: value.contiguous().clone() for name, value in values.items()}
