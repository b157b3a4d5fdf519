"""Pickled weights to safetensors: the one place that opens a pickle, on explicit request, and only for tensors.

Enters: a folder with `pytorch_model.bin`, or shards of it and their index. Leaves: a folder with the same tensors as
safetensors, and the folder's JSON files. Does not know networks.

PyTorch's own restricted reader is used (`weights_only`): it builds tensors and plain containers, and refuses everything
else that a pickle could ask for.
"""

import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from dynin import checkpoint
from dynin.errors import CheckpointError
from dynin.repository import read_weight_map, require_replaceable, verify

INDEX = "pytorch_model.bin.index.json"
SINGLE_NAMES = ("pytorch_model.bin", "diffusion_pytorch_model.bin", "model.pt", "model.pth", "model.ckpt")
NESTED = ("state_dict", "model_state_dict", "model")
"""Under which name tensors lie where a file holds them and more: PyTorch Lightning's, VIRST's, SAM2's."""
MAX_SHARD_BYTES = 5 * 10**9
_KEPT = (".json", ".txt", ".md", ".model")


def to_safetensors(source: Path, destination: Path) -> None:
    """Write a folder anew with safetensors in the place of pickles; its JSON and text files come along.

    Raises:
        CheckpointError: If there is no pickle, one is missing, damaged, or holds anything but tensors; if pickles and
            their index disagree; or if the destination cannot be written or holds something that is no model.
    """
    require_replaceable(destination, source)
    weight_map = read_weight_map(source / INDEX, ".bin") if (source / INDEX).is_file() else None
    if weight_map is None:
        files = [source / name for name in SINGLE_NAMES if (source / name).is_file()][:1]
        files = files or _only(source)
    else:
        files = [source / name for name in dict.fromkeys(weight_map.values())]
    if not files:
        raise CheckpointError(f"{source}: no pickled weights; expected {INDEX} or one of {', '.join(SINGLE_NAMES)}")
    if missing := [path.name for path in files if not path.is_file()]:
        raise CheckpointError(f"{source}: {', '.join(missing)} missing, though {INDEX} names it; fetch it again")
    verify(source, files)
    tensors: dict[str, Tensor] = {}
    for path in files:
        found = _read(path)
        listed = found.keys() if weight_map is None else {name for name in weight_map if weight_map[name] == path.name}
        if different := sorted(listed ^ found.keys()):
            raise CheckpointError(
                f"{path}: {INDEX} and the file disagree about {', '.join(different[:4])}; fetch both again"
            )
        tensors |= found

    def write(fresh: Path) -> None:
        others = {path.name: path.read_bytes() for path in source.iterdir() if _is_kept(path)}
        checkpoint.write_files(fresh, tensors, others, MAX_SHARD_BYTES)
        for folder in (path for path in source.iterdir() if path.is_dir() and not path.name.startswith(".")):
            shutil.copytree(folder, fresh / folder.name)

    checkpoint.replace_folder(destination, write)


def _only(source: Path) -> list[Path]:
    """The one file of PyTorch, however it is called; none where there are several."""
    found = [path for path in sorted(source.glob("*")) if path.suffix in (".pt", ".pth")]
    return found if len(found) == 1 else []


def _is_kept(path: Path) -> bool:
    return path.is_file() and path.suffix in _KEPT and not path.name.endswith(".index.json")


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of one pickle; nested under one of the names of `NESTED` where they are."""
    try:
        values = _unpickle(path)
    except Exception as error:  # what is no tensor ends in one of many errors of the reader
        is_refused = type(error).__name__ == "UnpicklingError"  # PyTorch's own words tell how to run the code inside
        reason = "damaged, or more than tensors" if is_refused else (str(error) or type(error).__name__).split("\n")[0]
        raise CheckpointError(
            f"{path}: cannot be read as plain tensors ({reason[:160]}); fetch it again, or ask its author for "
            "safetensors"
        ) from error
    for key in NESTED:
        if isinstance(values, dict) and isinstance(values.get(key), dict):
            values = values[key]
            break
    if not isinstance(values, dict) or not values:
        raise CheckpointError(f"{path}: holds {type(values).__name__}, expected tensors by name")
    wrong = [
        str(name)
        for name, value in values.items()
        if not isinstance(name, str) or not isinstance(value, Tensor) or value.layout != torch.strided
    ]
    if wrong:
        raise CheckpointError(f"{path}: {', '.join(wrong[:4])} is no plain tensor; expected tensors by name")
    return _apart(values)


def _apart(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, none of which shares memory with another: what the file alone holds is not copied."""
    apart: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, value in values.items():
        storage = value.untyped_storage()
        is_alone = value.is_contiguous() and storage.nbytes() == value.nbytes and storage.data_ptr() not in seen
        seen.add(storage.data_ptr())
        apart[name] = value.detach() if is_alone else value.detach().clone(memory_format=torch.contiguous_format)
    return apart


def _unpickle(path: Path) -> object:
    """What PyTorch's restricted reader makes of a file, mapped where its format (that of 1.6 and newer) allows it."""
    is_archive = zipfile.is_zipfile(path)
    return torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)
