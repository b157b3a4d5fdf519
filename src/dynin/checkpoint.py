"""Weights, config and provenance in one folder: written whole or not at all, verified when read.

Enters: tensors by name with everything needed to use them again. Leaves: a folder, and the same values. Does not know
networks: what `config` means is its reader's business.

    model/                              one model, every part a checkpoint of its own
        config.json  SHA256SUMS         the names of the parts
        backbone/                       one part
            config.json                 format version, kind, config, vocabulary layout, fingerprints, provenance
            model-00001-of-00002.safetensors ..
            model.safetensors.index.json
            SHA256SUMS                  of every other file; `sha256sum -c` reads it too
        image/  speech/                 likewise
        text/                           likewise, with tokenizer.json and no tensors
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dynin.errors import CheckpointError, VocabularyError
from dynin.repository import sha256, sync
from dynin.vocabulary import Vocabulary

FORMAT_VERSION = 1
MAX_SHARD_BYTES = 16 * 2**20
_CONFIG, _INDEX, _SUMS = "config.json", "model.safetensors.index.json", "SHA256SUMS"
_HEADER_BYTES, _HEADER_BYTES_PER_TENSOR = 128, 192
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_HUB_FILES = ("*.safetensors", "*.json", "merges.txt", _SUMS)
Fill = Callable[[str, Tensor], Tensor]
"""Makes a tensor from its name and its outline."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """What one folder holds."""

    kind: str
    """What the tensors are: backbone, image, speech, text or model."""
    config: Mapping[str, object]
    """Plain values from which the reader builds the network."""
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    vocabulary: Vocabulary | None = None
    """The layout that the rows of a backbone follow; None for parts that know no ids."""
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    """By modality, the tokenizers whose codes the weights were trained on."""
    provenance: Mapping[str, object] = field(default_factory=dict)
    """Code version, data, steps, hardware: plain values."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Further small files by name, such as tokenizer.json."""


def save(folder: Path, checkpoint: Checkpoint, *, max_shard_bytes: int = MAX_SHARD_BYTES) -> None:
    """Write or replace a checkpoint; the tensors keep their dtype.

    A process killed at any moment leaves the old checkpoint or the new one, never a mixture.

    Raises:
        CheckpointError: If one tensor alone exceeds the shard limit, or the folder cannot be written.
    """
    replace_folder(folder, lambda fresh: write_part(fresh, checkpoint, max_shard_bytes))


def save_model(folder: Path, parts: Mapping[str, Checkpoint], *, max_shard_bytes: int = MAX_SHARD_BYTES) -> None:
    """Write or replace a folder that holds several checkpoints, all of them or none; errors as in `save`."""

    def write(fresh: Path) -> None:
        for name, part in parts.items():
            write_part(fresh / name, part, max_shard_bytes)
        write_part(fresh, Checkpoint(kind="model", config={"parts": sorted(parts)}), max_shard_bytes)

    replace_folder(folder, write)


def load(folder: Path, *, vocabulary: Vocabulary | None = None, dtype: torch.dtype | None = None) -> Checkpoint:
    """Read a checkpoint and verify every file.

    Args:
        vocabulary: The layout the caller works with; None accepts any.
        dtype: What floating-point tensors are cast to; None keeps them as stored.

    Raises:
        CheckpointError: If a file is missing, damaged or of another format, or the vocabulary layouts differ.
    """
    folder = _standing(folder)
    names = _verify(folder)
    values = _read_json(folder / _CONFIG)
    if values.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{folder / _CONFIG}: format version {values.get('format_version')!r}, expected {FORMAT_VERSION}; "
            "use the version of dynin that wrote it, or fetch a checkpoint of this version"
        )
    try:
        if unlisted := sorted({*values["files"]} - {*names}):
            raise CheckpointError(f"{folder / _CONFIG}: names {', '.join(unlisted)}, {_SUMS} does not; fetch it again")
        stored = None if values["vocabulary"] is None else Vocabulary.from_dict(values["vocabulary"])
        if vocabulary is not None and stored is not None:
            stored.require_equal(vocabulary)
        return Checkpoint(
            kind=values["kind"],
            config=values["config"],
            tensors=_read_tensors(folder, names, dtype),
            vocabulary=stored,
            fingerprints=values["fingerprints"],
            provenance=values["provenance"],
            files={name: (folder / name).read_bytes() for name in values["files"]},
        )
    except VocabularyError as error:
        raise CheckpointError(f"{folder / _CONFIG}: {error}") from error
    except KeyError as error:
        raise CheckpointError(f"{folder / _CONFIG}: {error} is missing; fetch the checkpoint again") from error


def load_model(
    folder: Path, *, vocabulary: Vocabulary | None = None, dtype: torch.dtype | None = None
) -> dict[str, Checkpoint]:
    """Read every part of a model by name; arguments and errors as in `load`."""
    folder = _standing(folder)
    whole = load(folder)
    if whole.kind != "model":
        raise CheckpointError(f"{folder} holds one part ({whole.kind}), expected a whole model; name its parent folder")
    parts: list[str] = whole.config["parts"]  # type: ignore[assignment]
    return {name: load(folder / name, vocabulary=vocabulary, dtype=dtype) for name in parts}


def read_config(folder: Path) -> Checkpoint:
    """What a checkpoint's config says, without reading tensors or comparing files; errors as in `load`."""
    values = _read_json(_standing(folder) / _CONFIG)
    try:
        stored = None if values["vocabulary"] is None else Vocabulary.from_dict(values["vocabulary"])
        rest = {key: values[key] for key in ("kind", "config", "fingerprints", "provenance")}
        return Checkpoint(vocabulary=stored, **rest)
    except (KeyError, VocabularyError) as error:
        raise CheckpointError(f"{folder / _CONFIG}: not of a checkpoint of dynin ({error}); fetch it again") from error


def require_fit(names_and_shapes: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Tensor]) -> None:
    """Check that tensors are exactly the expected ones.

    Raises:
        CheckpointError: Listing every name that is missing or unknown and every shape that is wrong.
    """
    wrong = [
        f"{name} is {tuple(tensors[name].shape)}, expected {tuple(shape)}"
        for name, shape in names_and_shapes.items()
        if name in tensors and tuple(tensors[name].shape) != tuple(shape)
    ]
    kinds = {
        "missing": sorted(names_and_shapes.keys() - tensors.keys()),
        "unknown": sorted(tensors.keys() - names_and_shapes.keys()),
        "wrong shapes": wrong,
    }
    faults = [f"{kind}: {', '.join(names)}" for kind, names in kinds.items() if names]
    if faults:
        raise CheckpointError(
            f"the weights do not fit the model; {'; '.join(faults)}; check that config and weights belong together"
        )


def resolve(path_or_id: str | os.PathLike[str], *, is_pickled: bool = False, is_config_only: bool = False) -> Path:
    """The local folder of a checkpoint, fetched first where `org/name` on the model hub is meant.

    `org/name@revision` pins a branch, a tag or a commit. A folder that exists wins. Only safetensors, JSON,
    a tokenizer's merges and checksums are fetched, never code; HF_HUB_OFFLINE is honoured.

    Args:
        is_pickled: Fetch pickled weights too, for the explicit conversion that reads tensors only.
        is_config_only: Fetch nothing but the config.

    Raises:
        CheckpointError: If there is no such folder, and it is no id or cannot be fetched.
    """
    text = os.fspath(path_or_id)
    path = Path(text).expanduser()
    if path.is_dir() or _retired(path).is_dir():
        return path if path.is_dir() else _retired(path)
    found = re.fullmatch(r"([\w-][\w.-]*/[\w-][\w.-]*)(?:@([\w./-]+))?", text)
    if found is None or path.parent.exists():
        raise CheckpointError(f"{text}: no such folder; give a checkpoint's folder, or an id such as org/name")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    patterns = [_CONFIG] if is_config_only else [*_HUB_FILES, *(_PICKLED if is_pickled else ())]
    try:
        return Path(snapshot_download(found[1], revision=found[2], allow_patterns=patterns))
    except (OSError, HFValidationError) as error:
        raise CheckpointError(
            f"{text}: no such folder, and it could not be fetched ({type(error).__name__}); "
            "check the name and the network, or fetch it beforehand and give its folder"
        ) from error


def _retired(folder: Path) -> Path:
    """Where the old checkpoint waits while the new one takes its place."""
    return folder.with_name(f".{folder.name}.old")


def _standing(folder: Path) -> Path:
    """The folder to read: the checkpoint, or the old one where a save was killed between its two renames."""
    for place in (folder, _retired(folder)):
        if place.is_dir():
            return place
    if _retired(folder.parent).is_dir() and not folder.parent.is_dir():
        return _standing(_retired(folder.parent) / folder.name)
    raise CheckpointError(f"{folder}: no such folder; expected a checkpoint with {_CONFIG} and {_SUMS}")


def replace_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a fresh folder, then put it in place of the old one; errors as in `save`."""
    folder = folder.resolve()
    fresh, old = folder.with_name(f".{folder.name}.new"), _retired(folder)
    try:
        if fresh.exists():  # left by a save that was killed
            shutil.rmtree(fresh)
        try:
            write(fresh)
            _sync(fresh)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        if folder.exists():
            if old.exists():
                shutil.rmtree(old)
            folder.rename(old)
        fresh.rename(folder)
        sync(folder.parent)
        if old.exists():
            shutil.rmtree(old)
    except OSError as error:
        raise CheckpointError(
            f"{folder}: could not be written ({error.strerror}); check permissions and free space"
        ) from error


def _sync(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        sync(path)


def write_part(
    folder: Path, checkpoint: Checkpoint, max_shard_bytes: int = MAX_SHARD_BYTES, fill: Fill = lambda _, tensor: tensor
) -> None:
    """Write a checkpoint into a fresh folder that `replace_folder` made; `fill` as in `write_files`."""
    config = {
        "format_version": FORMAT_VERSION,
        "kind": checkpoint.kind,
        "config": checkpoint.config,
        "vocabulary": None if checkpoint.vocabulary is None else checkpoint.vocabulary.to_dict(),
        "fingerprints": checkpoint.fingerprints,
        "provenance": checkpoint.provenance,
        "files": sorted(checkpoint.files),
    }
    if _CONFIG in checkpoint.files:
        raise ValueError(f"{_CONFIG!r} cannot be the name of a further file of a checkpoint")
    write_files(folder, checkpoint.tensors, {_CONFIG: to_json(config), **checkpoint.files}, max_shard_bytes, fill)


def write_files(
    folder: Path,
    tensors: Mapping[str, Tensor],
    files: Mapping[str, bytes],
    max_shard_bytes: int,
    fill: Fill = lambda _, tensor: tensor,
) -> None:
    """Shards, their index, the files as they are, and checksums of everything.

    Args:
        fill: Makes a tensor when its shard is written, so that one shard at a time is held; `tensors` may then be
            outlines on the meta device, which say shapes and dtypes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shards = _shards(tensors, max_shard_bytes)
    names: list[str] = []
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write_shard(folder / name, {key: tensors[key] for key in shard}, fill)
        names.append(name)
        weight_map |= dict.fromkeys(shard, name)
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = to_json({"metadata": {"total_size": total}, "weight_map": weight_map})
    for name, content in {_INDEX: index, **files}.items():
        if Path(name).name != name or name in names:
            raise ValueError(f"{name!r} cannot be the name of a further file of a checkpoint")
        (folder / name).write_bytes(content)
        names.append(name)
    (folder / _SUMS).write_text("".join(f"{sha256(folder / name)}  {name}\n" for name in sorted(names)))


def _write_shard(path: Path, tensors: Mapping[str, Tensor], fill: Fill) -> None:
    """One shard; what it holds is let go when it is written."""
    made = {name: fill(name, tensor).detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(made, path, metadata={"format": "pt"})


def _shards(tensors: Mapping[str, Tensor], max_shard_bytes: int) -> list[list[str]]:
    """Names of tensors in their order, as many to a shard as fit with its header."""
    shards: list[list[str]] = []
    room = 0
    for name, tensor in tensors.items():
        size = tensor.nbytes + len(name) + _HEADER_BYTES_PER_TENSOR
        if size + _HEADER_BYTES > max_shard_bytes:
            raise CheckpointError(
                f"tensor {name} has {tensor.nbytes} bytes, a shard holds {max_shard_bytes}; raise max_shard_bytes"
            )
        if size > room or not shards:
            shards.append([])
            room = max_shard_bytes - _HEADER_BYTES
        shards[-1].append(name)
        room -= size
    return shards


def _verify(folder: Path) -> list[str]:
    """The names of all files of a checkpoint, after comparing each with its checksum."""
    try:
        lines = (folder / _SUMS).read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{folder / _SUMS}: missing or unreadable; fetch the checkpoint again") from error
    names = []
    for line in lines:
        match = re.fullmatch(r"([0-9a-f]{64})  ([^/\\]+)", line)
        if match is None:
            raise CheckpointError(f"{folder / _SUMS}: damaged line {line[:80]!r}; fetch the checkpoint again")
        path = folder / match[2]
        if not path.is_file():
            raise CheckpointError(f"{path}: missing, though {_SUMS} lists it; fetch the checkpoint again")
        if sha256(path) != match[1]:
            raise CheckpointError(
                f"{path}: damaged or cut short ({path.stat().st_size} bytes, checksum differs from {_SUMS}); "
                "fetch the checkpoint again"
            )
        names.append(match[2])
    for name in (_CONFIG, _INDEX):
        if name not in names:
            raise CheckpointError(f"{folder / _SUMS}: does not list {name}; fetch the checkpoint again")
    return names


def _read_tensors(folder: Path, names: list[str], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """All tensors, compared with the index."""
    weight_map = _read_json(folder / _INDEX).get("weight_map", {})
    tensors: dict[str, Tensor] = {}
    for name in sorted({*weight_map.values()} | {name for name in names if name.endswith(".safetensors")}):
        if name not in names:
            raise CheckpointError(f"{folder / name}: the index names this shard, {_SUMS} does not; fetch it again")
        try:
            shard = load_file(folder / name)
        except SafetensorError as error:
            raise CheckpointError(f"{folder / name}: no safetensors file ({error}); fetch it again") from error
        listed = {tensor for tensor, home in weight_map.items() if home == name}
        if listed != set(shard):
            difference = ", ".join(sorted(listed ^ set(shard))[:8])
            raise CheckpointError(f"{folder / name}: index and shard disagree about {difference}; fetch both again")
        tensors |= shard
    if dtype is not None:
        tensors = {name: value.to(dtype) if value.is_floating_point() else value for name, value in tensors.items()}
    return {name: tensors[name] for name in weight_map}


def _read_json(path: Path) -> dict:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: no valid JSON; fetch the checkpoint again") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: expected a JSON object; fetch the checkpoint again")
    return values


def to_json(values: Mapping[str, object]) -> bytes:
    """A JSON file's content."""
    return (json.dumps(values, indent=2, default=dict) + "\n").encode()
