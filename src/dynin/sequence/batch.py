"""Stack rows of different lengths into batches.

Enters: `Sequence` rows. Leaves: padded tensors; padding is never attended and never a target. Does not know what tasks
are; it carries their names.
"""

from collections.abc import Sequence as Rows
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dynin.sequence.layout import Sequence
from dynin.types import Modality

MODALITIES = tuple(Modality)
GRAIN = 16
"""Packed batches have a multiple of so many columns, so that there are few different shapes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Rows of equal length."""

    ids: Int[Tensor, "B S"]
    is_target: Bool[Tensor, "B S"]
    attend: Bool[Tensor, "B S"]
    kind: Int[Tensor, "B S"]
    """Index into `MODALITIES` of the content at each position; -1 at markers and padding."""
    tasks: tuple[str, ...]
    """Names of the rows' tasks; rows beyond them are padding as a whole."""
    names: tuple[str, ...] = ()
    """What the rows were made from, for messages."""

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device."""
        tensors = {name: getattr(self, name).to(device) for name in ("ids", "is_target", "attend", "kind")}
        return replace(self, **tensors)


def stack(rows: Rows[Sequence], *, pad_id: int, num_columns: int = 0, num_rows: int = 0) -> Batch:
    """Right-pad rows to the longest and stack them, with padding up to at least so many columns and rows."""
    length = max(num_columns, *(len(row.ids) for row in rows))
    shape = (max(num_rows, len(rows)), length)
    ids = torch.full(shape, pad_id)
    is_target, attend = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
    kind = torch.full(shape, -1)
    for index, row in enumerate(rows):
        stop = len(row.ids)
        ids[index, :stop], is_target[index, :stop], attend[index, :stop] = row.ids, row.is_target, row.attend
        for span in row.spans:
            kind[index, span.slice()] = MODALITIES.index(span.modality)
    return Batch(
        ids=ids,
        is_target=is_target,
        attend=attend,
        kind=kind,
        tasks=tuple(row.task.name for row in rows),
        names=tuple(row.name for row in rows),
    )


def pack(rows: Rows[Sequence], *, pad_id: int, tokens_per_batch: int, is_ragged: bool = False) -> list[Batch]:
    """Rows of any lengths as batches of few shapes: rows of similar length together, longest first.

    Args:
        tokens_per_batch: Positions of a batch, padding included; a longer row is a batch of its own.
        is_ragged: Whether the last batch may have fewer rows than fit; otherwise it is filled up with empty ones.
    """
    left = sorted(rows, key=lambda row: -len(row.ids))
    batches = []
    while left:
        num_columns = -(-len(left[0].ids) // GRAIN) * GRAIN
        num_rows = max(1, tokens_per_batch // num_columns)
        chosen, left = left[:num_rows], left[num_rows:]
        size = {"num_columns": num_columns, "num_rows": 0 if is_ragged else num_rows}
        batches.append(stack(chosen, pad_id=pad_id, **size))
    return batches
