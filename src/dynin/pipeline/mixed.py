"""The network as a step engine wants it: queries of many decodings answered in one pass.

Enters: a `Transformer`. Leaves: a `decoding.query.BatchDenoiser`. Does not know tasks, policies or engines.

    queries without a memory   packed behind one another, no padding                    `model.packed`
    queries with one           their windows, and all of a row whose turn it is,        `model.cached`
                               packed behind one another too
    queries of one decoding    where passes are recorded and it began alone, those with  `pipeline.graphs`
                               a memory: a pass of their own, to its end
    output table               once for all queries over the same ids
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dynin.decoding.query import Answer, Query
from dynin.model.cached import CachedDenoiser, CachedRow
from dynin.model.output import OutputRows
from dynin.model.packed import states
from dynin.model.transformer import Transformer
from dynin.pipeline.denoiser import batch_of
from dynin.pipeline.graphs import StepGraphs

_MAX_LOGITS = 2**24  # numbers that are held at once, unless one query asks for more


class MixedDenoiser:
    """Answers queries of several decodings together; what each gets does not depend on the others, up to rounding."""

    def __init__(
        self, model: Transformer, *, max_cache_bytes: int | None = None, graphs: StepGraphs | None = None
    ) -> None:
        """Keep the network.

        Args:
            max_cache_bytes: Largest memory for keys and values, of all decodings together; None for no bound. Does not
                count that of `graphs`.
            graphs: Recorded passes over the same network, for one decoding at a time; None records nothing.
        """
        self._model = model
        self._graphs = graphs
        self._replayed: set[int] = set()
        """The rows of the decoding whose passes are replayed; it stays the same object while that goes on."""
        self._packed: set[int] = set()
        """Rows whose memory is the other one."""
        self._output = OutputRows.of(model.output)
        self._memory = CachedDenoiser(model, max_bytes=max_cache_bytes)

    @torch.no_grad()
    def answer_all(self, queries: Sequence[Query]) -> Iterator[tuple[int, Answer]]:
        """The answers, those over the same ids behind one another.

        Raises:
            RequestError: If keys and values would take more memory than allowed.
        """
        replayed = [at for at, query in enumerate(queries) if self._is_replayed(query, is_alone=len(queries) == 1)]
        for at in replayed:
            yield at, self._replay(queries[at])
        plain = [at for at, query in enumerate(queries) if query.refresh is None]
        remembering = [at for at, query in enumerate(queries) if query.refresh is not None and at not in replayed]
        found: dict[int, tuple[Tensor, int]] = {}
        if plain:
            batches = [batch_of(queries[at]) for at in plain]
            for at, batch, hidden in zip(plain, batches, states(self._model, batches), strict=True):
                found[at] = hidden, batch.ids.numel()
        if remembering:
            parts = self._remember([queries[at] for at in remembering])
            found |= dict(zip(remembering, parts, strict=True))
        for group in _groups(queries, sorted(found), self._model.config.num_rows):
            hidden = torch.cat([found[at][0] for at in group])
            logits = self._output.logits(hidden, queries[group[0]].allowed)
            for at, part in zip(group, logits.split([len(found[at][0]) for at in group]), strict=True):
                yield at, Answer(part, found[at][1])

    def cost(self, query: Query) -> int:
        """Columns that answering computes; with a memory, about: what changed outside the window is not looked for."""
        length = query.ids.shape[1]
        if query.refresh is None:
            asked = query.counts or (1,) * len(query.ids)
            return length * sum(1 for count in asked if count)
        few = min(length, query.window.columns.shape[1] + 2 * query.refresh.vicinity)
        if self._graphs is not None and not self._replayed.isdisjoint(query.keys):
            num_due = self._graphs.num_due(query, self._replayed)
            return num_due * length + (len(query.ids) - num_due) * few
        return sum(length if self._memory.is_due(note) else few for note in _notes(query))

    def fits(self, num_rows: int, length: int) -> bool:
        """Whether keys and values of so many rows, each of so many columns, stay within the bound."""
        return self._memory.fits(num_rows, length)

    def forget(self, keys: Sequence[int]) -> None:
        """Give the memory of rows back."""
        self._memory.forget([(key, branch) for key in keys for branch in range(2)])
        self._packed.difference_update(keys)
        if self._graphs is not None and not self._replayed.isdisjoint(keys):
            self._graphs.forget()
            self._replayed = set()

    def _is_replayed(self, query: Query, *, is_alone: bool) -> bool:
        """Whether a query is answered by a recording: one of the decoding whose passes are replayed, if it fits.

        That is one which was alone when it first remembered anything, so that whoever comes later changes nothing.
        """
        if self._graphs is None or query.refresh is None:
            return False
        if not self._replayed and is_alone and self._packed.isdisjoint(query.keys) and self._graphs.fits(query):
            self._replayed.update(query.keys)
        if self._replayed.isdisjoint(query.keys):
            self._packed.update(query.keys)
            return False
        self._replayed.update(query.keys)
        if self._graphs.fits(query):
            return True
        self._graphs.forget()
        return False

    def _replay(self, query: Query) -> Answer:
        """The answer of a recorded pass."""
        assert self._graphs is not None
        logits = self._graphs.answer(query, self._replayed)
        return Answer(logits, sum(self._graphs.last_columns))

    def _remember(self, queries: Sequence[Query]) -> list[tuple[Float[Tensor, "K D"], int]]:
        """The states that queries with a memory ask for, and the columns computed for each."""
        width = max(query.ids.shape[1] for query in queries)
        ids, attends, rows, notes = [], [], [], []
        offset = 0
        for query in queries:
            batch, length = query.ids.shape
            ids.append(F.pad(query.ids, (0, width - length)))
            attend = torch.ones_like(query.ids, dtype=torch.bool) if query.attend is None else query.attend
            attends.append(F.pad(attend, (0, width - length)))
            rows.append((query.rows // length + offset) * width + query.rows % length)
            notes += _notes(query)
            offset += batch
        is_whole = all(query.attend is None and query.ids.shape[1] == width for query in queries)
        attend_all = None if is_whole else torch.cat(attends)
        hidden = self._memory.states(torch.cat(ids), attend_all, torch.cat(rows), notes)
        columns = self._memory.last_columns.split([len(query.ids) for query in queries])
        parts = hidden.split([len(query.rows) for query in queries])
        return [(part, int(count.sum())) for part, count in zip(parts, columns, strict=True)]


def _notes(query: Query) -> list[CachedRow]:
    """What a memory has to know of the rows of a query."""
    assert query.refresh is not None
    return [
        CachedRow(key=(row, branch), refresh=query.refresh, begins_block=query.step == 0)
        for branch in range(2 if query.is_guided else 1)
        for row in query.keys
    ]


def _groups(queries: Sequence[Query], which: Sequence[int], num_ids: int) -> list[list[int]]:
    """Some of the queries, those over the same list of ids together, as many as logits may be held."""
    groups: list[list[int]] = []
    open_groups: dict[int | None, tuple[list[int], int]] = {}
    for at in which:
        query = queries[at]
        key = None if query.allowed is None else id(query.allowed)
        size = len(query.rows) * (num_ids if query.allowed is None else len(query.allowed))
        group, used = open_groups.get(key, ([], 0))
        if not group or used + size > _MAX_LOGITS:
            group, used = [], 0
            groups.append(group)
        group.append(at)
        open_groups[key] = group, used + size
    return groups
