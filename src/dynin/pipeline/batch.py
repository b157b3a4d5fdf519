"""Requests of any kind fulfilled together: what a server stands on.

Enters: requests, at any time. Leaves: results, request by request, as each gets alone. Does not know connections.

    requests = RequestEngine(dynin.load())
    number = requests.submit(Request(prompt="a dog", to="image", seed=0))
    while not requests.is_idle:
        for number in requests.step():
            result = requests.poll(number).result
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dynin.decoding.engine import Engine, EngineJob, Limits, State, Status
from dynin.pipeline.denoiser import Effort
from dynin.pipeline.dynin import Dynin, Observer, kept
from dynin.pipeline.job import Easel, Job
from dynin.pipeline.mixed import MixedDenoiser
from dynin.pipeline.request import Request
from dynin.pipeline.result import Result, Snapshot


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RequestStatus:
    """How a request is doing."""

    state: State
    num_forwards: int
    """Network calls it took part in so far."""
    result: Result | None = None
    """Where it is done."""
    error: Exception | None = None
    """Where it failed."""


@dataclass(slots=True, eq=False)
class _Pending:
    """A request inside the engine."""

    job: Job
    trace: list[Snapshot]
    started: float


class RequestEngine:
    """Fulfils many requests together, step by step; used from one thread at a time.

    Requests of different tasks, lengths and wishes share each network call. What a request gets does not depend on the
    others, up to the rounding of a matrix product with more rows.
    """

    def __init__(
        self,
        pipeline: Dynin,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        *,
        max_cache_bytes: int | None = None,
    ) -> None:
        """Begin without requests.

        Args:
            limits: Columns of a network call, and requests that run and wait.
            max_cache_bytes: Largest memory for keys and values of presets that remember them; None for no bound.
        """
        self._pipeline = pipeline
        self._easel: Easel = pipeline.easel()
        denoiser = MixedDenoiser(pipeline.model, max_cache_bytes=max_cache_bytes, graphs=pipeline.graphs)
        self._engine = Engine(denoiser, pipeline.vocabulary["mask"], limits)
        self._pending: dict[int, _Pending] = {}

    def submit(self, request: Request, on_step: Observer | None = None) -> int:
        """Take a request on; its number.

        Args:
            on_step: Called after every network call with the target as it is then; what it raises fails the request.

        Raises:
            RequestError: If the request is ambiguous, impossible or too long, or too many are waiting.
            MediaError: If something given cannot be read.
        """
        started = time.monotonic()
        job = self._pipeline.prepare(request)
        work = self._easel.lay([job])
        trace: list[Snapshot] = []
        number = self._engine.submit(
            EngineJob(
                canvas=work.canvas,
                segments=work.segments,
                generator=work.generators,
                observer=self._pipeline.watch([job], [trace], on_step),
            )
        )
        self._pending[number] = _Pending(job, trace, started)
        return number

    def step(self) -> tuple[int, ...]:
        """One network call for all requests that are running; the numbers of those that ended."""
        return self._engine.step()

    def poll(self, number: int) -> RequestStatus:
        """How a request is doing; a final status is told once, and where it is done that is when media are made.

        Raises:
            RequestError: If there is no such request, or its final status was told already.
        """
        status = self._engine.poll(number)
        if not status.is_final:
            return RequestStatus(state=status.state, num_forwards=status.num_forwards)
        pending = self._pending.pop(number)
        ended = RequestStatus(state=status.state, num_forwards=status.num_forwards, error=status.error)
        if status.decoded is None:
            return ended
        try:
            return replace(ended, result=self._finish(pending, status))
        except Exception as error:  # of a codec or a voice: the request failed, the engine did not
            return replace(ended, state="failed", error=error)

    def cancel(self, number: int) -> None:
        """Stop a request; no network call that begins after this is for it.

        Raises:
            RequestError: If there is no such request.
        """
        self._engine.cancel(number)

    @property
    def is_idle(self) -> bool:
        """Whether no request waits or runs."""
        return self._engine.is_idle

    def run(self, requests: Sequence[Request]) -> list[Result]:
        """Fulfil some requests, and those taken on before, to the end.

        Raises:
            Exception: What a request failed with; the others' results are lost then. Use `submit` to keep them.
        """
        numbers = [self.submit(request) for request in requests]
        found: dict[int, Result] = {}
        while not self.is_idle:
            for number in self.step():
                if number not in numbers:
                    continue
                status = self.poll(number)
                if status.error is not None:
                    self._abandon(set(numbers) - set(found) - {number})
                    raise status.error
                if status.result is not None:
                    found[number] = status.result
        return [found[number] for number in numbers]

    def _abandon(self, numbers: set[int]) -> None:
        """Cancel requests that nobody will ask about."""
        for number in numbers:
            self._engine.cancel(number)
            self._engine.poll(number)
            del self._pending[number]

    def _finish(self, pending: _Pending, status: Status) -> Result:
        """From ids to media."""
        assert status.decoded is not None
        effort = Effort(status.num_forwards, status.num_columns)
        result = self._pipeline.finish(pending.job, 0, status.decoded, effort)
        seconds = time.monotonic() - pending.started
        return replace(result, seconds=seconds, trace=kept(pending.job, pending.trace))
