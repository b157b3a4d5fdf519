"""Rows in a table of the package `datasets`: from the hub, from files, streamed or not.

Enters: `hf:NAME`, a .parquet file, or a dataset that is open already. Leaves: `Record` values by row. Does not know
what a row means. Pictures, sounds and videos are taken as the bytes or paths that the table holds; nothing is decoded
here, and no code of a dataset is run.

    hf:owner/name?split=train&name=CONFIG&revision=COMMIT&streaming=1

A column `messages` in the schema is taken as it is, with `id` and `task` where they are columns; otherwise a template
names the columns.
"""

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from dynin.config import suggest
from dynin.data.records import medium, schema
from dynin.data.records.fault import Place
from dynin.data.records.medium import Medium
from dynin.data.records.reader import Record, RecordReader
from dynin.data.records.template import Template
from dynin.errors import DataError

OPTIONS = ("split", "name", "revision", "streaming")
_MEDIA = ("Image", "Audio", "Video")
_OF_COLUMN = "column:"
"""What a path begins with whose bytes lie in the table."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Table:
    """A `reader.IndexedReader` on a `datasets.Dataset`."""

    name: str
    rows: Any
    template: Template | None = None

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.rows)

    def records(self, start: int = 0) -> Iterator[Record]:
        """The rows from a position on."""
        if start >= len(self):
            return iter(())
        rows = self.rows.select(range(start, len(self))) if start else self.rows
        return (_record(self.name, position, row, self.template) for position, row in enumerate(rows, start))

    def record(self, position: int) -> Record:
        """The row at a position."""
        return _record(self.name, position, self.rows[position], self.template)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Stream:
    """A `reader.RecordReader` on a `datasets.IterableDataset`: rows come in order, and nobody knows how many."""

    name: str
    rows: Any
    template: Template | None = None

    def records(self, start: int = 0) -> Iterator[Record]:
        """The rows from a position on; those before it are passed over, by whole files where the package can."""
        rows = self.rows.skip(start) if start else self.rows
        return (_record(self.name, position, row, self.template) for position, row in enumerate(rows, start))


def open_table(name: str, template: Template | None = None) -> RecordReader:
    """Open a table by name.

    Raises:
        DataError: If the package is missing, the name has unknown options, or there is no such table.
    """
    datasets = _package()
    plain, _, query = name.removeprefix("hf:").partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    for option in options:
        if option not in OPTIONS:
            raise DataError(f"{name}: unknown option {option!r}{suggest(option, OPTIONS)}")
    is_streamed = options.pop("streaming", "0") not in ("", "0", "false")
    options = {"split": "train", **options}
    if plain.endswith(".parquet"):
        options["data_files"] = plain
        if not Path(plain).is_file():
            raise DataError(f"{plain}: no such file; check the path")
        plain = "parquet"
    try:
        rows = datasets.load_dataset(plain, streaming=is_streamed, **options)
    except Exception as error:  # the package passes on whatever its file systems and parsers raise
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise DataError(f"{name}: the table cannot be opened ({reason}); check name, split and network") from error
    return of_dataset(rows, name, template)


def of_dataset(rows: Any, name: str, template: Template | None = None) -> RecordReader:
    """The reader of an open `datasets.Dataset` or `datasets.IterableDataset`."""
    datasets = _package()
    for column, feature in (rows.features or {}).items():
        if type(feature).__name__ in _MEDIA:
            rows = rows.cast_column(column, type(feature)(decode=False))
    kind = Table if isinstance(rows, datasets.Dataset) else Stream
    return kind(name=name, rows=rows, template=template)


def _package() -> Any:
    try:
        return importlib.import_module("datasets")
    except ImportError as error:
        raise DataError('the package datasets is missing and tables need it; run: pip install "dynin[data]"') from error


def _record(name: str, position: int, row: Mapping[str, object], template: Template | None) -> Record:
    place = Place(source=name, unit="row", key=position)
    columns: Mapping[str, str] = {}
    value: object
    if template is not None:
        value, columns = template.fill(partial(_column, row))
    else:
        value = {key: _without_nulls(row[key]) for key in schema.ROW_KEYS if row.get(key) is not None}
    return Record(place=place, value=value, relative=partial(_relative, row, f"{name}:{position}"), columns=columns)


def _column(row: Mapping[str, object], name: str, is_text: bool) -> object:
    """A text, a path, or a word that stands for the bytes in the table."""
    value = row[name]
    holds_bytes = isinstance(value, bytes) or (isinstance(value, Mapping) and value.get("bytes") is not None)
    if is_text:
        return value.decode("utf-8") if isinstance(value, bytes) else value
    if holds_bytes:
        return _OF_COLUMN + name
    return value.get("path") if isinstance(value, Mapping) else value


def _relative(row: Mapping[str, object], name: str, path: str) -> Medium:
    """The bytes in a column of the row, or a file."""
    if not path.startswith(_OF_COLUMN):
        return medium.of_file(Path(path))
    column = path.removeprefix(_OF_COLUMN)
    value = row.get(column)
    data = value.get("bytes") if isinstance(value, Mapping) else value
    return medium.of_bytes(data if isinstance(data, bytes) else b"", f"{name}:{column}", (name, column))


def _without_nulls(value: object) -> object:
    """Nested values without the keys that a table has to fill with null."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(held) for key, held in value.items() if held is not None}
    if isinstance(value, list):
        return [_without_nulls(held) for held in value]
    return value
