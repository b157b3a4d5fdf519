"""What the next steps need, made while the network is at work (prefetching): in a thread, or in processes of their own.

Enters: a source of rows and an objective. Leaves: step after step, the batches of this process with what is hidden in
them. Does not know networks or optimizers. What a step is made of follows from its number alone, so any number of
workers gives the same.
"""

from collections.abc import Callable, Iterator
from collections.abc import Sequence as Rows
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch.utils.data import DataLoader, Dataset

from dynin.ahead import ahead
from dynin.errors import DyninError
from dynin.sequence import packing
from dynin.sequence.batch import Batch, pack
from dynin.sequence.layout import Sequence
from dynin.training import parallel, processes
from dynin.training.config import TrainConfig
from dynin.training.objective import Hidden, Objective

Item = TypeVar("Item")
STEPS_AHEAD = 3
"""Steps that are made before they are needed, by the thread or by each worker."""


@runtime_checkable
class RowSource(Protocol):
    """Where training rows come from; equal steps give equal rows, so a run resumes without remembering any."""

    def rows(self, step: int) -> Rows[Sequence]:
        """The rows of one step, of any tasks and lengths."""
        ...

    def fingerprint(self) -> str:
        """What tells this data from other data; a run goes on with the same alone."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """What one process needs for one step."""

    hidden: list[Hidden]
    """Its batches; at least one, and as many as the other processes have where they have to keep pace."""
    num_tokens: int
    """Places of all processes' rows, padding left out."""


class Steps(Dataset[Step | DyninError]):
    """Every step of a run by its number. A fault of the data is a value, to be raised where it is met."""

    def __init__(self, source: RowSource, objective: Objective, config: TrainConfig) -> None:
        self.source, self.objective, self.config = source, objective, config
        self.rank, self.count = processes.rank(), processes.count()

    def __len__(self) -> int:
        """How many steps the run has."""
        return self.config.steps

    def __getitem__(self, step: int) -> Step | DyninError:
        """The rows of a step, batched, hidden, and shared out."""
        try:
            batches = self._batches(step)
            tokens = sum(int(batch.attend.sum()) for batch in batches)
            return Step(hidden=self._mine(batches, step), num_tokens=tokens)
        except DyninError as error:
            return error

    def _batches(self, step: int) -> list[Batch]:
        pad_id, config = self.objective.vocabulary.pad_id, self.config
        rows = self.source.rows(step)
        if config.pack_length:
            size = {"length": config.pack_length, "tokens_per_batch": config.tokens_per_batch}
            return packing.batches(rows, pad_id=pad_id, **size)
        return pack(rows, pad_id=pad_id, tokens_per_batch=config.tokens_per_batch, is_ragged=config.dynamic_shapes)

    def _mine(self, batches: Rows[Batch], step: int) -> list[Hidden]:
        """Draws depend on a batch's place among all, so they are the same in any number of processes."""
        blank = _blank(batches[0])
        whole = parallel.even(batches, blank, self.count) if self.config.reshard else list(batches)
        whole += [blank] * (self.count - len(whole))
        return [
            self.objective.hide(batch, generator=torch.Generator().manual_seed(self.config.seed + 7919 * step + index))
            for index, batch in list(enumerate(whole))[self.rank :: self.count]
        ]


def steps(source: RowSource, objective: Objective, config: TrainConfig, first: int) -> Iterator[tuple[int, Step]]:
    """Every step from `first` on.

    Raises:
        DyninError: Whatever the source found wrong with a row of the step.
    """
    made = Steps(source, objective, config)
    numbers = range(first, config.steps)
    values = _by_workers(made, numbers) if config.workers else in_thread(made.__getitem__, numbers)
    for step, value in enumerate(values, first):
        if isinstance(value, DyninError):
            raise value
        yield step, value


def _by_workers(made: Steps, numbers: range) -> Iterator[Step | DyninError]:
    """In processes, which do not share the interpreter's lock with the training."""
    yield from DataLoader(
        made,
        batch_size=None,
        sampler=numbers,
        num_workers=made.config.workers,
        prefetch_factor=STEPS_AHEAD,
        generator=torch.Generator(),
    )


def in_thread(make: Callable[[int], Item], numbers: range) -> Iterator[Item]:
    """What is made of each number, in their order, by one thread beside the training; what it raises, at its place."""
    return ahead(map(make, numbers), count=STEPS_AHEAD - 1)  # and the one that is asked for


def _blank(batch: Batch) -> Batch:
    """One row without targets."""
    ids, kind = batch.ids[:1], torch.full_like(batch.kind[:1], -1)
    nothing = torch.zeros_like(batch.is_target[:1])
    return replace(batch, ids=ids, is_target=nothing, attend=batch.attend[:1], kind=kind, tasks=(), names=())
