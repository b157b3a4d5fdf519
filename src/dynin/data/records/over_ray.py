"""Rows to codes by several workers at once, with Ray Data; the cache is the one that a single process makes.

Enters: how to open a reader and how to make a model's side, in any process. Leaves: a token cache, in a folder that all
workers see. Does not know formats of sources or networks.
"""

import importlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dynin.data.records import part
from dynin.data.records.cache import PARTS, Manifest
from dynin.data.records.check import Names
from dynin.data.records.encoder import RowEncoder
from dynin.data.records.fault import Finding, Place
from dynin.data.records.pretokenize import PART_RECORDS, MediaEncoder, OnBad, PartMaker, begin, collect
from dynin.data.records.reader import IndexedReader
from dynin.data.records.schema import Row, parse
from dynin.errors import DataError

OpenReader = Callable[[], IndexedReader]
MakeEncoder = Callable[[], RowEncoder]


class KnownNames(Names):
    """Ids that were compared before, over all rows."""

    def __init__(self, repeated: Mapping[str, str]) -> None:
        """Messages about repeated ids, by place."""
        super().__init__()
        self._repeated = repeated

    def finding(self, row: Row, place: Place) -> Finding | None:
        """What was found about the row at a place."""
        message = self._repeated.get(str(place))
        return None if message is None else Finding(field="id", message=message)


@dataclass(kw_only=True, eq=False)
class Worker:
    """Makes parts in a process of its own."""

    open_reader: OpenReader
    make_encoder: MakeEncoder
    folder: str
    repeated: Mapping[str, str]
    _ready: tuple[IndexedReader, PartMaker] | None = field(default=None, init=False)

    def __call__(self, job: Mapping[str, int]) -> dict[str, Any]:
        """One part by the position of its first row; its name is all that comes back."""
        if self._ready is None:
            media = MediaEncoder(encoder=self.make_encoder())
            self._ready = self.open_reader(), PartMaker(media=media, folder=Path(self.folder, PARTS))
        reader, maker = self._ready
        start = int(job["start"])
        records = [reader.record(at) for at in range(start, min(start + PART_RECORDS, len(reader)))]
        return {"start": start, "file": maker.make(records, KnownNames(self.repeated)).file}


def pretokenize_over_ray(
    open_reader: OpenReader,
    make_encoder: MakeEncoder,
    folder: Path,
    *,
    workers: int,
    on_bad: OnBad = "stop",
    report: Callable[[int], None] = lambda done: None,
) -> Manifest:
    """Fill a folder with the codes of a source; see `pretokenize.pretokenize`.

    A cluster is joined where RAY_ADDRESS names one; otherwise workers are started on this machine and ended with it.

    Args:
        open_reader: Can be sent to another process.
        make_encoder: Can be sent to another process.
        workers: Processes that encode; each holds the tokenizers.

    Raises:
        DataError: As there, and if Ray is missing or the source is a stream.
    """
    ray = _package()
    reader, encoder = open_reader(), make_encoder()
    if not isinstance(reader, IndexedReader):
        raise DataError(f"{reader.name} is a stream, which cannot be shared out; leave --workers out, or do not stream")
    begin(reader.name, encoder, folder)
    names = Names()
    repeated: dict[str, str] = {}
    for record in reader.records():
        row = None if isinstance(record.value, Finding) else parse(record.value)[0]
        found = None if row is None else names.finding(row, record.place)
        if found is not None:
            repeated[str(record.place)] = found.message
    is_ours = not ray.is_initialized()
    if is_ours:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        local = {} if "RAY_ADDRESS" in os.environ else {"num_cpus": workers, "include_dashboard": False}
        ray.init(log_to_driver=False, configure_logging=False, **local)
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        starts = range(0, len(reader), PART_RECORDS)
        jobs = ray.data.from_items([{"start": start} for start in starts], override_num_blocks=max(1, len(starts)))
        arguments = {"open_reader": open_reader, "make_encoder": make_encoder, "repeated": repeated}
        made = jobs.map(
            Worker,
            fn_constructor_kwargs={**arguments, "folder": str(folder.resolve())},
            compute=ray.data.ActorPoolStrategy(size=workers),
        )
        files: dict[int, str] = {}
        for row in made.iter_rows():
            files[row["start"]] = row["file"]
            report(min(len(reader), len(files) * PART_RECORDS))
    finally:
        if is_ours:
            ray.shutdown()
    reports = (part.verified(folder / PARTS / files[start]) for start in sorted(files))
    return collect(reports, reader.name, encoder, folder, on_bad=on_bad, report=lambda done: None)


def _package() -> Any:
    try:
        importlib.import_module("ray.data")
        return importlib.import_module("ray")
    except ImportError as error:
        raise DataError(
            'the package ray is missing and several workers need it; run: pip install "dynin[ray]"'
        ) from error
