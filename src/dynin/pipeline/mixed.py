"""The network as a step engine wants it: queries of many decodings answered in one pass.

Enters: a `Transformer`. Leaves: a `decoding.query.BatchDenoiser`. Does not know tasks, policies or engines.

    queries without a memory   packed behind one another, no padding                    `model.packed`
    queries with one           their windows, and all of a row whose turn it is,        `model.cached`
                               packed behind one another too
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

_MAX_LOGITS = 2**24  # numbers that are held at once, unless one query asks for more


class MixedDenoiser:
    """Answers queries of several decodings together; what each gets does not depend on the others, up to rounding."""

    def __init__(self, model: Transformer, *, max_cache_bytes: int | None = None) -> None:
        """Keep the network.

        Args:
            max_cache_bytes: Largest memory for keys and values, of all decodings together; None for no bound.
        """
        self._model = model
        self._output = OutputRows(model.output.weight)
        self._memory = CachedDenoiser(model, max_bytes=max_cache_bytes)

    @torch.no_grad()
    def answer_all(self, queries: Sequence[Query]) -> Iterator[tuple[int, Answer]]:
        """The answers, those over the same ids behind one another.

        Raises:
            RequestError: If keys and values would take more memory than allowed.
        """
        plain = [at for at, query in enumerate(queries) if query.refresh is None]
        remembering = [at for at, query in enumerate(queries) if query.refresh is not None]
        found: dict[int, tuple[Tensor, int]] = {}
        if plain:
            batches = [batch_of(queries[at]) for at in plain]
            for at, batch, hidden in zip(plain, batches, states(self._model, batches), strict=True):
                found[at] = hidden, batch.ids.numel()
        if remembering:
            parts = self._remember([queries[at] for at in remembering])
            found |= dict(zip(remembering, parts, strict=True))
        for group in _groups(queries, self._model.config.num_rows):
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
        return sum(length if self._memory.is_due(note) else few for note in _notes(query))

    def fits(self, num_rows: int, length: int) -> bool:
        """Whether keys and values of so many rows, each of so many columns, stay within the bound."""
        return self._memory.fits(num_rows, length)

    def forget(self, keys: Sequence[int]) -> None:
        """Give the memory of rows back."""
        self._memory.forget([(key, branch) for key in keys for branch in range(2)])

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


def _groups(queries: Sequence[Query], num_ids: int) -> list[list[int]]:
    """Queries over the same list of ids, as many together as logits may be held."""
    groups: list[list[int]] = []
    open_groups: dict[int | None, tuple[list[int], int]] = {}
    for at, query in enumerate(queries):
        key = None if query.allowed is None else id(query.allowed)
        size = len(query.rows) * (num_ids if query.allowed is None else len(query.allowed))
        group, used = open_groups.get(key, ([], 0))
        if not group or used + size > _MAX_LOGITS:
            group, used = [], 0
            groups.append(group)
        group.append(at)
        open_groups[key] = group, used + size
    return groups
