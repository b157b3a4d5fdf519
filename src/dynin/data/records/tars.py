"""Rows in tar files, as WebDataset lays them out: the files of one row share a name up to the first dot.

Enters: a path, or a pattern such as `part-*.tar` or `part-{000..009}.tar`. Leaves: `Record` values by sample. Does not
know what a row means.

    000017.json    the row; its paths name files of the tar, from the folder of this one
    000017.png     ...

Without a JSON file in the schema a template says what the files mean; a column is a suffix, such as "txt" or "jpg".

The tar is read through the standard library, by the places of its members: so any row can be read alone, which resuming
and shuffling need and a stream does not give. No member is ever written to a disk, unpickled or run.
"""

import glob
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from dynin.data.records import medium, schema
from dynin.data.records.fault import WHOLE, Finding, Place
from dynin.data.records.medium import Medium
from dynin.data.records.reader import Record
from dynin.data.records.template import Template
from dynin.errors import DataError, MediaError

ROW_SUFFIX = "json"
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


class Member(NamedTuple):
    """Where a file lies in its tar."""

    start: int
    size: int


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Shard:
    """One tar."""

    path: Path
    members: Mapping[str, Member]
    """By their names, without "./"."""

    def read(self, name: str) -> bytes:
        """The content of a member; MediaError if there is none, or the tar ends before it does."""
        member = self.members.get(name)
        if member is None:
            raise MediaError(f"{self.path}: has no member {name[:200]!r}; check the path")
        if member.size > medium.MAX_BYTES:
            raise MediaError(
                f"{name}: has more than {medium.MAX_BYTES >> 20} MiB, the most that is read; make it smaller"
            )
        with self.path.open("rb") as stream:
            stream.seek(member.start)
            data = stream.read(member.size)
        if len(data) < member.size or not data:
            told = "is empty" if not member.size else "ends beyond the end of the tar"
            raise MediaError(f"{name}: {told}; pack or download it again")
        return data


class Sample(NamedTuple):
    """One row's files."""

    shard: Shard
    key: str
    """The name that they share."""
    names: Mapping[str, str]
    """Members by suffix, which is all behind the first dot."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Tars:
    """A `reader.IndexedReader`: samples of the tars in the order of their names, each in its own order."""

    name: str
    samples: tuple[Sample, ...]
    template: Template | None = None

    @classmethod
    def of(cls, pattern: str, template: Template | None = None) -> "Tars":
        """Find the samples of every tar that a pattern names.

        Raises:
            DataError: If there is no such tar, or one is damaged or cut short.
        """
        paths = [path for plain in _expand(pattern) for path in sorted(glob.glob(plain))]
        missing = [plain for plain in _expand(pattern) if not glob.glob(plain)]
        if missing:
            raise DataError(f"{missing[0]}: no such tar; check the path or the pattern")
        return cls(
            name=pattern,
            samples=tuple(sample for path in paths for sample in _samples(Path(path))),
            template=template,
        )

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.samples)

    def records(self, start: int = 0) -> Iterator[Record]:
        """The samples from a position on."""
        return (self.record(position) for position in range(start, len(self)))

    def record(self, position: int) -> Record:
        """The sample at a position."""
        shard, key, names = self.samples[position]
        columns: Mapping[str, str] = {}
        value: object
        try:
            if self.template is not None:
                value, columns = self.template.fill(partial(_column, self.samples[position]))
            elif ROW_SUFFIX in names:
                value = schema.from_json(shard.read(names[ROW_SUFFIX]))
            else:
                found = ", ".join(sorted(names)) or "nothing"
                value = Finding(
                    field=WHOLE, message=f"has {found}, but no row ({key}.json); add it, or give a template"
                )
        except MediaError as error:
            value = Finding(field=WHOLE, message=str(error))
        place = Place(source=str(shard.path), unit="sample", key=key)
        return Record(place=place, value=value, relative=partial(_relative, shard, key), columns=columns)


def _relative(shard: Shard, key: str, path: str) -> Medium:
    """A member of the tar, its path counted from the folder of the sample."""
    name = (PurePosixPath(key).parent / path).as_posix()
    return Medium(name=f"{shard.path}:{name}", key=(str(shard.path), name), read=partial(shard.read, name))


def _column(sample: Sample, name: str, is_text: bool) -> object:
    """The text of a member by its suffix, or its path."""
    member = sample.names[name]
    return sample.shard.read(member).decode("utf-8") if is_text else PurePosixPath(member).name


def _samples(path: Path) -> Iterator[Sample]:
    """The samples of a tar in the order in which they begin."""
    members: dict[str, Member] = {}
    size = path.stat().st_size
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                name = PurePosixPath(member.name).as_posix()
                if member.isfile() and name in members:
                    raise DataError(f"{path}: has the member {name[:200]!r} twice; pack it again")
                if member.isfile():
                    members[name] = Member(start=member.offset_data, size=member.size)
                if member.offset_data + member.size > size:
                    raise DataError(f"{path}: ends within the member {name[:200]!r}; pack or download it again")
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: damaged, expected a tar without compression; pack or download it again") from error
    shard = Shard(path=path, members=members)
    groups: dict[str, dict[str, str]] = {}
    for name in members:
        place = PurePosixPath(name)
        stem, dot, suffix = place.name.partition(".")
        if dot and stem:
            groups.setdefault((place.parent / stem).as_posix(), {})[suffix.lower()] = name
    for key, names in groups.items():
        if set(names) != {""}:
            yield Sample(shard=shard, key=key, names=names)


def _expand(pattern: str) -> list[str]:
    """The patterns that `{000..009}` stands for."""
    found = _RANGE.search(pattern)
    if found is None:
        return [pattern]
    first, last = found.groups()
    if int(last) < int(first) or int(last) - int(first) > 1_000_000:
        raise DataError(f"{pattern}: the range {found.group()} names no tars; write {{000..009}}")
    numbers = (str(number).zfill(len(first)) for number in range(int(first), int(last) + 1))
    return [
        plain for number in numbers for plain in _expand(pattern[: found.start()] + number + pattern[found.end() :])
    ]
