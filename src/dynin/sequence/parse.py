"""The inverse of layout: a finished row back to the contents it was made to carry.

Enters: a `Sequence` and its ids after decoding. Leaves: text ids and codes per target, cut at the end token. Does not
know what the codes mean.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from dynin.sequence.layout import Sequence, Span
from dynin.sequence.task import Task
from dynin.types import Modality
from dynin.vocabulary import Vocabulary


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """One target of a decoded row."""

    values: Int[Tensor, " N"]
    """Text ids, or codes from 0, before the end token."""
    is_ended: bool
    """Whether an end token was found."""


def content(vocabulary: Vocabulary, sequence: Sequence, ids: Int[Tensor, " S"], span: Span) -> Made:
    """What one span carries: ids up to its first end token, as text ids or codes.

    Raises:
        VocabularyError: If an id before the end lies outside the modality's range (a mask id left over, say).
    """
    inside = ids[span.slice()]
    stop = num_before_end(vocabulary, sequence.task, span.modality, inside)
    values = vocabulary.ids_to_codes(span.modality, inside[:stop])
    return Made(values=values, is_ended=stop < len(inside) or not sequence.task.ends.get(span.modality))


def num_before_end(vocabulary: Vocabulary, task: Task, modality: Modality, ids: Int[Tensor, " N"]) -> int:
    """How many ids of a target come before its first end token; all of them where there is none."""
    ends = [vocabulary[name] for name in task.ends.get(modality, ())]
    at = torch.isin(ids, torch.tensor(ends, dtype=ids.dtype, device=ids.device)).nonzero()
    return int(at[0]) if len(at) else len(ids)


def parse(vocabulary: Vocabulary, sequence: Sequence, ids: Int[Tensor, " S"]) -> Mapping[Modality, Made]:
    """Every target of a decoded row."""
    return {span.modality: content(vocabulary, sequence, ids, span) for span in sequence.spans if span.is_target}
