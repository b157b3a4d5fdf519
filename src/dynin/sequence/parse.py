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
    ends = [vocabulary[name] for name in sequence.task.ends.get(span.modality, ())]
    is_end = torch.isin(inside, torch.tensor(ends, dtype=inside.dtype, device=inside.device))
    stop = int(is_end.int().argmax()) if bool(is_end.any()) else len(inside)
    values = vocabulary.ids_to_codes(span.modality, inside[:stop])
    return Made(values=values, is_ended=bool(is_end.any()) or not ends)


def parse(vocabulary: Vocabulary, sequence: Sequence, ids: Int[Tensor, " S"]) -> Mapping[Modality, Made]:
    """Every target of a decoded row."""
    return {span.modality: content(vocabulary, sequence, ids, span) for span in sequence.spans if span.is_target}
