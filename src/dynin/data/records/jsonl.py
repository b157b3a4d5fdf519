"""Rows in a text file, one JSON object a line, media beside it.

Enters: a path. Leaves: `Record` values by line. Does not know what a row means.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import Int64

from dynin.data.records import medium, schema
from dynin.data.records.fault import Place
from dynin.data.records.medium import Medium
from dynin.data.records.reader import Record
from dynin.data.records.template import Template
from dynin.errors import DataError

_CHUNK_BYTES = 1 << 24
_BLANK_BYTES = 64
"""Longer lines are rows, whatever they hold."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class JsonLines:
    """A `reader.IndexedReader`. Blank lines are no rows, but count as lines."""

    name: str
    path: Path
    starts: Int64[np.ndarray, " R"]
    """Where each row begins, in bytes."""
    stops: Int64[np.ndarray, " R"]
    lines: Int64[np.ndarray, " R"]
    """The line of each row, from 1."""
    template: Template | None = None

    @classmethod
    def of(cls, path: Path, template: Template | None = None) -> "JsonLines":
        """Find the lines of a file; DataError if it is missing or may not be read."""
        try:
            with path.open("rb") as stream:
                ends = _line_ends(stream)
                starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
                is_row = np.ones(len(ends), dtype=bool)
                for at in np.flatnonzero(ends - starts <= _BLANK_BYTES):
                    stream.seek(int(starts[at]))
                    is_row[at] = bool(stream.read(int(ends[at] - starts[at])).strip())
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "no such file"
            raise DataError(
                f"{path}: cannot be read ({reason}); give a file of rows, one JSON object a line"
            ) from error
        lines = np.flatnonzero(is_row) + 1
        return cls(name=str(path), path=path, starts=starts[is_row], stops=ends[is_row], lines=lines, template=template)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.starts)

    def records(self, start: int = 0) -> Iterator[Record]:
        """The rows from a position on."""
        with self.path.open("rb") as stream:
            for position in range(start, len(self)):
                stream.seek(int(self.starts[position]))
                yield self._record(position, stream.read(int(self.stops[position] - self.starts[position])))

    def record(self, position: int) -> Record:
        """The row at a position."""
        return next(self.records(position))

    def _record(self, position: int, data: bytes) -> Record:
        place = Place(source=self.name, unit="line", key=int(self.lines[position]))
        value = schema.from_json(data)
        columns: Mapping[str, str] = {}
        if self.template is not None and isinstance(value, Mapping):
            value, columns = self.template.fill(partial(_column, value))
        return Record(place=place, value=value, relative=self._relative, columns=columns)

    def _relative(self, path: str) -> Medium:
        return medium.of_file(self.path.parent / path)


def _column(row: Mapping[str, object], name: str, is_text: bool) -> object:
    del is_text
    return row[name]


def _line_ends(stream: IO[bytes]) -> Int64[np.ndarray, " L"]:
    """Where each line ends, its line feed left out; the last one may lack it."""
    ends = []
    offset = 0
    last = b"\n"
    while chunk := stream.read(_CHUNK_BYTES):
        ends.append(np.flatnonzero(np.frombuffer(chunk, dtype=np.uint8) == ord("\n")) + offset)
        offset += len(chunk)
        last = chunk[-1:]
    if last != b"\n":
        ends.append(np.array([offset]))
    return np.concatenate(ends).astype(np.int64) if ends else np.zeros(0, dtype=np.int64)
