"""Stack rows of different lengths into one batch.

Enters: `Sequence` rows. Leaves: padded tensors; padding is never attended and never a target. Does not know tasks.
"""

from collections.abc import Sequence as Rows
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dynin.sequence.layout import Sequence
from dynin.types import Modality

MODALITIES = tuple(Modality)


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Rows of equal length."""

    ids: Int[Tensor, "B S"]
    is_target: Bool[Tensor, "B S"]
    attend: Bool[Tensor, "B S"]
    kind: Int[Tensor, "B S"]
    """Index into `MODALITIES` of the content at each position; -1 at markers and padding."""

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device."""
        return Batch(**{name: getattr(self, name).to(device) for name in ("ids", "is_target", "attend", "kind")})


def stack(rows: Rows[Sequence], *, pad_id: int) -> Batch:
    """Right-pad rows to the longest and stack them."""
    return Batch(
        ids=_pad([row.ids for row in rows], pad_id),
        is_target=_pad([row.is_target for row in rows], False),
        attend=_pad([row.attend for row in rows], False),
        kind=_pad([_kind(row) for row in rows], -1),
    )


def _kind(row: Sequence) -> Int[Tensor, " S"]:
    kind = torch.full_like(row.ids, -1)
    for span in row.spans:
        kind[span.slice()] = MODALITIES.index(span.modality)
    return kind


def _pad(rows: list[Tensor], value: int | bool) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)
