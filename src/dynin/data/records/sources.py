"""Where examples for training come from: a token cache, files that are encoded on the way, a stream.

Enters: what a user names, and a model's side. Leaves: examples by draw; equal draws give equal examples. Does not know
steps, weights or rows of ids.

    a cache            every row in it, each once in an epoch
    a file or table    checked as a whole first; the good rows, each once in an epoch
    a stream           blocks of rows as they come, shuffled within each block; a faulty row leaves its draw empty
"""

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Protocol, runtime_checkable

from dynin.config import AT_LEAST_ZERO, require_ranges
from dynin.data.example import Example
from dynin.data.records import order
from dynin.data.records.cache import TokenCache, is_cache
from dynin.data.records.check import BY_SETTING, Names, Report, check, drafted
from dynin.data.records.draft import Draft
from dynin.data.records.encoder import RowEncoder
from dynin.data.records.fault import Finding
from dynin.data.records.pretokenize import MediaEncoder, OnBad
from dynin.data.records.reader import IndexedReader, Record, RecordReader, open_reader
from dynin.data.records.template import Template
from dynin.errors import ConfigError, DataError

BLOCK_RECORDS = 1024
"""Rows of a stream that are shuffled together."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceConfig:
    """One source of a run: a table `[data.NAME]` of its TOML file."""

    path: str
    """A token cache, or anything that `dynin data check` takes."""
    weight: float = 1.0
    """How often it is drawn from; weights need not sum to one."""
    on_bad: str = "stop"
    """A faulty row stops the run before its first step ("stop"), or is left out ("skip"); a cache has none."""
    template: str = ""
    """A JSON file that says how columns become rows, for sources that are not in the schema."""

    def __post_init__(self) -> None:
        """ConfigError for an unknown `on_bad`, or a weight that nothing can be drawn by."""
        require_ranges(self, {"weight": AT_LEAST_ZERO}, "data.NAME.")
        if self.on_bad not in ("stop", "skip"):
            raise ConfigError(f"setting 'on_bad' is {self.on_bad!r}; expected stop or skip")


@runtime_checkable
class IndexedExamples(Protocol):
    """Examples by position."""

    @property
    def name(self) -> str:
        """What messages call the source."""
        ...

    def __len__(self) -> int:
        """Number of examples."""
        ...

    def example(self, position: int) -> Example:
        """The example at a position."""
        ...

    def fingerprint(self) -> str:
        """Tells these examples from others."""
        ...


@runtime_checkable
class ExampleSource(Protocol):
    """Examples by draw, without end."""

    @property
    def name(self) -> str:
        """What messages call the source."""
        ...

    def take(self, start: int, stop: int) -> list[Example]:
        """The examples of the draws from `start` to before `stop`; fewer where faulty rows are left out."""
        ...

    def fingerprint(self) -> str:
        """Tells these draws from others."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Shuffled:
    """An `ExampleSource`: every example once in an epoch, each epoch in an order of its own."""

    examples: IndexedExamples
    seed: int

    def __post_init__(self) -> None:
        """DataError if there is no example."""
        if not len(self.examples):
            raise DataError(f"{self.name}: holds no row that can be trained on; run `dynin data check`")

    @property
    def name(self) -> str:
        """What messages call the source."""
        return self.examples.name

    def take(self, start: int, stop: int) -> list[Example]:
        """The examples of these draws."""
        count = len(self.examples)
        return [self.examples.example(order.position(draw, count, self.seed)) for draw in range(start, stop)]

    def fingerprint(self) -> str:
        """Of the examples and the seed."""
        return f"{self.examples.fingerprint()} {self.seed}"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FileExamples:
    """An `IndexedExamples`: the good rows of a source, encoded when they are drawn."""

    reader: IndexedReader
    media: MediaEncoder
    good: tuple[int, ...]

    @property
    def name(self) -> str:
        """What messages call the source."""
        return self.reader.name

    def __len__(self) -> int:
        """Number of good rows."""
        return len(self.good)

    def example(self, position: int) -> Example:
        """The good row at a position; DataError if its files changed since they were checked."""
        record = self.reader.record(self.good[position])
        made = _example(record, self.media)
        if isinstance(made, list):
            raise DataError(f"{made[0].at(record.place)} (it was good when the run began)")
        return made

    def fingerprint(self) -> str:
        """A hash of every good row and of the content of its files, which are read for it."""
        digest = hashlib.sha256()
        for position in self.good:
            record = self.reader.record(position)
            told = self.media.told(record, drafted(record, self.media.encoder, Names()))
            digest.update(json.dumps(told).encode())
        return digest.hexdigest()


class StreamExamples:
    """An `ExampleSource` on rows that come in one order only.

    What a draw gives follows from its number alone. A draw further on than the next block, as after a resume, reads
    everything before it once.
    """

    def __init__(self, reader: RecordReader, encoder: RowEncoder, *, on_bad: OnBad, seed: int) -> None:
        self.name = reader.name
        self._reader = reader
        self._media = MediaEncoder(encoder=encoder)
        self._on_bad = on_bad
        self._seed = seed
        self._length: int | None = None
        self._waiting: tuple[int, Iterator[Record]] = (-1, iter(()))
        self._block = lru_cache(maxsize=2)(self._read_block)

    def take(self, start: int, stop: int) -> list[Example]:
        """The examples of these draws.

        Raises:
            DataError: If a row is faulty and is not to be left out, or the stream is empty.
        """
        examples = []
        for draw in range(start, stop):
            record = self._record(draw)
            made = _example(record, self._media)
            if isinstance(made, Example):
                examples.append(made)
            elif self._on_bad == "stop":
                raise DataError(f"{made[0].at(record.place)}; or leave faulty rows out with {BY_SETTING}")
            else:
                log.warning("left out: %s", made[0].at(record.place))
        return examples

    def fingerprint(self) -> str:
        """Of the stream's name alone: what it holds is not known before it is read."""
        return f"{self.name} {self._seed} {self._on_bad}"

    def _record(self, draw: int) -> Record:
        epoch, inside = (0, draw) if self._length is None else divmod(draw, self._length)
        number, at = divmod(inside, BLOCK_RECORDS)
        block = self._block(number)
        if at < len(block):
            return block[order.permutation(len(block), self._seed, epoch, number)[at]]
        assert self._length is None, f"{self.name} has fewer rows than before"
        self._length = number * BLOCK_RECORDS + len(block) if block else sum(1 for _ in self._reader.records())
        if not self._length:
            raise DataError(f"{self.name}: holds no row; give rows to train on")
        return self._record(draw)

    def _read_block(self, number: int) -> list[Record]:
        """The rows of a block; none beyond the end."""
        expected, rows = self._waiting
        if number != expected:
            rows = iter(self._reader.records(number * BLOCK_RECORDS))
        block = list(islice(rows, BLOCK_RECORDS))
        self._waiting = (number + 1, rows)
        return block


def open_source(config: SourceConfig, encoder: RowEncoder, *, seed: int) -> ExampleSource:
    """The examples that a run names.

    A file, tar or table is checked from its first row to its last before anything is trained.

    Raises:
        DataError: If there is no such source, it was made for another model, or a row is faulty and nothing is to be
            left out; the message names line and field.
    """
    path = Path(config.path)
    if is_cache(path):
        return Shuffled(examples=TokenCache.open(path, encoder), seed=seed)
    template = Template.read(Path(config.template)) if config.template else None
    reader = open_reader(config.path, template)
    on_bad: OnBad = "skip" if config.on_bad == "skip" else "stop"
    if not isinstance(reader, IndexedReader):
        return StreamExamples(reader, encoder, on_bad=on_bad, seed=seed)
    found = check(reader, encoder)
    if on_bad == "stop":
        found.require_good()
    elif found.faults:
        log.warning(_told(reader.name, found))
    return Shuffled(
        examples=FileExamples(reader=reader, media=MediaEncoder(encoder=encoder), good=found.good), seed=seed
    )


def _told(name: str, found: Report) -> str:
    count = found.num_rows - len(found.good)
    return f"{name}: {count} of {found.num_rows} rows left out, the first: {found.faults[0]}"


def _example(record: Record, media: MediaEncoder) -> Example | list[Finding]:
    """One row encoded, or what is wrong with it."""
    found = drafted(record, media.encoder, Names())
    if not isinstance(found, Draft):
        return found
    made = media.example(record, found)
    return made if isinstance(made, list) else made[0]
