"""A token cache: rows whose media are codes already, in a folder of parts.

Enters: a folder that `pretokenize` filled. Leaves: examples by position. Does not know where rows came from or how
their codes were made, only what they depend on.

    cache.json   what is cached, by which tokenizers, which parts in which order, which rows were left out
    parts/       safetensors files, named by the content they were made of
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from dynin.data.example import Example
from dynin.data.records import part
from dynin.data.records.encoder import RowEncoder
from dynin.errors import DataError
from dynin.media.files import replace_whole
from dynin.types import Modality

MANIFEST = "cache.json"
PARTS = "parts"
FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """The content of cache.json."""

    source: str
    made_by: Mapping[str, str]
    """What the codes depend on; of the modalities that occur."""
    max_len: int
    """The model's length that rows were measured by."""
    is_complete: bool = False
    num_records: int = 0
    """Rows of the source, faulty ones included."""
    longest: int = 0
    tasks: Mapping[str, int] = field(default_factory=dict)
    parts: Sequence[str] = ()
    rows: Sequence[int] = ()
    """How many rows each part has."""
    faults: Sequence[str] = ()
    """What was left out, a line for each fault."""
    format_version: int = FORMAT_VERSION

    def write(self, folder: Path) -> None:
        """Replace the folder's manifest; whole or not at all."""
        with replace_whole(folder / MANIFEST) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """The manifest of a folder; DataError if there is none, or it is damaged."""
        path = folder / MANIFEST
        try:
            values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            read = cls(**values)
            if read.format_version != FORMAT_VERSION or len(read.parts) != len(read.rows):
                raise ValueError("another format")
        except FileNotFoundError as error:
            raise DataError(
                f"{folder} is no token cache; make one with `dynin data pretokenize FILE -o {folder}`"
            ) from error
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"{path}: damaged or of another format; delete the folder and make it anew") from error
        return read

    def require_same(self, encoder: RowEncoder, folder: Path) -> None:
        """DataError unless the codes were made by these tokenizers."""
        names = {"text": Modality.TEXT, "image": Modality.IMAGE, "speech": Modality.SPEECH, "frames": Modality.VIDEO}
        ours = encoder.made_by([modality for name, modality in names.items() if name in self.made_by])
        for name, made_by in self.made_by.items():
            if ours.get(name) != made_by:
                told = {"layout": "vocabulary layout", "frames": "number of frames"}.get(name, f"{name} tokenizer")
                raise DataError(
                    f"{folder}: its codes were made by another {told} ({made_by[:12]}, this model's is "
                    f"{ours.get(name, 'none')[:12]}); name the model that made them, or make another cache"
                )


def is_cache(path: Path) -> bool:
    """Whether a folder is a token cache, finished or not."""
    return (path / MANIFEST).is_file()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TokenCache:
    """A `sources.IndexedExamples`."""

    name: str
    folder: Path
    manifest: Manifest
    ends: Int64[np.ndarray, " P"]
    """Rows up to the end of each part."""

    @classmethod
    def open(cls, folder: Path, encoder: RowEncoder) -> "TokenCache":
        """Open a finished cache.

        Raises:
            DataError: If it is none, is not finished, is damaged, was made by other tokenizers, or has rows that are
                too long for the model.
        """
        manifest = Manifest.read(folder)
        if not manifest.is_complete:
            raise DataError(f"{folder} is not finished; run `dynin data pretokenize` with the same arguments again")
        manifest.require_same(encoder, folder)
        if manifest.longest > encoder.max_len:
            raise DataError(
                f"{folder}: its longest row has {manifest.longest} positions, expected at most this model's length, "
                f"{encoder.max_len}; make another cache"
            )
        missing = next((name for name in manifest.parts if not (folder / PARTS / name).is_file()), None)
        if missing is not None:
            raise DataError(
                f"{folder / PARTS / missing}: missing; run `dynin data pretokenize` again, which makes it anew"
            )
        ends = np.cumsum(manifest.rows, dtype=np.int64)
        return cls(name=str(folder), folder=folder, manifest=manifest, ends=ends)

    def __len__(self) -> int:
        """Number of rows."""
        return int(self.ends[-1]) if len(self.ends) else 0

    def example(self, position: int) -> Example:
        """The row at a position, media as codes; `truth` is its place in the source. DataError for a damaged part."""
        at = int(np.searchsorted(self.ends, position, side="right"))
        row = position - (int(self.ends[at - 1]) if at else 0)
        return part.example(self.folder / PARTS / self.manifest.parts[at], row)

    def fingerprint(self) -> str:
        """A hash of the rows, whose parts are named by their content."""
        return hashlib.sha256(json.dumps([list(self.manifest.parts), list(self.manifest.rows)]).encode()).hexdigest()
