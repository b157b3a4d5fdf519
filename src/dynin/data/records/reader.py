"""Where rows come from: one small protocol for files, tars and tables.

Enters: what a user names. Leaves: `Record` values in the source's own order, from any position on. Does not know tasks,
codes or models.

    rows.jsonl                                 a row for each line; media beside the file
    part-000.tar   part-*.tar                  WebDataset: KEY.json and its media, see `tars`
    hf:NAME?split=train&streaming=1            a table of the package `datasets`, see `huggingface`
    table.parquet                              the same
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from dynin.data.records import medium
from dynin.data.records.fault import Finding, Place
from dynin.data.records.medium import Medium
from dynin.data.records.template import Template
from dynin.errors import DataError


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Record:
    """One row as it was read, before its form is checked."""

    place: Place
    value: object
    """The JSON value, or what kept it from being read as a `Finding`."""
    relative: Callable[[str], Medium]
    """The medium that a path in the row means."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Where a template filled the row: the column by the field."""

    def medium(self, path: str) -> Medium:
        """The medium that a path or URL in the row means."""
        return medium.of_url(path) if medium.is_url(path) else self.relative(path)

    def named(self, finding: Finding) -> Finding:
        """A finding whose field is the column it came from, where a template filled the row."""
        column = self.columns.get(finding.field)
        return finding if column is None else Finding(field=f"column {column}", message=finding.message)


@runtime_checkable
class RecordReader(Protocol):
    """Rows in a fixed order."""

    @property
    def name(self) -> str:
        """What messages call the source."""
        ...

    def records(self, start: int = 0) -> Iterator[Record]:
        """The rows from a position on; the same ones in every pass."""
        ...


@runtime_checkable
class IndexedReader(RecordReader, Protocol):
    """Rows that can be read one by one, in any order."""

    def __len__(self) -> int:
        """Number of rows, faulty ones included."""
        ...

    def record(self, position: int) -> Record:
        """The row at a position."""
        ...


def open_reader(name: str, template: Template | None = None) -> RecordReader:
    """The reader of what a user names.

    Args:
        template: How columns become rows, for sources that are not in the schema.

    Raises:
        DataError: If there is no such source, it is of no known kind, or it is damaged.
    """
    if name.startswith("hf:") or name.endswith(".parquet"):
        from dynin.data.records.huggingface import open_table

        return open_table(name, template)
    if name.endswith(".tar"):
        from dynin.data.records.tars import Tars

        return Tars.of(name, template)
    if name.endswith((".tar.gz", ".tgz", ".jsonl.gz")):
        raise DataError(f"{name} is compressed, which leaves no way to any row but the first; unpack it with gunzip")
    path = Path(name)
    if path.is_dir():
        raise DataError(f"{name} is a folder; name a file of rows (.jsonl), a tar, a .parquet file or hf:NAME")
    from dynin.data.records.jsonl import JsonLines

    return JsonLines.of(path, template)
