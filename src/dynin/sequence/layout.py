"""Assemble one row of ids from a task and its contents.

Enters: a `Task`, text and codes. Leaves: a `Sequence`: ids, which positions are targets, which are attended, and where
each content lies. Does not know networks, files or how codes are made; text is tokenized by a function it is handed.
"""

from collections.abc import Callable, Mapping
from collections.abc import Sequence as Row
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dynin.errors import RequestError
from dynin.sequence.task import Block, Content, Literal, Marker, Segment, Task
from dynin.types import Modality
from dynin.vocabulary import Vocabulary

Value = str | Tensor
"""Text, or the codes of a picture, video or sound as a 1-D integer tensor."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """Where a content lies: positions [start, stop) of the row."""

    modality: Modality
    is_target: bool
    start: int
    stop: int

    def slice(self) -> slice:
        """The positions as a slice."""
        return slice(self.start, self.stop)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sequence:
    """One row, ready for the network."""

    task: Task
    ids: Int[Tensor, " S"]
    is_target: Bool[Tensor, " S"]
    attend: Bool[Tensor, " S"]
    spans: tuple[Span, ...]
    name: str = ""
    """What the row was made from, for messages."""

    def span(self, modality: Modality, *, is_target: bool) -> Span:
        """The span of a given or made content."""
        for span in self.spans:
            if span.modality == modality and span.is_target == is_target:
                return span
        role = "target" if is_target else "condition"
        raise RequestError(f"task {self.task.name} has no {modality} {role}; it has {self.spans}")


@dataclass(kw_only=True, slots=True)
class _Row:
    """The growing row."""

    ids: list[int] = field(default_factory=list)
    is_target: list[bool] = field(default_factory=list)
    attend: list[bool] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)

    def add(self, ids: Row[int], *, is_target: bool = False, attend: bool = True) -> None:
        self.ids += ids
        self.is_target += [is_target] * len(ids)
        self.attend += [attend] * len(ids)

    def extend(self, other: "_Row") -> None:
        shift = len(self.ids)
        self.ids += other.ids
        self.is_target += other.is_target
        self.attend += other.attend
        self.spans += [replace(span, start=span.start + shift, stop=span.stop + shift) for span in other.spans]


@dataclass(frozen=True, kw_only=True, slots=True)
class Assembler:
    """Turns tasks and contents into rows of one vocabulary."""

    vocabulary: Vocabulary
    encode_text: Callable[[str], list[int]]

    def assemble(
        self,
        task: Task,
        given: Mapping[Modality, Value],
        made: Mapping[Modality, Value] | None = None,
        lengths: Mapping[str, int] | None = None,
    ) -> Sequence:
        """Lay out one row.

        Args:
            given: The conditions; every condition of the task must be there, and nothing else.
            made: The targets, for training and for canvases that are corrected. A target that is absent becomes mask
                ids. Text and speech are followed by their end token and filled with EOS up to their length; without
                an end token among the task's `ends` the codes must fill the length.
            lengths: Overrides of the task's lengths: target positions by modality, padded blocks by name. A target
                longer than its length is kept whole.

        Raises:
            RequestError: If a condition is missing or not part of the task.
        """
        _require_same(task, given)
        lengths = {**task.lengths, **(lengths or {})}
        row = self._lay(task.segments, task, given, made or {}, lengths)
        return Sequence(
            task=task,
            ids=torch.tensor(row.ids),
            is_target=torch.tensor(row.is_target),
            attend=torch.tensor(row.attend),
            spans=tuple(row.spans),
        )

    def unconditional(self, sequence: Sequence) -> Int[Tensor, " S"]:
        """The ids with the contents that guidance drops replaced by the padding id; same length, same positions.

        Parity: the published samplers rebuild the row with an empty prompt, which equals this where the prompt sits in
        a padded block (text to image); elsewhere each sampler drops something else, see docs/parity.md.
        """
        ids = sequence.ids.clone()
        for span in sequence.spans:
            if not span.is_target and span.modality in sequence.task.dropped:
                ids[span.slice()] = self.vocabulary["ipad"]
        return ids

    def _lay(
        self,
        segments: tuple[Segment, ...],
        task: Task,
        given: Mapping[Modality, Value],
        made: Mapping[Modality, Value],
        lengths: Mapping[str, int],
    ) -> _Row:
        row = _Row()
        for segment in segments:
            if isinstance(segment, Marker):
                row.add([self.vocabulary[segment.name]])
            elif isinstance(segment, Literal):
                row.add(self.encode_text(segment.text))
            elif isinstance(segment, Block):
                row.extend(self._pad(segment, self._lay(segment.parts, task, given, made, lengths), lengths))
            else:
                start = len(row.ids)
                if segment.is_target:
                    row.add(self._target(segment, task, made, lengths), is_target=True)
                else:
                    row.add(self._condition(segment, given[segment.modality]))
                span = Span(modality=segment.modality, is_target=segment.is_target, start=start, stop=len(row.ids))
                row.spans.append(span)
        return row

    def _condition(self, content: Content, value: Value) -> list[int]:
        if isinstance(value, str):
            return self.encode_text(content.template.format(value) if content.template != "{}" else value)
        return self.vocabulary.codes_to_ids(content.modality, value).tolist()

    def _target(
        self, content: Content, task: Task, made: Mapping[Modality, Value], lengths: Mapping[str, int]
    ) -> list[int]:
        length = lengths[content.modality]
        if content.modality not in made:
            return [self.vocabulary["mask"]] * length
        ids = self._condition(Content(modality=content.modality), made[content.modality])
        ends = task.ends.get(content.modality)
        if ends and content.modality in made:
            ids = [*ids, self.vocabulary[ends[0]]]
            ids += [self.vocabulary["eos"]] * (length - len(ids))
        return ids

    def _pad(self, block: Block, row: _Row, lengths: Mapping[str, int]) -> _Row:
        length = lengths[block.length] + block.offset
        if len(row.ids) > length:
            return self._cut(row, length)
        padding = _Row()
        padding.add([self.vocabulary[block.pad]] * (length - len(row.ids)), attend=block.is_pad_attended)
        first, second = (padding, row) if block.side == "left" else (row, padding)
        whole = _Row()
        whole.extend(first)
        whole.extend(second)
        return whole

    def _cut(self, row: _Row, length: int) -> _Row:
        """Keep the first `length - 1` positions and end with EOS, as the published builder does."""
        cut = _Row(ids=row.ids[: length - 1], is_target=row.is_target[: length - 1], attend=row.attend[: length - 1])
        cut.spans = [replace(span, stop=min(span.stop, length - 1)) for span in row.spans if span.start < length - 1]
        cut.add([self.vocabulary["eos"]])
        return cut


def _require_same(task: Task, given: Mapping[Modality, Value]) -> None:
    needed, received = set(task.conditions), set(given)
    if needed != received:
        raise RequestError(
            f"task {task.name} needs {' and '.join(sorted(needed))}, but was given "
            f"{' and '.join(sorted(received)) or 'nothing'}"
        )
