"""Many decodings at once, step by step: whatever wants logits next shares a pass of the network.

Enters: jobs, each a canvas with its segments, at any time. Leaves: what was decoded, job by job. Does not know
networks, tasks or servers; whoever owns the engine calls `step` for as long as there is work.

    submit -> waiting --admitted, first come first served, while columns are left--> running
                                                                                      |
    step:  the running jobs that were stepped longest ago, as many as the columns of a pass allow
           their queries -> one pass -> logits to each job's own decoding -> the next query, a result or an error
                                                                                      |
    poll  <- done | failed | cancelled <----------------------------------------------+

A job is a decoding of its own: random numbers, order and rules are what they are when it is decoded alone, and its
failure is its own. An engine is used from one thread at a time.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from dynin.decoding.canvas import Canvas, Segment
from dynin.decoding.decoder import Decoded, decoding
from dynin.decoding.query import Answer, BatchDenoiser, Decoding, Query
from dynin.decoding.trace import Step
from dynin.errors import ConfigError, RequestError

State = Literal["waiting", "running", "done", "failed", "cancelled"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class EngineJob:
    """What is to be decoded."""

    canvas: Canvas
    segments: Sequence[Segment]
    generator: torch.Generator | Sequence[torch.Generator] | None = None
    observer: Callable[[Step], None] | None = None
    """Called after every step of this job; what it raises fails the job."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Status:
    """How a job is doing."""

    state: State
    num_forwards: int
    """Passes it took part in so far."""
    num_columns: int
    """Columns that were computed for it."""
    decoded: Decoded | None = None
    """Where it is done."""
    error: Exception | None = None
    """Where it failed."""

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state not in ("waiting", "running")


@dataclass(slots=True, eq=False)
class _Entry:
    """A job inside the engine."""

    number: int
    first_key: int
    """Its rows are known to the denoiser by numbers from here on."""
    num_rows: int
    num_columns: int
    """Of its canvas, both branches counted, before it grows."""
    num_remembered: int
    """Rows whose keys and values are remembered, both branches counted."""
    longest: int
    """Columns of a row when it has grown as far as it may."""
    going: Decoding[Decoded]
    query: Query | None = None
    state: State = "waiting"
    decoded: Decoded | None = None
    error: Exception | None = None
    num_forwards: int = 0
    num_computed: int = 0
    last_step: int = -1
    is_cancelled: bool = False

    def row_keys(self) -> list[int]:
        """What the denoiser knows its rows by."""
        return list(range(self.first_key, self.first_key + self.num_rows))

    def status(self) -> Status:
        """What `poll` tells."""
        return Status(
            state=self.state,
            num_forwards=self.num_forwards,
            num_columns=self.num_computed,
            decoded=self.decoded,
            error=self.error,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How much an engine takes on."""

    max_columns: int = 8192
    """Columns of a pass, both branches of guidance counted. A job that needs more by itself is refused. Where a
    denoiser remembers keys and values, a pass that computes everything anew costs all of a job's columns and others
    only a few, so that this bound also spreads those passes over time."""
    max_running: int = 64
    """Jobs that are decoded at the same time."""
    max_waiting: int = 1024
    """Jobs that wait for it."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("max_columns", "max_running", "max_waiting"):
            value = getattr(self, name)
            if value < 1:
                raise ConfigError(f"{name} is {value}; it must be at least 1")


@dataclass(slots=True, eq=False)
class Engine:
    """Decodes many jobs together."""

    denoiser: BatchDenoiser
    mask_id: int
    limits: Limits = field(default_factory=Limits)
    _entries: dict[int, _Entry] = field(default_factory=dict, init=False)
    _waiting: deque[_Entry] = field(default_factory=deque, init=False)
    _running: list[_Entry] = field(default_factory=list, init=False)
    _next_number: int = field(default=0, init=False)
    _next_key: int = field(default=0, init=False)
    _num_steps: int = field(default=0, init=False)
    _is_stepping: bool = field(default=False, init=False)

    # ---- for callers ------------------------------------------------------------------------------------------------

    def submit(self, job: EngineJob) -> int:
        """Take a job on; its number.

        Raises:
            RequestError: If it cannot be decoded, needs more columns than a pass may have, or too many are waiting.
        """
        if len(self._waiting) >= self.limits.max_waiting:
            raise RequestError(
                f"{len(self._waiting)} jobs are waiting, as many as may (max_waiting); try again when some are done"
            )
        columns = _most_columns(job)
        if columns > self.limits.max_columns:
            raise RequestError(
                f"the job takes up to {columns} columns, but a pass has {self.limits.max_columns} (max_columns); "
                "shorten it, or allow more"
            )
        remembered, longest = _num_remembered(job), _longest(job)
        if remembered and not self.denoiser.fits(remembered, longest):
            raise RequestError(
                f"the job wants {remembered} rows of up to {longest} columns remembered, more than the memory of keys "
                "and values may take; allow more, shorten it, or decode it without memory (preset exact)"
            )
        if job.generator is None and any(segment.policy.is_random for segment in job.segments):
            raise RequestError("a policy of the job draws random numbers, but it has no generator; pass one")
        going = decoding(job.canvas, job.segments, mask_id=self.mask_id, generator=job.generator, observer=job.observer)
        entry = _Entry(
            number=self._next_number,
            first_key=self._next_key,
            num_rows=len(job.canvas.ids),
            num_columns=job.canvas.ids.numel() * (2 if _is_guided(job) else 1),
            num_remembered=remembered,
            longest=longest,
            going=going,
        )
        self._next_number += 1
        self._next_key += entry.num_rows
        self._entries[entry.number] = entry
        self._waiting.append(entry)
        return entry.number

    @torch.no_grad()
    def step(self) -> tuple[int, ...]:
        """One pass of the network, and what follows from it for each job that had a part in it.

        Returns:
            The numbers of the jobs that ended, well or badly; empty also when there was nothing to do, see `is_idle`.
        """
        self._is_stepping = True
        try:
            ended = self._admit()
            chosen = self._choose()
            self._num_steps += 1
            self._answer(chosen)
        finally:
            self._is_stepping = False
        ended += [entry for entry in self._running if entry.is_cancelled or entry.query is None]
        ended += [entry for entry in self._waiting if entry.is_cancelled]
        for entry in ended:
            self._retire(entry)
        return tuple(sorted(entry.number for entry in ended))

    def poll(self, number: int) -> Status:
        """How a job is doing; a final status is told once, then the job is forgotten.

        Raises:
            RequestError: If there is no such job, or its final status was told already.
        """
        status = self._entry(number).status()
        if status.is_final:
            del self._entries[number]
        return status

    def cancel(self, number: int) -> None:
        """Stop a job; no pass that begins after this holds it. One that has ended already stays as it is.

        Raises:
            RequestError: If there is no such job.
        """
        entry = self._entry(number)
        if entry.status().is_final:
            return
        entry.is_cancelled = True
        if not self._is_stepping:  # else the step that is going on sees to it, as where an observer cancels
            self._retire(entry)

    @property
    def is_idle(self) -> bool:
        """Whether no job waits or runs."""
        return not self._waiting and not self._running

    # ---- a step -----------------------------------------------------------------------------------------------------

    def _admit(self) -> list[_Entry]:
        """Begin waiting jobs in their order while there are columns and memory for them; those that ended at once."""
        ended = []
        used = sum(self._cost(entry) for entry in self._running)
        while self._waiting and len(self._running) < self.limits.max_running:
            entry = self._waiting[0]
            if self._running and used + entry.num_columns > self.limits.max_columns:
                break
            if not self._has_memory_for(entry):
                break
            self._waiting.popleft()
            _advance(entry, None)
            if entry.query is None:
                ended.append(entry)
                continue
            entry.state = "running"
            entry.last_step = self._num_steps - 1
            used += self._cost(entry)
            self._running.append(entry)
        return ended

    def _has_memory_for(self, entry: _Entry) -> bool:
        """Whether a job can be remembered beside those that are running, all as long as the longest of them."""
        together = [other for other in (*self._running, entry) if other.num_remembered]
        if not entry.num_remembered or len(together) == 1:
            return True
        num_rows = sum(other.num_remembered for other in together)
        return self.denoiser.fits(num_rows, max(other.longest for other in together))

    def _choose(self) -> list[_Entry]:
        """The running jobs of a pass: those stepped longest ago, as many as fit, at least one."""
        chosen: list[_Entry] = []
        used = 0
        for entry in sorted(self._running, key=lambda entry: (entry.last_step, entry.number)):
            cost = self._cost(entry)
            if chosen and used + cost > self.limits.max_columns:
                continue
            used += cost
            chosen.append(entry)
        return sorted(chosen, key=lambda entry: entry.number)

    def _answer(self, chosen: Sequence[_Entry]) -> None:
        """Answer the queries of some jobs, in one pass if that works, else one by one."""
        left = dict(enumerate(chosen))
        try:
            for at, answer in self.denoiser.answer_all([entry.query for entry in chosen if entry.query is not None]):
                self._deliver(left.pop(at), answer)
        except Exception as error:  # whatever a pass fails with, such as memory: no job may end the others
            self.denoiser.forget([key for entry in self._running for key in entry.row_keys()])  # half a pass may remain
            for entry in left.values():
                if len(chosen) == 1:
                    _fail(entry, error)
                else:
                    self._answer([entry])

    def _deliver(self, entry: _Entry, answer: Answer) -> None:
        """Hand a job its logits."""
        entry.num_forwards += 1
        entry.num_computed += answer.num_columns
        entry.last_step = self._num_steps
        if not entry.is_cancelled:
            _advance(entry, answer.logits)

    def _cost(self, entry: _Entry) -> int:
        """Columns that a job's next pass computes."""
        return 0 if entry.query is None else self.denoiser.cost(entry.query)

    def _retire(self, entry: _Entry) -> None:
        """Let go of what an ended job held."""
        if entry.is_cancelled and entry.state in ("waiting", "running"):
            entry.state = "cancelled"
        entry.going.close()
        entry.query = None
        if entry in self._running:
            self._running.remove(entry)
        if entry in self._waiting:
            self._waiting.remove(entry)
        self.denoiser.forget(entry.row_keys())

    def _entry(self, number: int) -> _Entry:
        """A job by its number."""
        if number not in self._entries:
            raise RequestError(f"there is no job {number}; it was never submitted, or its end was told already")
        return self._entries[number]


def _advance(entry: _Entry, logits: Tensor | None) -> None:
    """Take a job's own decoding to its next query, or to its end."""
    entry.query = None
    try:
        query = next(entry.going) if logits is None else entry.going.send(logits)
    except StopIteration as finished:
        entry.state, entry.decoded = "done", finished.value
    except Exception as error:  # its own fault, such as logits that are not finite, or its observer's: nobody else's
        _fail(entry, error)
    else:
        entry.query = replace(query, keys=tuple(entry.first_key + key for key in query.keys))


def _fail(entry: _Entry, error: Exception) -> None:
    """End a job with an error."""
    entry.state, entry.error, entry.query = "failed", error, None


def _is_guided(job: EngineJob) -> bool:
    """Whether a segment of a job needs both branches."""
    return any(segment.policy.guidance_scale > 0 for segment in job.segments)


def _num_remembered(job: EngineJob) -> int:
    """Rows of a job whose keys and values are remembered, both branches counted."""
    is_remembered = any(segment.policy.passes is not None for segment in job.segments)
    return len(job.canvas.ids) * (2 if _is_guided(job) else 1) if is_remembered else 0


def _longest(job: EngineJob) -> int:
    """Columns of a row of a job when it has grown as far as it may."""
    length = job.canvas.ids.shape[1]
    for segment in job.segments:
        counts = segment.is_target.sum(dim=1)
        shortest = int(counts.where(counts > 0, counts.amax()).min()) if counts.numel() else 0
        length += max(0, (segment.policy.max_len or 0) - shortest)
    return length


def _most_columns(job: EngineJob) -> int:
    """Columns of a job when it has grown as far as it may."""
    return _longest(job) * len(job.canvas.ids) * (2 if _is_guided(job) else 1)
