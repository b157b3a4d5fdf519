"""Passes with remembered keys and values as operations of fixed shapes, recorded once and replayed on a GPU.

Enters: a `Transformer`; queries of decodings that remember. Leaves: their logits, as `model.cached` gives them up to
rounding. Does not know policies, nor why ids changed.

    bucket    rows, columns (rounded up, what lies beyond may not be attended), columns computed, places answered
    inputs    ids, which places are asked, which rows are due: written where the recorded operations look for them
    recorded  what changed -> columns -> embed -> blocks -> norm -> output table; free seats of a bucket compute a
              column that nobody may attend
    answer    the asked rows, copied out

A pass over one block of one sequence is a thousand small operations, and telling a GPU what to do takes longer than
doing it; a recording is told at once. Nothing is read from the device, so the next step is prepared meanwhile. Where a
device records nothing, the same operations run one by one.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import ref

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dynin.decoding.query import Query
from dynin.model.output import OutputRows
from dynin.model.transformer import Block, Transformer
from dynin.nn.attention import attention
from dynin.pipeline.seats import COLUMNS, UNSEEN, Seats, SeatStore

_SEATS = 16  # computed columns are rounded up to multiples of so many
_WARM_UPS = 2

Layer = Callable[[Block, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None], Tensor]


@dataclass(frozen=True, slots=True)
class Bucket:
    """Everything that a recording is fixed to."""

    num_rows: int
    num_columns: int
    """Columns of a row, a multiple of 64."""
    num_computed: int
    """Columns of a row that the pass computes at most."""
    num_answered: int
    """Places of a row that it answers at most."""
    is_limited: bool
    """Whether some columns may not be attended."""
    allowed: int
    """Identity of the list of ids; 0 for all ids."""


@dataclass(slots=True, eq=False)
class _Row:
    """What is remembered of a row beside its keys and values."""

    seat: int
    num_passes: int = -1
    """Since its last full pass; -1 before the first."""
    block: tuple[int, int] = (-1, -1)
    """Of which segment, which block was asked last."""
    width: int = 0
    """Places of that block."""


@dataclass(slots=True, eq=False)
class _Known:
    """The decoding that is in the seats now."""

    owner: object = None
    shape: tuple[int, int] = (0, 0)
    """Rows and columns of its seats."""
    length: int = 0
    rows: dict[Hashable, _Row] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Recording:
    """What to replay, and where its outcome lies."""

    replay: Callable[[], object]
    logits: Float[Tensor, "B Q A"]
    allowed: Tensor | None
    """Kept alive, since it is known by its identity."""


class StepGraphs:
    """Buckets of recorded passes over one network; made once, used by one decoding after another.

    One decoding is in the seats at a time: another one that asks takes them over, and the first, if it goes on, is
    computed in full again.

    Source:
        CUDA graphs; SGLang, vLLM and dInfer (arXiv:2510.08666) decode with them.
    """

    def __init__(
        self,
        model: Transformer,
        *,
        max_places: int = 256,
        max_bytes: int | None = None,
        compiles: bool = False,
        records: bool | None = None,
    ) -> None:
        """Keep the network.

        Args:
            max_places: Largest number of places of a block, over all rows and both branches of guidance, for which this
                is used; beyond, arithmetic takes longer than launching it.
            max_bytes: Largest memory for keys and values of all shapes together; shapes that were used longest ago are
                given up with their recordings, and what takes more than half of it is not answered here. None for no
                bound.
            compiles: Whether a layer goes through `torch.compile`, which joins small operations and rounds less.
            records: Whether passes are recorded; None where the device can.
        """
        self.model = model
        """The network whose passes these are."""
        self._max_places = max_places
        self._output = OutputRows.of(model.output)
        self._records = can_record(model) if records is None else records
        self._layer: Layer = torch.compile(_layer, dynamic=False) if compiles else _layer
        self._seats = SeatStore(model, max_bytes)
        self._recordings: dict[Bucket, _Recording] = {}
        self._lists: list[Tensor] = []
        self._as_first: dict[int, tuple[ref[Tensor], Tensor]] = {}
        self._known = _Known()
        self._pool: Any = None
        self.last_columns: tuple[int, ...] = ()
        """Columns computed in each row of the last query, free seats counted."""

    @property
    def buckets(self) -> tuple[Bucket, ...]:
        """Those that were used so far."""
        return tuple(self._recordings)

    def fits(self, query: Query) -> bool:
        """Whether a query can be answered here: remembered by a plain rule, counted, and small enough."""
        rule = query.refresh
        if rule is None or rule.measures_drift or rule.vicinity or query.counts is None:
            return False
        start, stop = query.span
        num_rows, length = query.ids.shape
        return num_rows * (stop - start) <= self._max_places and self._seats.fits((num_rows, _up(length, COLUMNS)))

    def forget(self) -> None:
        """Leave the seats, so that the next query is computed in full."""
        self._known = _Known()

    def answer(self, query: Query, owner: object) -> Float[Tensor, "K A"]:
        """Logits at `query.rows` over `query.allowed`, in the dtype of the network.

        Args:
            owner: The decoding that asks; the same object in all of its queries.
        """
        assert query.counts is not None
        names = _names(query)
        seats, changed_most = self._arrange(query, names, owner)
        known = self._known
        rows = [known.rows[name] for name in names]
        is_due = [count > 0 and self._is_due(query, row) for row, count in zip(rows, query.counts, strict=True)]
        num_columns = known.shape[1]
        num_computed = num_columns if any(is_due) else min(changed_most, num_columns)
        num_answered = min(_up(query.span[1] - query.span[0], _SEATS), num_columns)
        allowed = self._list(query.allowed)
        bucket = Bucket(
            *known.shape,
            num_computed=num_computed,
            num_answered=num_answered,
            is_limited=query.attend is not None or known.length < num_columns,
            allowed=0 if allowed is None else id(allowed),
        )
        at = [row.seat for row in rows]
        asked = self._write(seats, query, at, is_due)
        logits = self._replay(bucket, seats, allowed)
        for row, due, count in zip(rows, is_due, query.counts, strict=True):
            if count:
                row.num_passes = 0 if due else row.num_passes + 1
                row.block, row.width = (query.segment_index, query.block), query.span[1] - query.span[0]
        self.last_columns = tuple(num_computed if count else 0 for count in query.counts)
        rank = seats.is_asked.cumsum(dim=1).flatten()[asked] - 1
        return logits.flatten(0, 1)[asked // num_columns * num_answered + rank]

    def num_due(self, query: Query, owner: object) -> int:
        """How many rows of a query would be computed in full."""
        rows = self._known.rows if self._known.owner is owner else {}
        return sum(name not in rows or self._is_due(query, rows[name]) for name in _names(query))

    def _list(self, allowed: Int[Tensor, " A"] | None) -> Int[Tensor, " A"] | None:
        """A list of ids as the first tensor that held it, which recordings know; every tensor is looked at once."""
        if allowed is None:
            return None
        known = self._as_first.get(id(allowed))
        if known is not None and known[0]() is allowed:
            return known[1]
        first = next((other for other in self._lists if torch.equal(other, allowed)), None)
        if first is None:
            first = allowed
            self._lists.append(allowed)
        self._as_first = {key: pair for key, pair in self._as_first.items() if pair[0]() is not None}
        self._as_first[id(allowed)] = ref(allowed), first
        return first

    def _is_due(self, query: Query, row: _Row) -> bool:
        """Whether a row is computed in full."""
        if row.num_passes < 0:
            return True
        assert query.refresh is not None
        return query.refresh.is_due(begins_block=query.step == 0, num_passes=row.num_passes, drift=0.0)

    def _arrange(self, query: Query, names: Sequence[Hashable], owner: object) -> tuple[Seats, int]:
        """The seats of a query, every row in one; and how many columns of a row can have to be computed at most.

        Within a block nothing changes but its own places, from block to block those of two; otherwise, anything may.
        """
        known = self._known
        length = query.ids.shape[1]
        num_columns = _up(length, COLUMNS)
        if known.owner is not owner:
            known = self._known = _Known(owner=owner)
        missing = [name for name in names if name not in known.rows]
        if missing or known.shape[1] != num_columns:
            self._move(missing, num_columns, query.ids)
        where = (query.segment_index, query.block)
        width = query.span[1] - query.span[0]
        most = width if known.length == length else num_columns
        for name, count in zip(names, query.counts or (), strict=True):
            row = known.rows[name]
            if count and row.block != where:
                is_next = row.block == (where[0], where[1] - 1)
                most = max(most, width + row.width if is_next else num_columns)
        known.length = length
        return self._seats[known.shape], _up(most, _SEATS)

    def _move(self, missing: Sequence[Hashable], num_columns: int, like: Tensor) -> None:
        """Seats for more rows, or of other lengths, with what was remembered."""
        known = self._known
        old = self._seats.get(known.shape)
        shape = (len(known.rows) + len(missing), num_columns)
        gone = self._seats.take(shape, known.shape, like.device)
        self._recordings = {
            bucket: made
            for bucket, made in self._recordings.items()
            if (bucket.num_rows, bucket.num_columns) not in gone
        }
        new = self._seats[shape]
        kept, width = known.shape[0] if known.rows else 0, min(known.shape[1], num_columns)
        new.known.fill_(UNSEEN)
        if old is not None and kept:
            for target, source in zip(
                (new.known, *new.keys, *new.values), (old.known, *old.keys, *old.values), strict=True
            ):
                target[:kept, :width] = source[:kept, :width]
        new.ids.zero_()
        new.is_asked.zero_()
        new.is_real.fill_(True)
        for name in missing:
            known.rows[name] = _Row(seat=len(known.rows))
        known.shape = shape

    def _write(self, seats: Seats, query: Query, at: Sequence[int], is_due: Sequence[bool]) -> Int[Tensor, " K"]:
        """The inputs; the flat positions asked for, among the seats."""
        length, num_columns = query.ids.shape[1], seats.is_asked.shape[1]
        is_in_order = list(at) == list(range(len(seats.is_due)))
        seats.is_asked.zero_()
        if is_in_order:
            seats.ids[:, :length] = query.ids
            if len(set(is_due)) == 1:
                seats.is_due.fill_(is_due[0])
            else:
                seats.is_due.copy_(torch.tensor(is_due))
            asked = query.rows if length == num_columns else query.rows // length * num_columns + query.rows % length
        else:
            index = torch.tensor(at, device=query.ids.device)
            seats.ids[index, :length] = query.ids
            seats.is_due[index] = torch.tensor(is_due, device=index.device)
            asked = index[query.rows // length] * num_columns + query.rows % length
        seats.is_asked.view(-1).index_fill_(0, asked, True)
        if query.attend is not None:
            seats.is_real[at, :length] = query.attend | ~query.attend.any(dim=1, keepdim=True)  # `nn.attention.usable`
        elif length < num_columns:
            seats.is_real[:, :length].fill_(True)
        seats.is_real[:, length:].fill_(False)
        return asked

    def _replay(self, bucket: Bucket, seats: Seats, allowed: Tensor | None) -> Float[Tensor, "B Q A"]:
        """The outcome of a pass; it is overwritten by the next."""
        if not self._records:
            self._recordings.setdefault(bucket, _Recording(lambda: None, seats.ids.float()[:, :, None], allowed))
            return self._pass(bucket, seats, allowed)
        recording = self._recordings.get(bucket)
        if recording is None:
            recording = self._recordings[bucket] = self._record(bucket, seats, allowed)
        recording.replay()
        return recording.logits

    def _record(self, bucket: Bucket, seats: Seats, allowed: Tensor | None) -> _Recording:
        """Run a pass a few times on another stream, as recording asks for, and record it.

        A pass that is run twice gives the same, for all it computes is made of ids and of columns that it leaves alone.
        """
        current, other = torch.cuda.current_stream(), torch.cuda.Stream()
        other.wait_stream(current)
        with torch.cuda.stream(other):
            for _ in range(_WARM_UPS):
                self._pass(bucket, seats, allowed)
        current.wait_stream(other)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            logits = self._pass(bucket, seats, allowed)
        self._pool = graph.pool()
        return _Recording(graph.replay, logits, allowed)

    def _pass(self, bucket: Bucket, seats: Seats, allowed: Tensor | None) -> Float[Tensor, "B Q A"]:
        """The operations, of shapes that follow from the bucket alone."""
        model = self.model
        num_columns = bucket.num_columns
        is_active = seats.is_asked | (seats.ids != seats.known)[:, :num_columns] | seats.is_due[:, None]
        is_active &= seats.is_real & seats.is_asked.any(dim=1, keepdim=True)
        is_active |= seats.is_asked
        columns, rank = _pack(is_active, bucket.num_computed)
        chosen = seats.ids.gather(1, columns)
        row = torch.arange(bucket.num_rows, device=columns.device)[:, None]
        seen = seats.is_real if bucket.is_limited else None
        x = model.embed(chosen)
        table = seats.table[:, columns]
        for block, keys, values in zip(model.blocks, seats.keys, seats.values, strict=True):
            x = self._layer(block, x, table, keys, values, row, columns, seen)  # type: ignore[arg-type]
        seats.known.scatter_(1, columns, chosen)
        asked, _ = _pack(seats.is_asked, bucket.num_answered)
        found = rank.gather(1, asked.clamp_max(num_columns - 1)).clamp(0, bucket.num_computed - 1)
        x = x.gather(1, found[:, :, None].expand(-1, -1, x.shape[2]))
        return self._output.logits(model.norm(x).flatten(0, 1), allowed).unflatten(0, (bucket.num_rows, -1))


def _layer(
    block: Block,
    x: Float[Tensor, "B W D"],
    table: Float[Tensor, "2 B W half"],
    keys: Float[Tensor, "B C1 G E"],
    values: Float[Tensor, "B C1 G E"],
    row: Int[Tensor, "B 1"],
    columns: Int[Tensor, "B W"],
    seen: Bool[Tensor, "B C"] | None,
) -> Float[Tensor, "B W D"]:
    """One layer over some columns of each row; their keys and values take the places of those remembered."""

    def mix(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        keys.index_put_((row, columns), key)
        values.index_put_((row, columns), value)
        return attention(query, keys[:, :-1], values[:, :-1], seen)

    return block(x, table, None, mix)


def can_record(model: Transformer) -> bool:
    """Whether the device of a network records operations."""
    return model.embed.weight.is_cuda


def _names(query: Query) -> list[tuple[int, int]]:
    """What the rows of a query are known by: branch of guidance, row of the canvas."""
    return [(branch, row) for branch in range(2 if query.is_guided else 1) for row in query.keys]


def _pack(is_wanted: Bool[Tensor, "B C"], width: int) -> tuple[Int[Tensor, "B W"], Int[Tensor, "B C"]]:
    """The wanted columns of each row, ascending, the number of columns where there are fewer; and the rank of each."""
    num_rows, num_columns = is_wanted.shape
    rank = is_wanted.cumsum(dim=1) - 1
    seat = rank.masked_fill(~is_wanted, width).clamp_max(width)
    packed = torch.full((num_rows, width + 1), num_columns, dtype=torch.int64, device=is_wanted.device)
    column = torch.arange(num_columns, device=is_wanted.device).expand(num_rows, -1)
    return packed.scatter_(1, seat, column)[:, :width], rank


def _up(number: int, step: int) -> int:
    """The next multiple."""
    return -(-number // step) * step
