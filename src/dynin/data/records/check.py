"""Every fault of a source, with its line and field: the form of rows, their tasks, their media, their length.

Enters: a reader and a model's side. Leaves: a `Report`. Does not know networks or caches. Media are really decoded, a
file that many rows name once.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch

from dynin.data.records import schema
from dynin.data.records.draft import Draft, draft
from dynin.data.records.encoder import RowEncoder
from dynin.data.records.fault import Fault, Finding, Place
from dynin.data.records.reader import Record, RecordReader
from dynin.data.records.schema import Part
from dynin.errors import DataError, MediaError
from dynin.types import Modality

MOST_VERDICTS = 200_000
"""Media whose verdict is kept; beyond it files are decoded again when they come up again."""
BY_FLAG, BY_SETTING = "--on-bad skip", "--set data.NAME.on_bad=skip"
"""How faulty rows are left out: of `dynin data pretokenize`, of a training."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What was found in a source."""

    num_rows: int
    """Rows, faulty ones included."""
    faults: tuple[Fault, ...]
    tasks: Mapping[str, int]
    """Rows without a fault by task."""
    longest: int
    """Positions of the longest row without a fault."""
    good: tuple[int, ...]
    """Positions of the rows without a fault."""

    def require_good(self) -> None:
        """DataError that names the first fault, if there is one."""
        if self.faults:
            raise DataError(refusal(self.faults, BY_SETTING))


def refusal(faults: tuple[Fault, ...], cure: str) -> str:
    """What stops: the first fault, how many more there are, and how faulty rows are left out."""
    more = len(faults) - 1
    told = f" (and {more} more fault{'s' if more > 1 else ''}; `dynin data check` lists them)" if more else ""
    return f"{faults[0]}{told}; or leave faulty rows out with {cure}"


class Names:
    """The ids of a source, none of which may come twice."""

    def __init__(self) -> None:
        self._seen: dict[str, int | str] = {}

    def finding(self, row: schema.Row, place: Place) -> Finding | None:
        """What is wrong with a row's id, if it was seen before."""
        if row.id is None:
            return None
        if row.id in self._seen:
            message = f"{row.id!r} is the id of {place.unit} {self._seen[row.id]} too; give each row its own, or none"
            return Finding(field="id", message=message)
        self._seen[row.id] = place.key
        return None


def drafted(record: Record, encoder: RowEncoder, names: Names) -> Draft | list[Finding]:
    """What a record means, or what is wrong with its form; reads no media."""
    if isinstance(record.value, Finding):
        return [record.value]
    row, findings = schema.parse(record.value)
    if row is None:
        return [record.named(finding) for finding in findings]
    repeated = names.finding(row, record.place)
    found = draft(row, encoder.tasks)
    findings = [finding for finding in (repeated, found) if isinstance(finding, Finding)]
    return [record.named(finding) for finding in findings] or found  # type: ignore[return-value]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Checker:
    """Verdicts about rows; media that were seen before are not decoded again."""

    encoder: RowEncoder
    names: Names = field(default_factory=Names)
    _verdicts: dict[object, int | str] = field(default_factory=dict, init=False)
    """Number of codes, or what is wrong."""

    def verdict(self, record: Record) -> tuple[Draft, int] | list[Finding]:
        """A draft and the positions of its row, or all that is wrong with it."""
        found = drafted(record, self.encoder, self.names)
        if not isinstance(found, Draft):
            return found
        findings: list[Finding] = []
        given = self._stand_ins(record, found, found.condition, findings, is_target=False)
        made = self._stand_ins(record, found, found.target, findings, is_target=True)
        if findings:
            return findings
        length = self.encoder.measure(found, self.encoder.example(found, given, made))
        return [record.named(length)] if isinstance(length, Finding) else (found, length)

    def _stand_ins(
        self, record: Record, found: Draft, parts: Mapping[Modality, Part], findings: list[Finding], *, is_target: bool
    ) -> dict[Modality, torch.Tensor]:
        """As many zeros as each medium has codes."""
        codes: dict[Modality, torch.Tensor] = {}
        for modality, part in parts.items():
            if modality == Modality.TEXT:
                continue
            size_px = self.encoder.size_px(found.task, modality, is_target=is_target)
            verdict = self._medium(record, part, size_px)
            if isinstance(verdict, str):
                findings.append(record.named(Finding(field=part.field, message=verdict)))
            else:
                codes[modality] = torch.zeros(verdict, dtype=torch.long)
        return codes

    def _medium(self, record: Record, part: Part, size_px: int) -> int | str:
        """The number of codes of a medium, or why it cannot be used."""
        medium = record.medium(part.value)
        key = (medium.key, part.modality, size_px)
        if key not in self._verdicts:
            if len(self._verdicts) >= MOST_VERDICTS:
                self._verdicts.clear()
            try:
                value = self.encoder.prepare(part.modality, medium.read(), medium.name, size_px)
                self._verdicts[key] = self.encoder.num_codes(part.modality, value, size_px)
            except MediaError as error:
                self._verdicts[key] = str(error)
        return self._verdicts[key]


def check(reader: RecordReader, encoder: RowEncoder, report: Callable[[int], None] = lambda done: None) -> Report:
    """All faults of a source.

    Args:
        report: Called after every row with the number of rows done.
    """
    faults: list[Fault] = []
    tasks: Counter[str] = Counter()
    good: list[int] = []
    longest = num_rows = 0
    for position, record, verdict in verdicts(reader, encoder):
        num_rows = position + 1
        if isinstance(verdict, list):
            faults += [finding.at(record.place) for finding in verdict]
        else:
            found, length = verdict
            good.append(position)
            tasks[found.task.name] += 1
            longest = max(longest, length)
        report(num_rows)
    return Report(
        num_rows=num_rows, faults=tuple(faults), tasks=dict(sorted(tasks.items())), longest=longest, good=tuple(good)
    )


def verdicts(
    reader: RecordReader, encoder: RowEncoder
) -> Iterator[tuple[int, Record, tuple[Draft, int] | list[Finding]]]:
    """Every record with its position and what there is to say about it."""
    checker = Checker(encoder=encoder)
    for position, record in enumerate(reader.records()):
        yield position, record, checker.verdict(record)
