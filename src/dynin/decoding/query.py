"""What a decoding asks a network, and how anything that answers is driven.

Enters: nothing but what a decoding yields. Leaves: queries, the two protocols of what can answer them, and a decoding's
result. Does not know how a decoding goes on, nor networks.

    decoding --Query--> denoiser            A decoding is a Python generator: it yields queries and is sent logits. One
        ^                  |                is driven by `drive`, many at once by the engine.
        +------logits------+
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor

from dynin.decoding.canvas import Places
from dynin.decoding.refresh import Refresh

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Query:
    """Logits that are wanted at some places over some ids, and where in a decoding the question comes up."""

    ids: Int[Tensor, "B S"]
    """Live rows with the mask id at hidden places; where guided, the same rows without condition behind them."""
    attend: Bool[Tensor, "B S"] | None
    """False at padding; None when there is none."""
    rows: Int[Tensor, " K"]
    """Flat positions b * S + s at which logits are wanted; where guided, first all with, then all without condition."""
    allowed: Int[Tensor, " A"] | None
    """Ids over which they are wanted, in this order; None for every row of the vocabulary. The same object throughout a
    segment."""
    counts: tuple[int, ...] | None
    """How many of `rows` lie in each row of `ids`, where those of a row are neighbours and ascend; known without asking
    the device. None where they do not, as where visible places are verified."""
    keys: tuple[int, ...]
    """The rows of the canvas that the live rows are, by their index there, which stays when others finish."""
    is_guided: bool
    """Whether `ids` holds each live row twice, in this order: all with condition, then all without."""
    segment: str
    """Name of the segment that is decoded."""
    segment_index: int
    """Segments before it."""
    block: int
    """Blocks of the segment before the one that is decoded."""
    step: int
    """Steps of the block before this one."""
    span: tuple[int, int]
    """Ordinals [start, stop) of the segment's places that the block may fill."""
    window: Places
    """The columns of those places in the live rows, R rows of them; guided rows have theirs at the same columns."""
    refresh: Refresh | None = None
    """When everything is computed anew, by a denoiser that remembers keys and values; None for always."""


Decoding = Generator[Query, Float[Tensor, "K A"], Result]
"""Yields queries, is sent logits, returns what was decoded."""

DenoiserCall = Callable[[Tensor, Tensor | None, Tensor, Tensor | None], Tensor]


@runtime_checkable
class Denoiser(Protocol):
    """The least that the decoder needs of a network."""

    def __call__(
        self,
        ids: Int[Tensor, "B S"],
        attend: Bool[Tensor, "B S"] | None,
        rows: Int[Tensor, " K"],
        allowed: Int[Tensor, " A"] | None,
    ) -> Float[Tensor, "K A"]:
        """Logits at some places over some ids.

        Args:
            ids: Sequences with mask ids at hidden places.
            attend: False at padding; None when there is none.
            rows: Flat positions b * S + s at which logits are wanted.
            allowed: Ids over which they are wanted, in this order; None for every row of the vocabulary.
        """
        ...


@runtime_checkable
class QueryDenoiser(Protocol):
    """A denoiser that wants to know where in a decoding it is asked, as one that keeps caches does."""

    def answer(self, query: Query) -> Float[Tensor, "K A"]:
        """Logits at `query.rows` over `query.allowed`."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """Logits, and what they cost."""

    logits: Float[Tensor, "K A"]
    num_columns: int
    """Columns computed for them, both branches of guidance counted."""


@runtime_checkable
class BatchDenoiser(Protocol):
    """A denoiser that answers queries of several decodings in one pass."""

    def answer_all(self, queries: Sequence[Query]) -> Iterator[tuple[int, Answer]]:
        """The answers in any order, each with its query's index; one at a time, so that few logits are held at once.

        Keys differ between the decodings.
        """
        ...

    def cost(self, query: Query) -> int:
        """Columns that answering will compute."""
        ...

    def fits(self, num_rows: int, length: int) -> bool:
        """Whether so many rows, each of so many columns, can be remembered together."""
        ...

    def forget(self, keys: Sequence[int]) -> None:
        """Rows that will not be asked about again, or must be looked at anew."""
        ...


class OneByOne:
    """Any denoiser as one of several decodings, a pass for each query."""

    def __init__(self, denoiser: Denoiser | QueryDenoiser) -> None:
        """Keep the denoiser."""
        self._answer = answering(denoiser)

    def answer_all(self, queries: Sequence[Query]) -> Iterator[tuple[int, Answer]]:
        """One after another."""
        for at, query in enumerate(queries):
            yield at, Answer(self._answer(query), self.cost(query))

    def cost(self, query: Query) -> int:
        """All columns of the rows of which something is asked."""
        asked = query.counts or (1,) * len(query.ids)
        return query.ids.shape[1] * sum(1 for count in asked if count)

    def fits(self, num_rows: int, length: int) -> bool:
        """Always: nothing is remembered here."""
        return True

    def forget(self, keys: Sequence[int]) -> None:
        """Nothing is remembered."""


def answering(denoiser: Denoiser | QueryDenoiser) -> Callable[[Query], Tensor]:
    """Either kind of denoiser as a function of a query."""
    if isinstance(denoiser, QueryDenoiser):
        return denoiser.answer
    call: DenoiserCall = denoiser
    return lambda query: call(query.ids, query.attend, query.rows, query.allowed)


def drive(decoding: Decoding[Result], denoiser: Denoiser | QueryDenoiser) -> Result:
    """Answer every query of a decoding until it returns."""
    answer = answering(denoiser)
    try:
        query = next(decoding)
        while True:
            query = decoding.send(answer(query))  # without a name, so that a pass does not find the last logits alive
    except StopIteration as finished:
        return finished.value
