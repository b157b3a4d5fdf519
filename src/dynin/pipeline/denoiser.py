"""The network as the decoder wants it: ids to logits at some places over some ids, plainly or with a memory.

Enters: a `Transformer`. Leaves: a `decoding.query.Denoiser`, and a `QueryDenoiser`. Does not know tasks or policies.
"""

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor

from dynin.decoding.query import Query
from dynin.model.cached import CachedDenoiser, CachedRow, RefreshRule
from dynin.model.output import OutputRows
from dynin.model.packed import Batch, only_asked, states
from dynin.model.transformer import Transformer
from dynin.pipeline.graphs import StepGraphs


class TransformerDenoiser:
    """Runs the network over whole sequences: the output table, and most of the last layer, only where it matters."""

    def __init__(self, model: Transformer) -> None:
        """Keep the network."""
        self._model = model
        self._output = OutputRows.of(model.output)

    def __call__(
        self,
        ids: Int[Tensor, "B S"],
        attend: Bool[Tensor, "B S"] | None,
        rows: Int[Tensor, " K"],
        allowed: Int[Tensor, " A"] | None,
    ) -> Float[Tensor, "K A"]:
        """Logits in float32 at flat positions, over the allowed ids."""
        (hidden,) = states(self._model, [Batch(ids, attend, rows)])
        return self._output.logits(hidden, allowed).float()

    def answer(self, query: Query) -> Float[Tensor, "K A"]:
        """Logits at `query.rows` over `query.allowed`, in the dtype of the network."""
        (hidden,) = states(self._model, [batch_of(query)])
        return self._output.logits(hidden, query.allowed)


def batch_of(query: Query) -> Batch:
    """The sequences of a query of which something is asked."""
    return only_asked(Batch(query.ids, query.attend, query.rows, query.counts))


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

    def __init__(
        self, model: Transformer, *, max_cache_bytes: int | None = None, graphs: StepGraphs | None = None
    ) -> None:
        """Keep the network.

        Args:
            max_cache_bytes: Largest memory for keys and values; None for no bound. Does not count that of `graphs`.
            graphs: Recorded passes over the same network, for queries that fit them; None records nothing.
        """
        self._graphs = graphs
        self._plain = TransformerDenoiser(model)
        self._network = CachedDenoiser(model, max_bytes=max_cache_bytes, packs=True)
        self._efforts: dict[int, Effort] = {}

    def answer(self, query: Query) -> Float[Tensor, "K A"]:
        """Logits at `query.rows` over `query.allowed`, in the dtype of the network or in float32.

        Raises:
            RequestError: If keys and values would take more memory than allowed.
        """
        if query.refresh is None:
            logits = self._plain.answer(query)
            asked = query.counts or (1,) * len(query.ids)
            columns = [query.ids.shape[1] if count else 0 for count in asked]
        elif self._graphs is not None and self._graphs.fits(query):
            logits = self._graphs.answer(query, self)
            columns = list(self._graphs.last_columns)
        else:
            if self._graphs is not None:
                self._graphs.forget()
            logits = self._remembering(query, query.refresh)
            columns = self._network.last_columns.tolist()
        number = len(query.keys)
        for at, row in enumerate(query.keys):
            count = sum(columns[at::number])
            if count:
                before = self.effort(row)
                self._efforts[row] = Effort(before.num_passes + 1, before.num_columns + count)
        return logits

    def effort(self, row: int) -> Effort:
        """What a row of the canvas has cost so far."""
        return self._efforts.get(row, Effort(0, 0))

    def _remembering(self, query: Query, refresh: RefreshRule) -> Float[Tensor, "K A"]:
        """The answer with keys and values remembered."""
        cached = [
            CachedRow(key=(row, branch), refresh=refresh, begins_block=query.step == 0)
            for branch in range(2 if query.is_guided else 1)
            for row in query.keys
        ]
        return self._network(query.ids, query.attend, query.rows, query.allowed, cached)
