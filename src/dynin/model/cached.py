"""Ids to logits at some places, with the keys and values of the other places remembered from earlier passes.

Enters: a `Transformer`; pass by pass, sequences with hidden places, named by keys, and a rule of each that says when it
is computed in full. Leaves: logits. Does not know tasks, nor why a place changed: it compares ids with those it saw.

    row      [ prompt ............ | committed | hidden hidden | suffix ]
    ids        as they were           one new                     as they were
    computed                            x         x      x
    attended   x x x x x x x x x x    x x x x     x      x        x x x x      from memory, but for those computed

Columns are known by their number, so where a canvas grows, what moved to the right differs from what was seen there and
is computed; where live rows shrink, the others keep their memory by their keys.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dynin.errors import RequestError
from dynin.model.config import ModelConfig
from dynin.model.output import OutputRows
from dynin.model.transformer import Mix, Transformer
from dynin.nn.attention import attention, usable
from dynin.nn.rope import rotary_table, table_at

_COLUMNS = 64  # memory is taken for multiples of so many columns, so that growing canvases seldom move it
_UNSEEN = -1


@runtime_checkable
class RefreshRule(Protocol):
    """Says when a row is computed in full; `decoding.refresh.Refresh` is one."""

    @property
    def vicinity(self) -> int:
        """Columns recomputed on either side of each that has to be."""
        ...

    @property
    def measures_drift(self) -> bool:
        """Whether `is_due` looks at the drift."""
        ...

    def is_due(self, *, begins_block: bool, num_passes: int, drift: float) -> bool:
        """Whether the coming pass recomputes everything."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class CachedRow:
    """What a pass has to know of one of its rows."""

    key: Hashable
    """The same in every pass over the same sequence; the two branches of guidance are two sequences."""
    refresh: RefreshRule
    begins_block: bool = False
    """Whether this is the first pass of a block."""


def cache_bytes(config: ModelConfig, num_rows: int, length: int, dtype: torch.dtype) -> int:
    """Memory of the keys and values of so many sequences: two vectors for each layer and column.

    | network   | dtype    | a column |
    | --------- | -------- | -------- |
    | embedded  | float32  | 16 KiB   |
    | 8B        | bfloat16 | 512 KiB  |
    """
    capacity = -(-length // _COLUMNS) * _COLUMNS
    each = 2 * config.num_layers * config.num_kv_heads * config.head_dim * dtype.itemsize
    return num_rows * capacity * each


@dataclass(slots=True, eq=False)
class _Memory:
    """What was computed: a row for each key, in the order of `names`."""

    names: list[Hashable] = field(default_factory=list)
    ids: Tensor | None = None
    """Rows by columns: the id of each column when it was computed; `_UNSEEN` before."""
    keys: list[Tensor] = field(default_factory=list)
    """A layer each: rows, columns, heads, width."""
    values: list[Tensor] = field(default_factory=list)
    num_passes: list[int] = field(default_factory=list)
    """Of each row since its last full pass; -1 before the first."""
    drift: list[float] = field(default_factory=list)

    def take(self, order: Sequence[int]) -> None:
        """Reorder the rows; a negative number is a row that has seen nothing."""
        if self.ids is None:
            return
        index = torch.tensor(order, device=self.ids.device)
        self.ids = self.ids[index.clamp_min(0)]
        self.ids[index < 0] = _UNSEEN
        self.keys = [part[index.clamp_min(0)] for part in self.keys]
        self.values = [part[index.clamp_min(0)] for part in self.values]
        self.num_passes = [self.num_passes[old] if old >= 0 else -1 for old in order]
        self.drift = [self.drift[old] if old >= 0 else 0.0 for old in order]

    def widen(self, length: int) -> None:
        """At least so many columns."""
        if self.ids is None or self.ids.shape[1] >= length:
            return
        extra = -(-length // _COLUMNS) * _COLUMNS - self.ids.shape[1]
        self.ids = torch.nn.functional.pad(self.ids, (0, extra), value=_UNSEEN)
        self.keys = [torch.nn.functional.pad(part, (0, 0, 0, 0, 0, extra)) for part in self.keys]
        self.values = [torch.nn.functional.pad(part, (0, 0, 0, 0, 0, extra)) for part in self.values]


class CachedDenoiser:
    """A denoiser that recomputes only what is asked for, what changed, and what its rules say.

    With a rule that refreshes at every pass it runs exactly the operations of the plain network, on the same shapes;
    where it packs, that holds for sequences without padding, and up to rounding for others. Keys and values are kept in
    the dtype of the parameters.
    """

    def __init__(self, model: Transformer, *, max_bytes: int | None = None, packs: bool = False) -> None:
        """Keep the network.

        Args:
            max_bytes: Largest memory for keys and values; None for no bound.
            packs: Compute no padding, in full passes neither. Rows of different length, such as the branches of
                guidance, then cost what is in them.
        """
        self._model = model
        self._output = OutputRows.of(model.output)
        self._max_bytes = max_bytes
        self._packs = packs
        self._memory = _Memory()
        self.num_columns = 0
        """Columns computed so far, over all passes."""
        self.last_columns: Int[Tensor, " B"] = torch.zeros(0, dtype=torch.int64)
        """Columns computed in each row by the last pass, on the CPU."""

    def __call__(
        self,
        ids: Int[Tensor, "B S"],
        attend: Bool[Tensor, "B S"] | None,
        rows: Int[Tensor, " K"],
        allowed: Int[Tensor, " A"] | None,
        cached: Sequence[CachedRow] | None = None,
    ) -> Float[Tensor, "K A"]:
        """Logits in float32 at flat positions, over the allowed ids.

        Args:
            rows: In any order.
            cached: One for each row; None remembers nothing and computes everything.

        Raises:
            RequestError: If the memory would grow beyond its bound.
        """
        if cached is None:
            self._note(torch.full((len(ids),), ids.shape[1]))
            return self._output.logits(self._model.hidden(ids, attend).flatten(0, 1)[rows], allowed).float()
        return self._output.logits(self.states(ids, attend, rows, cached), allowed).float()

    def states(
        self,
        ids: Int[Tensor, "B S"],
        attend: Bool[Tensor, "B S"] | None,
        rows: Int[Tensor, " K"],
        cached: Sequence[CachedRow],
    ) -> Float[Tensor, "K D"]:
        """The normalised states at flat positions, in their order, ready for the output table.

        Raises:
            RequestError: If the memory would grow beyond its bound.
        """
        self._open(ids, cached)
        is_due = [self._is_due(row, note) for row, note in enumerate(cached)]
        if not all(is_due) or (self._packs and attend is not None):
            return self._partial(ids, attend, rows, cached, is_due)
        hidden = self._full(ids, attend).flatten(0, 1)[rows]
        self._count(range(len(cached)), is_due)
        return hidden

    def is_due(self, note: CachedRow) -> bool:
        """Whether the next pass over a row computes all of it."""
        names = self._memory.names
        return note.key not in names or self._is_due(names.index(note.key), note)

    def _is_due(self, row: int, note: CachedRow) -> bool:
        """The same of a row of the memory."""
        num_passes, drift = self._memory.num_passes[row], self._memory.drift[row]
        if num_passes < 0:
            return True
        return note.refresh.is_due(begins_block=note.begins_block, num_passes=num_passes, drift=drift)

    def fits(self, num_rows: int, length: int) -> bool:
        """Whether keys and values of so many sequences, each of so many columns, stay within the bound."""
        if self._max_bytes is None:
            return True
        return cache_bytes(self._model.config, num_rows, length, self._model.embed.weight.dtype) <= self._max_bytes

    def forget(self, keys: Sequence[Hashable] | None = None) -> None:
        """Give the memory of some sequences back, or of all."""
        memory = self._memory
        gone = set(memory.names) if keys is None else set(keys)
        kept = [row for row, name in enumerate(memory.names) if name not in gone]
        if len(kept) == len(memory.names):
            return
        if not kept:
            self._memory = _Memory()
            return
        memory.take(kept)
        memory.names = [memory.names[row] for row in kept]

    @property
    def num_bytes(self) -> int:
        """Memory of keys and values now."""
        return sum(part.nbytes for part in (*self._memory.keys, *self._memory.values))

    # ---- memory ---------------------------------------------------------------------------------------------------

    def _open(self, ids: Int[Tensor, "B S"], cached: Sequence[CachedRow]) -> None:
        """Bring the rows of the pass to the front of the memory, in their order, wide enough."""
        memory, config = self._memory, self._model.config
        names = [note.key for note in cached]
        if len(names) != len(ids) or len(set(names)) != len(names):
            raise ValueError(f"{len(ids)} rows with keys {names}; expected a key of its own for each")
        dtype = self._model.embed.weight.dtype
        known = {name: row for row, name in enumerate(memory.names)}
        others = [name for name in memory.names if name not in set(names)]
        width = max(ids.shape[1], 0 if memory.ids is None else memory.ids.shape[1])
        needed = cache_bytes(config, len(names) + len(others), width, dtype)
        if self._max_bytes is not None and needed > self._max_bytes:
            raise RequestError(
                f"{len(names) + len(others)} sequences of {width} positions take {needed} bytes of keys and values, "
                f"but the cache may take {self._max_bytes}; allow more, decode fewer together, or decode without cache"
            )
        if memory.ids is None:
            shape = (len(names), -(-width // _COLUMNS) * _COLUMNS)
            memory.ids = torch.full(shape, _UNSEEN, dtype=ids.dtype, device=ids.device)
            for parts in (memory.keys, memory.values):
                parts += [
                    torch.zeros(*shape, config.num_kv_heads, config.head_dim, dtype=dtype, device=ids.device)
                    for _ in range(config.num_layers)
                ]
            memory.num_passes, memory.drift = [-1] * len(names), [0.0] * len(names)
            memory.names = names
            return
        memory.widen(ids.shape[1])
        if memory.names[: len(names)] != names:
            memory.take([known.get(name, -1) for name in (*names, *others)])
            memory.names = [*names, *others]

    def _count(self, which: Sequence[int], is_due: Sequence[bool]) -> None:
        """Note that a pass went over some rows."""
        for row in which:
            self._memory.num_passes[row] = 0 if is_due[row] else self._memory.num_passes[row] + 1
            if is_due[row]:
                self._memory.drift[row] = 0.0

    def _note(self, columns: Int[Tensor, " B"]) -> None:
        """Keep the columns that a pass computed in each row."""
        self.last_columns = columns
        self.num_columns += int(columns.sum())

    # ---- passes ---------------------------------------------------------------------------------------------------

    def _full(self, ids: Int[Tensor, "B S"], attend: Bool[Tensor, "B S"] | None) -> Float[Tensor, "B S D"]:
        """The plain pass, remembering keys and values on the way."""
        model, memory = self._model, self._memory
        batch, length = ids.shape
        seen = usable(attend)
        table = rotary_table(length, model.config.head_dim, model.config.rope_theta, ids.device)

        def remember(layer: int) -> Mix:
            def mix(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
                memory.keys[layer][:batch, :length] = key
                memory.values[layer][:batch, :length] = value
                return attention(query, key, value, seen)

            return mix

        x = model.embed(ids)
        for layer, block in enumerate(model.blocks):
            x = block(x, table, seen, remember(layer))
        assert memory.ids is not None
        memory.ids[:batch, :length] = ids
        memory.ids[:batch, length:] = _UNSEEN
        self._note(torch.full((batch,), length))
        return model.norm(x)

    def _partial(
        self,
        ids: Int[Tensor, "B S"],
        attend: Bool[Tensor, "B S"] | None,
        rows: Int[Tensor, " K"],
        cached: Sequence[CachedRow],
        is_due: Sequence[bool],
    ) -> Float[Tensor, "K D"]:
        """A pass over some columns of each row, packed behind one another; rows not asked for are left out."""
        model, memory = self._model, self._memory
        length = ids.shape[1]
        assert memory.ids is not None
        known = memory.ids[: len(ids), :length]
        is_active = self._active(ids, attend, rows, cached, is_due)
        index = is_active.flatten().nonzero().squeeze(1)  # N
        row, column = index // length, index % length
        chosen = ids.flatten()[index]
        is_moved = (known[row, column] != chosen) & (known[row, column] != _UNSEEN)
        weight = is_moved.to(torch.float32) if any(note.refresh.measures_drift for note in cached) else None
        moved = torch.zeros(len(ids), device=ids.device)
        seen = usable(attend)
        spread = _spread(row, is_active.sum(dim=1))
        table = table_at(column[None], model.config.head_dim, model.config.rope_theta)

        def recall(layer: int) -> Mix:
            keys, values = memory.keys[layer], memory.values[layer]

            def mix(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
                if weight is not None:
                    before, after = values[row, column].flatten(1).float(), value[0].flatten(1).float()
                    turned = (1.0 - torch.cosine_similarity(before, after, dim=1)) * weight
                    moved.index_add_(0, row, turned / len(memory.keys))
                keys[row, column], values[row, column] = key[0], value[0]
                return spread(query, keys[: len(ids), :length], values[: len(ids), :length], seen)

            return mix

        x = model.embed(chosen)[None]  # 1 N D
        for layer, block in enumerate(model.blocks):
            x = block(x, table, None, recall(layer))
        known[row, column] = chosen
        self._count(torch.unique(row).tolist(), is_due)
        if weight is not None:
            memory.drift[: len(ids)] = [
                0.0 if due else drift + new
                for due, drift, new in zip(is_due, memory.drift, moved.tolist(), strict=False)
            ]
        self._note(is_active.sum(dim=1).cpu())
        return model.norm(x)[0, torch.searchsorted(index, rows)]

    def _active(
        self,
        ids: Int[Tensor, "B S"],
        attend: Bool[Tensor, "B S"] | None,
        rows: Int[Tensor, " K"],
        cached: Sequence[CachedRow],
        is_due: Sequence[bool],
    ) -> Bool[Tensor, "B S"]:
        """The columns that the pass computes."""
        assert self._memory.ids is not None
        is_asked = torch.zeros(ids.numel(), dtype=torch.bool, device=ids.device).index_fill(0, rows, True)
        is_asked = is_asked.view_as(ids)
        is_active = is_asked | (ids != self._memory.ids[: len(ids), : ids.shape[1]])
        for reach in {note.refresh.vicinity for note in cached} - {0}:
            has_reach = torch.tensor([note.refresh.vicinity == reach for note in cached], device=ids.device)
            is_near = torch.nn.functional.max_pool1d(is_active[:, None].float(), 2 * reach + 1, 1, reach)[:, 0] > 0
            is_active = is_active | (is_near & has_reach[:, None])
        is_active |= torch.tensor(is_due, device=ids.device)[:, None]
        if attend is not None:
            is_active &= attend
        return (is_active & is_asked.any(dim=1, keepdim=True)) | is_asked


def _spread(
    row: Int[Tensor, " N"], counts: Int[Tensor, " B"]
) -> Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]:
    """Attention of packed queries to the keys of their rows: queries are laid out row by row, and packed again.

    Args:
        row: Of each query, ascending.
        counts: Queries of each row.
    """
    width = int(counts.max())
    slot = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]

    def attend_rows(
        query: Float[Tensor, "1 N H E"],
        keys: Float[Tensor, "B S G E"],
        values: Float[Tensor, "B S G E"],
        seen: Bool[Tensor, "B S"] | None,
    ) -> Float[Tensor, "1 N H E"]:
        if len(row) == len(keys) * width:
            return attention(query.view(len(keys), width, *query.shape[2:]), keys, values, seen).flatten(0, 1)[None]
        laid = query.new_zeros(len(keys), width, *query.shape[2:])
        laid[row, slot] = query[0]
        return attention(laid, keys, values, seen)[row, slot][None]

    return attend_rows
