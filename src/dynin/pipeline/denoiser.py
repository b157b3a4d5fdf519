"""The network as the decoder wants it: ids to logits at some places over some ids, plainly or with a memory.

Enters: a `Transformer`. Leaves: a `decoding.query.Denoiser`, and a `QueryDenoiser`. Does not know tasks or policies.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dynin.decoding.query import Query
from dynin.model.cached import CachedDenoiser, CachedRow
from dynin.model.transformer import Transformer


class TransformerDenoiser:
    """Runs the network over whole sequences, and its output table only where it matters."""

    def __init__(self, model: Transformer) -> None:
        """Keep the network."""
        self._model = model

    def __call__(
        self,
        ids: Int[Tensor, "B S"],
        attend: Bool[Tensor, "B S"] | None,
        rows: Int[Tensor, " K"],
        allowed: Int[Tensor, " A"] | None,
    ) -> Float[Tensor, "K A"]:
        """Logits in float32 at flat positions, over the allowed ids."""
        hidden = self._model.hidden(ids, attend).flatten(0, 1)[rows]  # K D
        return self._model.head(hidden, allowed).float()


@dataclass(frozen=True, slots=True)
class Effort:
    """What one sequence has cost."""

    num_passes: int
    """Passes of the network in which something was asked of it."""
    num_columns: int
    """Columns computed in them, those of both branches of guidance counted."""


class PolicyDenoiser:
    """Runs the network as each query's policy says: over whole sequences, or remembering keys and values.

    Sequences of which nothing is asked, such as those that have ended while others go on, are left out of the pass.
    """

    def __init__(self, model: Transformer, *, max_cache_bytes: int | None = None) -> None:
        """Keep the network.

        Args:
            max_cache_bytes: Largest memory for keys and values; None for no bound.
        """
        self._network = CachedDenoiser(model, max_bytes=max_cache_bytes)
        self._efforts: dict[int, Effort] = {}

    def answer(self, query: Query) -> Float[Tensor, "K A"]:
        """Logits in float32 at `query.rows` over `query.allowed`.

        Raises:
            RequestError: If keys and values would take more memory than allowed.
        """
        logits = self._logits(query)
        counts = self._network.last_columns.view(2 if query.is_guided else 1, -1).sum(dim=0).tolist()
        for row, count in zip(query.keys, counts, strict=True):
            if count:
                before = self.effort(row)
                self._efforts[row] = Effort(before.num_passes + 1, before.num_columns + count)
        return logits

    def effort(self, row: int) -> Effort:
        """What a row of the canvas has cost so far."""
        return self._efforts.get(row, Effort(0, 0))

    def _logits(self, query: Query) -> Float[Tensor, "K A"]:
        """The answer; afterwards the network's counts are about every row of the query."""
        branches = 2 if query.is_guided else 1
        if query.refresh is not None:
            cached = [
                CachedRow(key=(row, branch), refresh=query.refresh, begins_block=query.step == 0)
                for branch in range(branches)
                for row in query.keys
            ]
            return self._network(query.ids, query.attend, query.rows, query.allowed, cached)
        length = query.ids.shape[1]
        row, column = query.rows // length, query.rows % length
        asked = torch.unique(row)
        if len(asked) == len(query.ids):
            return self._network(query.ids, query.attend, query.rows, query.allowed)
        attend = None if query.attend is None else query.attend[asked]
        rows = torch.searchsorted(asked, row) * length + column
        logits = self._network(query.ids[asked], attend, rows, query.allowed)
        everyone = torch.zeros(len(query.ids), dtype=torch.int64).index_copy(0, asked.cpu(), self._network.last_columns)
        self._network.last_columns = everyone
        return logits
