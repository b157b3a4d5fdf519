"""Several rows in one sequence of fixed length: less padding, the same numbers.

Enters: rows, or a padded batch. Leaves: where each of its places goes in packed sequences, and where its states are
found. Does not know ids, losses or networks: what is computed of packed places is handed in.

    batch      [ a a a a a . . . ]         packed      [ a a a a a b b b ]    documents  [ 0 0 0 0 0 1 1 1 ]
    (3 rows)   [ b b b . . . . . ]         (length 8)  [ c c c c . . . . ]               [ 2 2 2 2 . . . . ]
               [ c c c c . . . . ]                                            positions  [ 0 1 2 3 4 0 1 2 ]

A document sees itself alone (the mask is block-diagonal) and keeps the positions it had in its own row. So every place
gets what it gets in the padded batch, up to rounding, and so do losses and gradients. Places that nothing attends to
are left out altogether.
"""

from collections.abc import Callable
from collections.abc import Sequence as Rows
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from dynin.errors import RequestError
from dynin.sequence.batch import Batch, stack
from dynin.sequence.layout import Sequence

PADDING = -1
"""The document of what fills a packed sequence up."""

Hidden = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""Ids, attend, documents and positions of packed sequences to their states, as `Transformer.hidden` does."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Packing:
    """Where the attended places of a batch go."""

    rows: Int[Tensor, " N"]
    """The row of each attended place of the batch."""
    columns: Int[Tensor, " N"]
    packed_rows: Int[Tensor, " N"]
    """The packed sequence it goes to."""
    packed_columns: Int[Tensor, " N"]
    documents: Int[Tensor, "P L"]
    """The row that each packed place comes from; `PADDING` where there is none."""
    positions: Int[Tensor, "P L"]
    """Where it stood in that row."""

    @property
    def shape(self) -> tuple[int, int]:
        """Number and length of the packed sequences."""
        return self.documents.shape[0], self.documents.shape[1]

    @property
    def fill(self) -> float:
        """Share of packed places that are no padding."""
        return len(self.rows) / (self.shape[0] * self.shape[1])

    def to(self, device: torch.device) -> "Packing":
        """The same on another device."""
        return Packing(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})

    def sources(self, shape: tuple[int, int]) -> Int[Tensor, "B S"]:
        """For each place of a batch of this shape its packed place, both counted through rows; 0 where it has none."""
        sources = self.rows.new_zeros(shape)
        sources[self.rows, self.columns] = self.packed_rows * self.shape[1] + self.packed_columns
        return sources

    def run(self, network: Hidden, ids: Int[Tensor, "B S"], pad_id: int) -> Float[Tensor, "P L D"]:
        """The states of the packed places.

        Args:
            network: Takes ids, attend, documents and positions, such as `Transformer.hidden`.
        """
        return network(self.pack(ids, pad_id), self.documents != PADDING, self.documents, self.positions)

    def pack(self, values: Shaped[Tensor, "B S *rest"], filler: int | float) -> Shaped[Tensor, "P L *rest"]:
        """Values of a batch by their packed places."""
        packed = values.new_full((*self.shape, *values.shape[2:]), filler)
        packed[self.packed_rows, self.packed_columns] = values[self.rows, self.columns]
        return packed


def plan(attend: Bool[Tensor, "B S"], length: int) -> Packing:
    """Put the rows of a batch into sequences of a length: the longest first, each where it fits first.

    Args:
        attend: True at the places of each row that are real.
        length: Places of a packed sequence.

    Raises:
        RequestError: If a row is longer than that.
    """
    homes, starts, num_sequences = _fit(attend.sum(dim=1).tolist(), length)
    rows, columns = attend.nonzero(as_tuple=True)
    inside = attend.cumsum(dim=1)[rows, columns] - 1
    packed_rows = torch.tensor(homes, device=attend.device)[rows]
    packed_columns = torch.tensor(starts, device=attend.device)[rows] + inside
    documents = rows.new_full((max(1, num_sequences), length), PADDING)
    documents[packed_rows, packed_columns] = rows
    positions = torch.zeros_like(documents)
    positions[packed_rows, packed_columns] = columns
    return Packing(
        rows=rows,
        columns=columns,
        packed_rows=packed_rows,
        packed_columns=packed_columns,
        documents=documents,
        positions=positions,
    )


def _fit(counts: list[int], length: int) -> tuple[list[int], list[int], int]:
    """The packed sequence of each row and where it begins there, and how many sequences there are."""
    if max(counts, default=0) > length:
        raise RequestError(f"a row has {max(counts)} places, expected at most {length}, the packed length; raise it")
    rooms: list[int] = []
    homes, starts = [0] * len(counts), [0] * len(counts)
    for row in sorted(range(len(counts)), key=lambda row: -counts[row]):
        at = next((index for index, room in enumerate(rooms) if room >= counts[row]), len(rooms))
        if at == len(rooms):
            rooms.append(length)
        homes[row], starts[row] = at, length - rooms[at]
        rooms[at] -= counts[row]
    return homes, starts, len(rooms)


def batches(rows: Rows[Sequence], *, pad_id: int, length: int, tokens_per_batch: int) -> list[Batch]:
    """Rows of any lengths as padded batches, each of which packs into few sequences of a length.

    Args:
        tokens_per_batch: Packed places of a batch; at least one sequence is in each.

    Raises:
        RequestError: If a row is longer than a packed sequence.
    """
    homes, _, num_sequences = _fit([int(row.attend.sum()) for row in rows], length)
    at_once = max(1, tokens_per_batch // length)
    groups: list[list[Sequence]] = [[] for _ in range(-(-num_sequences // at_once))]
    for row, home in zip(rows, homes, strict=True):
        groups[home // at_once].append(row)
    return [stack(group, pad_id=pad_id) for group in groups]
