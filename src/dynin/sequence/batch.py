"""Stack rows of different lengths into one batch.

Enters: `Sequence` rows. Leaves: padded tensors; padding is never attended and never a target. Does not know tasks.
"""

from collections.abc import Sequence as Rows
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dynin.sequence.layout import Sequence


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Rows of equal length."""

    ids: Int[Tensor, "B S"]
    is_target: Bool[Tensor, "B S"]
    attend: Bool[Tensor, "B S"]


def stack(rows: Rows[Sequence], *, pad_id: int) -> Batch:
    """Right-pad rows to the longest and stack them."""
    return Batch(
        ids=_pad([row.ids for row in rows], pad_id),
        is_target=_pad([row.is_target for row in rows], False),
        attend=_pad([row.attend for row in rows], False),
    )


def _pad(rows: list[Tensor], value: int | bool) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)
