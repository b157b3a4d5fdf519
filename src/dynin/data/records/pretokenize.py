"""Rows to codes, once: part by part, so that a killed run goes on where it was.

Enters: a reader, a model's side, a folder. Leaves: a token cache. Does not know formats of sources or networks.

A part is named by a hash of all that determines it: texts, the content of its media, tokenizers, sizes, places. So what
is there already is never made again, and whatever changed is.
"""

import hashlib
import json
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Literal

from jaxtyping import Int
from torch import Tensor

from dynin.data.example import Example
from dynin.data.records import part
from dynin.data.records.cache import MANIFEST, PARTS, Manifest
from dynin.data.records.check import BY_FLAG, Names, drafted, refusal
from dynin.data.records.draft import Draft
from dynin.data.records.encoder import RowEncoder
from dynin.data.records.fault import Finding, Place
from dynin.data.records.medium import Medium
from dynin.data.records.part import PartReport
from dynin.data.records.reader import Record, RecordReader
from dynin.data.records.schema import Part
from dynin.errors import DataError, MediaError
from dynin.types import Modality

PART_RECORDS = 512
"""Rows of the source in a part; a killed run loses one part at most."""
MOST_CODES = 4096
"""Media whose codes are kept for rows that name them again."""
MOST_DIGESTS = 200_000

OnBad = Literal["stop", "skip"]
"""What a faulty row does: it stops everything, or it is left out."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MediaEncoder:
    """Codes of media; those that come up again are not made again."""

    encoder: RowEncoder
    _digests: dict[object, str] = field(default_factory=dict, init=False)
    _codes: OrderedDict[object, Tensor | str] = field(default_factory=OrderedDict, init=False)

    def digest(self, medium: Medium) -> str:
        """A hash of the content; empty where it cannot be read."""
        if medium.key not in self._digests:
            if len(self._digests) >= MOST_DIGESTS:
                self._digests.clear()
            try:
                self._digests[medium.key] = hashlib.sha256(medium.read()).hexdigest()
            except MediaError:
                self._digests[medium.key] = ""
        return self._digests[medium.key]

    def codes(self, medium: Medium, modality: Modality, size_px: int) -> Int[Tensor, " N"] | str:
        """The codes of a medium, or why there are none."""
        key = (self.digest(medium) or medium.key, modality, size_px)
        if key not in self._codes:
            try:
                value = self.encoder.prepare(modality, medium.read(), medium.name, size_px)
                self._codes[key] = self.encoder.encode(modality, value, size_px)
            except MediaError as error:
                self._codes[key] = str(error)
            while len(self._codes) > MOST_CODES:
                self._codes.popitem(last=False)
        self._codes.move_to_end(key)
        return self._codes[key]

    def example(self, record: Record, found: Draft) -> tuple[Example, int] | list[Finding]:
        """A row with the codes of its media and its length, or all that is wrong with it."""
        findings: list[Finding] = []
        sides: list[dict[Modality, Tensor]] = []
        for parts, is_target in ((found.condition, False), (found.target, True)):
            codes: dict[Modality, Tensor] = {}
            for modality, one in parts.items():
                if modality == Modality.TEXT:
                    continue
                size_px = self.encoder.size_px(found.task, modality, is_target=is_target)
                made = self.codes(record.medium(one.value), modality, size_px)
                if isinstance(made, str):
                    findings.append(record.named(Finding(field=one.field, message=made)))
                else:
                    codes[modality] = made
            sides.append(codes)
        if findings:
            return findings
        example = self.encoder.example(found, sides[0], sides[1], record.place)
        length = self.encoder.measure(found, example)
        return [record.named(length)] if isinstance(length, Finding) else (example, length)

    def told(self, record: Record, found: Draft | list[Finding]) -> list[object]:
        """All that the codes and the faults of a row follow from; not how the source was named."""
        if isinstance(found, list):
            return [record.place.key, [[finding.field, finding.message] for finding in found]]
        told: list[object] = [record.place.key, found.task.name]
        for parts, is_target in ((found.condition, False), (found.target, True)):
            for modality, one in parts.items():
                told.append([str(modality), one.field, *self._content(record, found, one, is_target)])
        return told

    def _content(self, record: Record, found: Draft, one: Part, is_target: bool) -> list[object]:
        if one.modality == Modality.TEXT:
            return [one.value]
        size_px = self.encoder.size_px(found.task, one.modality, is_target=is_target)
        return [self.digest(record.medium(one.value)), size_px]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PartMaker:
    """Makes the parts of one cache."""

    media: MediaEncoder
    folder: Path
    """Where parts go."""

    def make(self, records: Sequence[Record], names: Names) -> PartReport:
        """One part, or what it holds where it is there already and whole."""
        encoder = self.media.encoder
        drafts = [drafted(record, encoder, names) for record in records]
        used = {one.modality for found in drafts if isinstance(found, Draft) for one in found.parts()}
        made_by = encoder.made_by(used)
        digest = hashlib.sha256(json.dumps([part.FORMAT, made_by, encoder.max_len]).encode())
        for record, found in zip(records, drafts, strict=True):
            digest.update(json.dumps(self.media.told(record, found), ensure_ascii=True).encode())
        name = f"part-{digest.hexdigest()[:32]}.safetensors"
        if (self.folder / name).is_file():
            try:
                return part.verified(self.folder / name)
            except DataError:
                pass  # made anew below
        return self._make(name, records, drafts, made_by)

    def _make(
        self, name: str, records: Sequence[Record], drafts: Sequence[Draft | list[Finding]], made_by: dict[str, str]
    ) -> PartReport:
        examples: list[Example] = []
        places: list[Place] = []
        faults = []
        lengths = [0]
        for record, found in zip(records, drafts, strict=True):
            made = self.media.example(record, found) if isinstance(found, Draft) else found
            if isinstance(made, list):
                faults += [finding.at(record.place) for finding in made]
                continue
            examples.append(made[0])
            places.append(record.place)
            lengths.append(made[1])
        report = PartReport(
            file=name,
            num_records=len(records),
            num_rows=len(examples),
            longest=max(lengths),
            tasks=dict(sorted(Counter(example.task for example in examples).items())),
            made_by=made_by,
            faults=tuple(faults),
        )
        part.write(self.folder, report, examples, places)
        return report


def pretokenize(
    reader: RecordReader,
    encoder: RowEncoder,
    folder: Path,
    *,
    on_bad: OnBad = "stop",
    limit: int | None = None,
    report: Callable[[int], None] = lambda done: None,
) -> Manifest:
    """Fill a folder with the codes of a source, or finish one that was begun.

    Args:
        on_bad: "stop" ends with the first faulty row, what was made before it stays; "skip" leaves faulty rows out.
        limit: Take so many rows of the source only; None takes all.
        report: Called after every part with the number of rows done.

    Raises:
        DataError: If a row is faulty and nothing is to be left out, if no row is good, if the folder holds a cache made
            by other tokenizers, or anything else.
    """
    names = Names()
    maker = PartMaker(media=MediaEncoder(encoder=encoder), folder=folder / PARTS)
    begin(reader.name, encoder, folder)
    reports = (maker.make(records, names) for records in grouped(islice(reader.records(), limit)))
    return collect(reports, reader.name, encoder, folder, on_bad=on_bad, report=report)


def begin(source: str, encoder: RowEncoder, folder: Path) -> None:
    """Make the folder, unless it holds something else or codes of other tokenizers."""
    if (folder / MANIFEST).exists():
        Manifest.read(folder).require_same(encoder, folder)
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} holds something else than a token cache; name a new folder")
    try:
        (folder / PARTS).mkdir(parents=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made ({error.strerror}); choose another folder") from error
    Manifest(source=source, made_by=encoder.made_by([]), max_len=encoder.max_len).write(folder)


def grouped(records: Iterable[Record]) -> Iterator[list[Record]]:
    """The rows of each part."""
    waiting = iter(records)
    while group := list(islice(waiting, PART_RECORDS)):
        yield group


def collect(
    reports: Iterable[PartReport],
    source: str,
    encoder: RowEncoder,
    folder: Path,
    *,
    on_bad: OnBad,
    report: Callable[[int], None],
) -> Manifest:
    """Parts in their order to a finished cache; see `pretokenize`."""
    manifest = Manifest(source=source, made_by=encoder.made_by([]), max_len=encoder.max_len)
    known = Manifest.read(folder).made_by
    tasks: Counter[str] = Counter()
    for made in reports:
        made_by = dict(sorted({**manifest.made_by, **made.made_by}.items()))
        if not made_by.items() <= dict(known).items():  # so that a run that other tokenizers take up again is refused
            known = {**known, **made_by}
            replace(manifest, made_by=known, parts=[], rows=[]).write(folder)
        if made.faults and on_bad == "stop":
            raise DataError(refusal(made.faults, BY_FLAG))
        tasks.update(made.tasks)
        manifest = replace(
            manifest,
            made_by=made_by,
            num_records=manifest.num_records + made.num_records,
            longest=max(manifest.longest, made.longest),
            tasks=dict(sorted(tasks.items())),
            parts=[*manifest.parts, made.file],
            rows=[*manifest.rows, made.num_rows],
            faults=[*manifest.faults, *map(str, made.faults)],
        )
        report(manifest.num_records)
    if not sum(manifest.rows):
        told = (
            f"none of its {manifest.num_records} rows is good: {manifest.faults[0]}"
            if manifest.faults
            else "holds no row"
        )
        raise DataError(f"{source}: {told}; give rows to train on")
    finished = replace(manifest, is_complete=True)
    finished.write(folder)
    for path in (folder / PARTS).iterdir():  # of an older content, and what a killed run left half-written
        if path.name not in finished.parts:
            path.unlink(missing_ok=True)
    return finished
