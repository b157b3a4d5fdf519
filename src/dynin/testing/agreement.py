"""Whether our decoder decides as a published sampler does, step by step, in the sampler's own states.

Enters: what a published sampler did, step by step; the same task for our decoder; the numbers that were drawn. Leaves:
how many decisions agree, and of each that does not how near a tie it was. Does not know networks.

    oracle    state 0 --decides--> state 1 --decides--> state 2 ..
                 |                    |                    |
    ours         +--decides, compared +--decides, compared +-- ..      the next state is always the oracle's

A sampled decoding that differs once goes its own way from there, so that comparing what comes out says nothing. Where
ours decided otherwise, it is started anew and led to the oracle's next state by logits that leave no choice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from dynin.decoding.canvas import Canvas, Segment
from dynin.decoding.decoder import decoding
from dynin.decoding.noise import CHOICE, Draws, Noise, PlaceNoise
from dynin.decoding.query import Query
from dynin.decoding.score import Logits, propose
from dynin.decoding.trace import Step
from dynin.testing.oracle import OracleStep

NEAR_TIE = 1e-5
"""Gap below which either decision is right in float32."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Decision:
    """What the oracle decided at one step, in little memory."""

    ids: Int[Tensor, "B S"]
    span: tuple[int, int]
    choice: Int[Tensor, "B N"]
    """Ids."""
    gap: Float[Tensor, "B N"]
    """Of the best two choices, in nats; infinite at places that were not rated."""
    rank: Float[Tensor, "B N"]
    """On a logarithmic scale."""
    is_rated: Bool[Tensor, "B N"]
    is_committed: Bool[Tensor, "B N"]
    num_classes: int
    noise_state: UInt8[Tensor, " states"] | None
    dtype: torch.dtype


class Recorder:
    """Keeps every decision of a published sampler; hand it over as `observer`."""

    def __init__(self) -> None:
        """Start empty."""
        self.decisions: list[Decision] = []

    def __call__(self, step: OracleStep) -> None:
        """Keep a step."""
        is_rated = step.rank > -torch.inf
        best = step.perturbed[is_rated].topk(2, dim=-1).values
        best = best.log() if step.is_ratio else best
        gap = torch.full_like(step.rank, torch.inf)
        gap[is_rated] = (best[:, 0] - best[:, 1]).to(gap.dtype)
        known = step.choice if step.class_ids is None else step.class_ids[step.choice]
        self.decisions.append(
            Decision(
                ids=step.ids.clone(),
                span=step.span,
                choice=known.clone(),
                gap=gap,
                rank=step.rank.clone() if step.is_log_rank else step.rank.log(),
                is_rated=is_rated,
                is_committed=step.is_committed.clone(),
                num_classes=step.perturbed.shape[-1],
                noise_state=step.noise_state,
                dtype=step.perturbed.dtype,
            )
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Miss:
    """A decision that ours takes otherwise."""

    step: int
    row: int
    column: int
    kind: Literal["choice", "reveal"]
    gap: float
    """In nats, between the best two choices, or from the place's rank to the nearest on the other side of the cut."""


@dataclass(slots=True, eq=False)
class Agreement:
    """How far ours agrees."""

    num_choices: int = 0
    num_reveals: int = 0
    misses: list[Miss] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Of all decisions."""
        return 1.0 - len(self.misses) / max(1, self.num_choices + self.num_reveals)

    @property
    def is_exact(self) -> bool:
        """Whether every miss is a near-tie."""
        return all(miss.gap < NEAR_TIE for miss in self.misses)


NoiseKind = Literal["none", "ratio", "multinomial"]
"""How a published sampler draws: not at all; uniform numbers per id in float64, of every position; exponential numbers
per class for `torch.multinomial`, then uniform ones per place."""


def synchronised(
    decisions: Sequence[Decision],
    canvas: Canvas,
    segment: Segment,
    answer: Callable[[Query], Tensor],
    *,
    mask_id: int,
    draws: NoiseKind = "none",
) -> Agreement:
    """Our decoder's decisions in the oracle's states, with the oracle's numbers.

    Args:
        segment: Its targets lie behind one another, in the same columns of every row.
        answer: What answers the queries, such as a denoiser's `answer`.
        draws: How the oracle draws.

    Raises:
        ValueError: If the two are in different states, so that their decisions cannot be compared.

    Parity:
        Steps of the oracle that reveal nothing are passed over, as our decoder leaves them out.
    """
    follower = _Follower(canvas, segment, mask_id, draws)
    agreement = Agreement()
    query = follower.begin(())
    decisions = [decision for decision in decisions if bool(decision.is_committed.any())]
    for number, decision in enumerate(decisions):
        if query is None or not torch.equal(query.ids[: len(decision.ids)], decision.ids):
            raise ValueError(f"step {number}: ours is in another state than the oracle; give both the same task")
        logits = answer(query)
        follower.noise.load(decision)
        proposed = follower.propose(query, logits)
        query = follower.send(logits)
        _compare(agreement, number, decision, proposed, follower.committed(decision))
        if any(miss.step == number for miss in agreement.misses):
            query = follower.begin(decisions[: number + 1])
    return agreement


class _Follower:
    """A decoding of ours that can be led into a state."""

    def __init__(self, canvas: Canvas, segment: Segment, mask_id: int, draws: NoiseKind) -> None:
        self.canvas, self.segment, self.mask_id = canvas, segment, mask_id
        self.first = int(segment.is_target[0].nonzero()[0])
        self.noise = _Replayed(self.first, draws)
        self.last: Step | None = None

    def begin(self, led: Sequence[Decision]) -> Query | None:
        """Start anew and go through some decisions of the oracle; what is asked then."""
        self.going = decoding(
            self.canvas, [self.segment], mask_id=self.mask_id, generator=self.noise, observer=self._note
        )
        query: Query | None = next(self.going)
        for decision in led:
            assert query is not None
            self.noise.load(None)
            query = self.send(self._leading(query, decision))
        return query

    def send(self, logits: Tensor) -> Query | None:
        """The next question; None at the end."""
        try:
            return self.going.send(logits)
        except StopIteration:
            return None

    def propose(self, query: Query, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Where ours rates a place, as flat positions of the canvas, and the id it would put there."""
        policy = self.segment.policy
        number = len(query.rows) // 2 if query.is_guided else len(query.rows)
        position = query.rows[:number]
        width = self.canvas.ids.shape[1]
        scale = torch.full((number,), policy.guidance_scale, device=logits.device)
        pair = Logits(logits[:number], logits[number:], scale) if query.is_guided else Logits(logits)
        noise = self.noise.places(CHOICE, position // width, position % width) if policy.temperature > 0 else None
        made = propose(pair, temperature=policy.temperature, score="confidence", noise=noise)
        allowed = self.segment.allowed_ids
        return position, made.choice if allowed is None else allowed[made.choice]

    def committed(self, decision: Decision) -> Bool[Tensor, "B N"]:
        """What ours revealed, in the oracle's span."""
        assert self.last is not None
        whole = torch.zeros_like(self.canvas.ids, dtype=torch.bool)
        number = self.last.is_committed.shape[1]
        whole[:, self.first : self.first + number] = self.last.is_committed
        return whole[:, slice(*decision.span)]

    def _note(self, step: Step) -> None:
        self.last = step

    def _leading(self, query: Query, decision: Decision) -> Tensor:
        """Logits after which ours can only decide as the oracle did."""
        width = self.canvas.ids.shape[1]
        size = decision.num_classes
        allowed = self.segment.allowed_ids
        logits = torch.zeros(len(query.rows), size)
        number = len(query.rows) // 2 if query.is_guided else len(query.rows)
        for place, position in enumerate(query.rows[:number].tolist()):
            row, column = position // width, position % width - decision.span[0]
            if decision.is_committed[row, column]:
                chosen = decision.choice[row, column]
                index = int(chosen) if allowed is None else int((allowed == chosen).nonzero()[0])
                logits[place::number, index] = 60.0
        return logits.to(query.ids.device)


class _Replayed(Noise):
    """The numbers that an oracle drew at a step, place by place; halves where nothing is loaded."""

    def __init__(self, first: int, draws: NoiseKind) -> None:
        super().__init__(None)
        self._first, self._draws = first, draws
        self._span = (0, 0)
        self._tables: Tensor | None = None
        self._ones: Tensor | None = None

    def load(self, decision: Decision | None) -> None:
        """Draw again what the oracle drew; forget it where there is no decision."""
        self._tables = self._ones = None
        if decision is None or decision.noise_state is None or self._draws == "none":
            return
        generator = torch.Generator(decision.ids.device)
        generator.set_state(decision.noise_state)
        self._span = decision.span
        shape = (*decision.choice.shape, decision.num_classes)
        if self._draws == "ratio":
            self._tables = torch.rand(shape, generator=generator, dtype=torch.float64, device=decision.ids.device)
            return
        drawn = torch.empty(shape, dtype=decision.dtype, device=decision.ids.device).flatten(0, 1)
        self._tables = (-drawn.exponential_(1, generator=generator).double()).exp().view(shape)
        self._ones = torch.zeros_like(decision.rank).uniform_(0, 1, generator=generator)

    def rows(self, live: Sequence[int]) -> "Noise":
        """All rows are live as long as any is."""
        del live
        return self

    def begin(self, num_rows: int, device: torch.device) -> Draws:
        """Numbers of a block."""
        return _Draws(torch.zeros(num_rows, dtype=torch.int64, device=device), self)

    def places(self, stream: int, row: Tensor, column: Tensor) -> PlaceNoise:
        """Those of some places."""
        source = self._tables if stream == CHOICE else self._ones
        return _Places(row, None if source is None else source[row, column - self._span[0]])

    def at_ordinals(self, stream: int, row: Tensor, ordinal: Tensor) -> PlaceNoise:
        """Those of some places of the segment."""
        return self.places(stream, row, ordinal + self._first)


class _Draws(Draws):
    """Hands out what was replayed."""

    source: _Replayed

    def __init__(self, key: Tensor, source: _Replayed) -> None:
        super().__init__(key)
        object.__setattr__(self, "source", source)  # frozen

    def at(self, step: int, row: Tensor, ordinal: Tensor, stream: int = CHOICE) -> PlaceNoise:
        """The numbers of the step that is loaded."""
        del step
        return self.source.at_ordinals(stream, row, ordinal)


class _Places(PlaceNoise):
    """Numbers from a table."""

    values: Tensor | None

    def __init__(self, seed: Tensor, values: Tensor | None) -> None:
        super().__init__(seed)
        object.__setattr__(self, "values", values)  # frozen

    def one(self) -> Tensor:
        """A number for each place."""
        return torch.full(self.seed.shape, 0.5) if self.values is None else self.values

    def table(self, start: int, stop: int, width: int) -> Tensor:
        """A number for each id of some places, to be written over."""
        if self.values is None:
            return torch.full((stop - start, width), 0.5)
        return self.values[start:stop].clone()


def _compare(
    agreement: Agreement,
    step: int,
    decision: Decision,
    proposed: tuple[Tensor, Tensor],
    committed: Bool[Tensor, "B N"],
) -> None:
    """Count decisions and note those that differ."""
    position, ids = proposed
    width = decision.ids.shape[1]
    row, column = position // width, position % width - decision.span[0]
    differs = decision.choice[row, column] != ids
    agreement.num_choices += len(position)
    agreement.num_reveals += int(decision.is_rated.sum())
    for at in differs.nonzero()[:, 0].tolist():
        place = int(row[at]), int(column[at])
        agreement.misses.append(_miss(step, place, decision, "choice", float(decision.gap[place])))
    for place in (committed != decision.is_committed).nonzero().tolist():
        gap = _cut_gap(decision, place[0], place[1])
        agreement.misses.append(_miss(step, (place[0], place[1]), decision, "reveal", gap))


def _miss(step: int, place: tuple[int, int], decision: Decision, kind: Literal["choice", "reveal"], gap: float) -> Miss:
    return Miss(step=step, row=place[0], column=place[1] + decision.span[0], kind=kind, gap=gap)


def _cut_gap(decision: Decision, row: int, place: int) -> float:
    """From a place's rank to the nearest rank on the other side of the cut."""
    others = decision.is_rated[row] & (decision.is_committed[row] != decision.is_committed[row, place])
    ranks = decision.rank[row][others]
    return float((ranks - decision.rank[row, place]).abs().min()) if len(ranks) else float("inf")
