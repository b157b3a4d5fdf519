"""A folder of safetensors as the model hub holds it: what lies where, whole and undamaged, one shard at a time.

Enters: a folder with `model.safetensors`, or shards and their index. Leaves: names, shapes and bytes of every tensor
from the headers alone, and the tensors themselves, streamed; and whether such a folder may be replaced. Does not know
networks or configs; writes nothing, and reads nothing that could run code.

Damage is found by checksums wherever the folder carries any: a SHA256SUMS file, the hub cache (whose files are links
to their own hashes) or the notes that `hf download --local-dir` leaves. Everything else is compared with headers and
index.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Container, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dynin.errors import CheckpointError

SINGLE_NAMES = ("model.safetensors", "pytorch_model.safetensors", "diffusion_pytorch_model.safetensors")
INDEX = "model.safetensors.index.json"
SUMS = "SHA256SUMS"
DTYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
)
"""What weights can be stored in, as safetensors write it."""
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_OWN_SUFFIXES = (".safetensors", ".json", ".md", ".txt")
_OWN_FOLDERS = ("backbone", "text", "image", "speech", ".cache")
_BITS = {
    "F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16, "U16": 16,
    "F8_E4M3": 8, "F8_E5M2": 8, "I8": 8, "U8": 8, "BOOL": 8,
}  # fmt: skip
MOST_HASHED_AT_ONCE = 8
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """What a header says of one tensor."""

    shard: Path
    dtype: str
    """As safetensors write it: F32, BF16 .."""
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes in the file."""
        return math.prod(self.shape) * _BITS.get(self.dtype, 32) // 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Repository:
    """The tensors of a folder, none of them read yet."""

    folder: Path
    tensors: Mapping[str, Stored]
    """By name, in the order of the shards."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every name with its shape."""
        return {name: stored.shape for name, stored in self.tensors.items()}

    @property
    def shards(self) -> list[Path]:
        """The weight files."""
        return list(dict.fromkeys(stored.shard for stored in self.tensors.values()))

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(stored.num_bytes for stored in self.tensors.values())

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type that most of the numbers are stored in; float32 where none is."""
        counts: dict[str, int] = {}
        for stored in self.tensors.values():
            if stored.dtype in DTYPES:
                counts[stored.dtype] = counts.get(stored.dtype, 0) + math.prod(stored.shape)
        return DTYPES[max(counts, key=counts.__getitem__)] if counts else torch.float32

    def stream(self, dtype: torch.dtype | None = None) -> Iterator[tuple[str, Tensor]]:
        """Every tensor on the CPU, shard by shard; a shard is open only while its tensors are handed out.

        Args:
            dtype: What floating-point tensors are cast to; None keeps them as stored.
        """
        for shard in self.shards:
            with safe_open(shard, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - not a dict
                    value = file.get_tensor(name)
                    yield name, value.to(dtype) if dtype is not None and value.is_floating_point() else value


def open_repository(folder: Path, single_names: tuple[str, ...] = SINGLE_NAMES) -> Repository:
    """Read every header of a folder and compare them with the index.

    Raises:
        CheckpointError: If weights are missing, pickled, damaged or cut short, or index and shards disagree; the
            message names the file and the tensor.
    """
    index = folder / INDEX
    if index.is_file():
        weight_map = read_weight_map(index)
        shards = [folder / name for name in dict.fromkeys(weight_map.values())]
        if missing := [shard.name for shard in shards if not shard.is_file()]:
            raise CheckpointError(f"{folder}: {', '.join(missing)} missing, though {INDEX} names it; fetch it again")
    else:
        shards = [folder / name for name in single_names if (folder / name).is_file()][:1]
        if not shards:
            raise CheckpointError(_nothing(folder, single_names))
        weight_map = None
    tensors: dict[str, Stored] = {}
    for shard in shards:
        found = _header(shard)
        for name in found:
            if name in tensors:
                raise CheckpointError(
                    f"{shard}: holds {name}, which {tensors[name].shard.name} holds too; fetch the weights again"
                )
        _require_listed(shard, found, weight_map)
        tensors |= found
    return Repository(folder=folder, tensors=tensors)


def require_of(folder: Path, what: str, given: Mapping[str, Tensor], expected: Container[str]) -> None:
    """Tell weights of another model from weights that are merely incomplete, and numbers from other things.

    Args:
        what: The model that is to be read, for messages.
        expected: Names of its tensors.

    Raises:
        CheckpointError: If no tensor is of that model, or one of them holds no floating-point numbers.
    """
    known = [name for name in given if name in expected]
    if not known:
        raise CheckpointError(f"{folder}: holds no {what} but {_some(sorted(given))}; name the folder that has it")
    wrong = [f"{name} ({given[name].dtype})" for name in known if not given[name].is_floating_point()]
    if wrong:
        raise CheckpointError(f"{folder}: {_some(wrong)} of the {what} are no floating-point numbers; fetch it again")


def verify(folder: Path, paths: list[Path]) -> list[Path]:
    """Compare files with every checksum that the folder carries.

    Returns:
        The files that a checksum was found for; the others cannot be vouched for.
    Raises:
        CheckpointError: If a file differs from its checksum.
    """
    known = {path: expected for path, expected in _expected_sums(folder, paths).items() if expected is not None}
    _hashed(known)
    return [*known]


def checked_sums(folder: Path, paths: list[Path]) -> dict[Path, str]:
    """The SHA-256 of files, each compared with the checksum that the folder carries for it, if any; errors as above."""
    return _hashed(_expected_sums(folder, paths))


def read_json(path: Path) -> dict:
    """A JSON object in which no name comes twice; CheckpointError otherwise."""

    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        values = dict(pairs)
        if len(values) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise CheckpointError(f"{path}: names {twice} twice; fetch it again")
        return values

    try:
        values = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=once)
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); fetch the checkpoint again") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: no valid JSON; fetch the checkpoint again") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: expected a JSON object; fetch the checkpoint again")
    return values


def read_weight_map(index: Path, suffix: str = ".safetensors") -> dict[str, str]:
    """In which file beside an index each tensor lies; CheckpointError for files elsewhere or of another kind."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index}: has no weight_map; fetch it again")
    for name, home in weight_map.items():
        if not isinstance(home, str) or Path(home).name != home or not home.endswith(suffix):
            raise CheckpointError(
                f"{index}: puts {name} into {home!r}, expected a {suffix} file beside the index; fetch it again"
            )
    return weight_map


def require_replaceable(folder: Path, source: Path | None = None) -> None:
    """Whether a folder may be written: it is new, empty, or holds a model and nothing else.

    Args:
        source: What is read meanwhile; it must not lie where it would be replaced.

    Raises:
        CheckpointError: If something would be lost.
    """
    if source is not None and folder.resolve() in (source.resolve(), *source.resolve().parents):
        raise CheckpointError(f"{folder}: holds what is to be read ({source}); name another folder")
    if not folder.exists():
        return
    entries = sorted(folder.iterdir()) if folder.is_dir() else [folder]
    strange = [path.name for path in entries if not _is_own(path)]
    is_model = any(path.suffix == ".safetensors" or path.name == "backbone" for path in entries)
    if strange or (entries and not is_model):
        raise CheckpointError(
            f"{folder}: holds something that is no model ({_some(strange or [path.name for path in entries])}); "
            "name an empty or new folder"
        )


def _is_own(path: Path) -> bool:
    """Whether an entry of a folder is of a kind that models consist of."""
    if path.is_dir():
        return path.name in _OWN_FOLDERS
    return path.suffix in _OWN_SUFFIXES or path.name == SUMS


def _header(shard: Path) -> dict[str, Stored]:
    """What a file says of its tensors; its length is checked against it."""
    try:
        with safe_open(shard, framework="pt") as file:
            found = {}
            for name in file.keys():  # noqa: SIM118 - not a dict
                part = file.get_slice(name)
                found[name] = Stored(shard=shard, dtype=part.get_dtype(), shape=tuple(part.get_shape()))
            return found
    except (OSError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{shard}: damaged or cut short ({shard.stat().st_size} bytes; {reason}); fetch it again"
        ) from error


def _require_listed(shard: Path, found: Mapping[str, Stored], weight_map: Mapping[str, str] | None) -> None:
    if weight_map is None:
        return
    listed = {name for name, home in weight_map.items() if home == shard.name}
    if absent := sorted(listed - found.keys()):
        raise CheckpointError(f"{shard}: lacks {_some(absent)}, which the index puts there; is it from another model?")
    if extra := sorted(found.keys() - listed):
        raise CheckpointError(f"{shard}: holds {_some(extra)}, which the index does not put there; fetch both again")


def _nothing(folder: Path, names: tuple[str, ...]) -> str:
    pickled = sorted(path.name for pattern in _PICKLED for path in folder.glob(pattern))
    if pickled:
        return (
            f"{folder}: the weights are pickled ({_some(pickled)}) and are not read; "
            f"write them anew with `dynin convert {folder} FOLDER --from-pickle`"
        )
    if shards := sorted(path.name for path in folder.glob("*-of-*.safetensors")):
        return f"{folder}: has {_some(shards)}, but no {INDEX}; fetch the index too"
    return (
        f"{folder}: no weights; expected {INDEX} or one of {', '.join(names)}; name the folder that holds them; where "
        "only pickled ones are published (.bin), `dynin convert NAME FOLDER --from-pickle` fetches and rewrites them"
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _listed_sums(folder: Path) -> dict[str, str]:
    """The lines of SHA256SUMS by file; empty where there is none."""
    path = folder / SUMS
    if not path.is_file():
        return {}
    sums = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        match = re.fullmatch(r"([0-9a-f]{64}) [ *](.+)", line)
        if match is None:
            raise CheckpointError(f"{path}: damaged line {line[:80]!r}; fetch the checkpoint again")
        sums[match[2]] = match[1]
    return sums


def _hub_sum(folder: Path, path: Path) -> str | None:
    """The checksum that the hub's own tools keep beside a large file."""
    if path.is_symlink() and _SHA256.fullmatch(path.resolve().name):
        return path.resolve().name
    notes = folder / ".cache" / "huggingface" / "download" / f"{path.relative_to(folder)}.metadata"
    if notes.is_file():
        lines = notes.read_text(encoding="utf-8", errors="replace").splitlines()
        if len(lines) > 1 and _SHA256.fullmatch(lines[1].strip()):
            return lines[1].strip()
    return None


def _expected_sums(folder: Path, paths: list[Path]) -> dict[Path, str | None]:
    """The checksum that a folder carries for each file, None where it carries none."""
    listed = _listed_sums(folder)
    return {path: listed.get(path.relative_to(folder).as_posix()) or _hub_sum(folder, path) for path in paths}


def _hashed(expected: Mapping[Path, str | None]) -> dict[Path, str]:
    """The SHA-256 of files, several at a time, as hashing takes longer than reading; errors as in `_checked_sum`."""
    with ThreadPoolExecutor(max(1, min(MOST_HASHED_AT_ONCE, len(expected), os.cpu_count() or 1))) as pool:
        return dict(zip(expected, pool.map(_checked_sum, expected.keys(), expected.values()), strict=True))


def _checked_sum(path: Path, expected: str | None) -> str:
    """The SHA-256 of a file; CheckpointError if another one was expected."""
    digest = sha256(path)
    if expected not in (None, digest):
        raise CheckpointError(
            f"{path}: damaged ({path.stat().st_size} bytes, its SHA-256 is not {str(expected)[:12]}..); fetch it again"
        )
    return digest


def sha256(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal digits; OSError if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk; OSError if the system refuses."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
