"""One part of a token cache: some hundred rows in one file that appears whole, and says whether it is still so.

Enters: rows as codes and texts, faults. Leaves: a safetensors file, and its rows again. Does not know readers, media or
tokenizers.

    rows   row_ends     UTF-8 JSON, one row after another: task, place, texts, numbers of codes
    codes  code_ends    all codes of a row, in the order in which the row lists them
    faults              UTF-8 JSON: place, field, message
    metadata            format, key, what the part holds, and a digest of all of that
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from dynin.data.example import Example
from dynin.data.records.fault import Fault, Place
from dynin.errors import DataError
from dynin.media.files import replace_whole
from dynin.types import Modality

FORMAT = "dynin token cache 1"
MOST_OPEN = 256
"""Parts that are mapped at a time."""
_NAMES = ("code_ends", "codes", "faults", "row_ends", "rows")


@dataclass(frozen=True, kw_only=True, slots=True)
class PartReport:
    """What a part holds."""

    file: str
    """Its name, which ends with its key."""
    num_records: int
    """Rows of the source, faulty ones included."""
    num_rows: int
    """Rows in the part."""
    longest: int
    """Positions of the longest of them."""
    tasks: Mapping[str, int]
    made_by: Mapping[str, str]
    """What the codes depend on, see `encoder.made_by`."""
    faults: tuple[Fault, ...]
    is_new: bool = True
    """False where the part was there already."""

    def about(self) -> dict[str, Any]:
        """What the file's metadata tell."""
        return {
            "file": self.file,
            "records": self.num_records,
            "rows": self.num_rows,
            "longest": self.longest,
            "tasks": dict(self.tasks),
            "made_by": dict(self.made_by),
        }


def write(folder: Path, report: PartReport, examples: Sequence[Example], places: Sequence[Place]) -> None:
    """Write a part; whole or not at all, and on the disk when this returns."""
    rows, codes = [], []
    for example, place in zip(examples, places, strict=True):
        row: dict[str, object] = {"task": example.task, "place": [place.source, place.unit, place.key]}
        numbers: list[np.ndarray] = [np.zeros(0, dtype=np.int32)]
        for side, values in (("condition", example.condition), ("target", example.target)):
            row[side] = [[str(key), value if isinstance(value, str) else len(value)] for key, value in values.items()]  # type: ignore[arg-type]
            numbers += [value.numpy().astype(np.int32) for value in values.values() if isinstance(value, torch.Tensor)]
        rows.append(json.dumps(row, ensure_ascii=False).encode())
        codes.append(np.concatenate(numbers))
    faults = [[*_listed(fault.place), fault.field, fault.message] for fault in report.faults]
    tensors: dict[str, np.ndarray] = {
        "rows": np.frombuffer(b"".join(rows), dtype=np.uint8),
        "row_ends": np.cumsum([len(row) for row in rows], dtype=np.int64),
        "codes": np.concatenate([np.zeros(0, dtype=np.int32), *codes]),
        "code_ends": np.cumsum([len(row) for row in codes], dtype=np.int64),
        "faults": np.frombuffer(json.dumps(faults).encode(), dtype=np.uint8),
    }
    about = json.dumps(report.about(), sort_keys=True)
    told = json.dumps({"format": FORMAT, "about": about, "digest": _digest(tensors, about)})
    with replace_whole(folder / report.file) as temporary:  # one entry, since several come in any order
        temporary.write_bytes(save(tensors, metadata={"part": told}))


def _listed(place: Place) -> list[object]:
    return [place.source, place.unit, place.key]


def _digest(tensors: Mapping[str, np.ndarray], about: str) -> str:
    digest = hashlib.sha256(about.encode())
    for name in _NAMES:
        digest.update(f"{name} {tensors[name].dtype} {tensors[name].shape}".encode())
        digest.update(np.ascontiguousarray(tensors[name]).tobytes())
    return digest.hexdigest()


def verified(path: Path) -> PartReport:
    """What a part holds, once every byte of it was compared with its digest.

    Raises:
        DataError: If it is missing, damaged, or of another format.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = json.loads((file.metadata() or {})["part"])
            tensors = {name: file.get_tensor(name) for name in _NAMES}
        if metadata.get("format") != FORMAT or metadata["digest"] != _digest(tensors, metadata["about"]):
            raise ValueError("the digest differs")
        about = json.loads(metadata["about"])
        if about["file"] != path.name:
            raise ValueError("another part's file")
        faults = json.loads(tensors["faults"].tobytes())
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise DataError(
            f"{path}: missing or damaged; run `dynin data pretokenize` with the same arguments again, which makes this "
            "part anew and no other"
        ) from error
    return PartReport(
        file=path.name,
        num_records=about["records"],
        num_rows=about["rows"],
        longest=about["longest"],
        tasks=about["tasks"],
        made_by=about["made_by"],
        faults=tuple(
            Fault(place=Place(source=source, unit=unit, key=key), field=field, message=message)
            for source, unit, key, field, message in faults
        ),
        is_new=False,
    )


def example(path: Path, row: int) -> Example:
    """One row of a part; every part is compared with its digest when it is first read. DataError as in `verified`."""
    _verified_once(path)
    file = _opened(path)
    values = json.loads(_slice(file, "rows", "row_ends", row).tobytes())
    codes = torch.from_numpy(_slice(file, "codes", "code_ends", row).astype(np.int64))
    at = 0
    sides: dict[str, dict[Modality, object]] = {"condition": {}, "target": {}}
    for side, held in sides.items():
        for name, value in values[side]:
            if isinstance(value, str):
                held[Modality(name)] = value
            else:
                held[Modality(name)] = codes[at : at + value]
                at += value
    source, unit, key = values["place"]
    place = Place(source=source, unit=unit, key=key)
    return Example(
        task=values["task"], condition=sides["condition"], target=sides["target"], truth=place, name=str(place)
    )


def _slice(file: Any, name: str, ends: str, row: int) -> np.ndarray:
    """What belongs to one row, of a tensor that holds all rows."""
    stops = file.get_slice(ends)
    start = int(stops[row - 1 : row][0]) if row else 0
    stop = int(stops[row : row + 1][0])
    return file.get_slice(name)[start:stop] if start < stop else np.zeros(0, dtype=np.int32)


@lru_cache(maxsize=1 << 16)
def _verified_once(path: Path) -> None:
    verified(path)


@lru_cache(maxsize=MOST_OPEN)
def _opened(path: Path) -> Any:
    return safe_open(path, framework="numpy").__enter__()
