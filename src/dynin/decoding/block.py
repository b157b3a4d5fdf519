"""One block of places, from hidden to committed: denoise, score, commit, hide again.

Enters: the live rows of a canvas, the places of the block, a segment's policy. Leaves: the rows with the block filled.
Does not know blocks before or after it, nor when a canvas grows.

    hidden places -> denoiser -> logits -> proposals -> the best of them are committed -+
         ^                                                                              |
         +---------------------- a rule may hide committed ones again ------------------+

A step never waits for its device: how many places are hidden is known from the plan. Where a rule makes that depend on
what was said, one short vector is read between two steps.
"""

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dynin.decoding.canvas import Canvas, Places, Segment
from dynin.decoding.commit import choose_best
from dynin.decoding.guidance import Resting, pair_with_unconditional
from dynin.decoding.noise import CHOICE, RANDOM, REVEAL, Draws, PlaceNoise
from dynin.decoding.order import halton_ranks
from dynin.decoding.parallel import Offer
from dynin.decoding.plan import Plan
from dynin.decoding.query import Decoding, Query
from dynin.decoding.remask import Committed
from dynin.decoding.score import Logits, Proposal, gumbel, log_score, propose, rate_present
from dynin.errors import DecodingError
from dynin.nn.precision import finest

_LAST = 1000.0  # more than any two scores or logarithms of scores are apart


@dataclass(frozen=True, kw_only=True, slots=True)
class Where:
    """The block's place in its decoding, told in every query."""

    keys: tuple[int, ...]
    """Rows of the whole canvas that are live."""
    segment_index: int
    number: int
    """Blocks of the segment before this one."""
    span: tuple[int, int]
    """Ordinals [start, stop) of the segment's places, those of later blocks that are looked at included."""
    num_own: int
    """How many of them belong to the block itself."""


@dataclass(slots=True, eq=False)
class Record:
    """What is remembered of a segment's places."""

    prob: Float[Tensor, "B N"]
    """Probability of the id at commitment; 1 for what was given, 0 where hidden."""
    times: Int[Tensor, "B N"]
    """How often hidden again."""
    checks: Int[Tensor, "B N"]
    """How often verified since committed."""
    is_open: Bool[Tensor, "B N"]
    """Committed by the decoder."""

    def parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The four tables, in the order of the fields."""
        return self.prob, self.times, self.checks, self.is_open


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a step did."""

    is_committed: Bool[Tensor, "B W"]
    is_remasked: Bool[Tensor, "B W"]


@dataclass(slots=True, eq=False)
class Block:
    """The state of a block; `step` advances it by one query."""

    where: Where
    mask_id: int
    segment: Segment
    canvas: Canvas
    """Live rows only; `ids` is written in place."""
    is_any_target: Bool[Tensor, "B S"]
    """Targets of every segment, which guidance's unconditional rows share."""
    places: Places
    record: Record
    plan: Plan
    draws: Draws | None
    """Random numbers, where the policy wants any."""
    is_stopped: Bool[Tensor, " B"]
    stop_id: Int[Tensor, " B"]
    """The id that stopped each row, where one did."""
    window: Int[Tensor, "B W"]
    """Ids at the places."""
    resting: Resting | None = None
    """What was said without condition last, where guidance does not ask at every step."""

    is_masked: Bool[Tensor, "B W"] = field(init=False)
    """Hidden places that the next step asks for."""
    inspected: Bool[Tensor, "B W"] | None = field(init=False, default=None)
    """Committed places that it verifies."""
    counts: tuple[int, ...] = field(init=False)
    """How many of both there are in each row."""
    num_inspected: int = field(init=False, default=0)
    is_faulty: Bool[Tensor, " B"] = field(init=False)
    """Rows that were given a logit that is not finite."""
    stops: Int[Tensor, " T"] = field(init=False)
    rank: Int[Tensor, " W"] | None = field(init=False, default=None)
    """Of each place in a fixed order of revealing."""

    def __post_init__(self) -> None:
        """What stays the same over the steps, and what the first one asks for."""
        device = self.window.device
        self.is_faulty = torch.zeros_like(self.is_stopped)
        self.stops = torch.tensor(self.segment.stop_ids, dtype=torch.int64, device=device)
        if self.segment.policy.order is not None and self.segment.grid is not None:
            self.rank = torch.tensor(halton_ranks(self.segment.grid)[slice(*self.where.span)], device=device)
        self._look(0)

    def step(self, index: int) -> Decoding[Outcome | None]:
        """One query and what follows from its answer; None, without a query, when nothing is hidden.

        Raises:
            DecodingError: If an earlier step was given logits that are not finite.
        """
        policy = self.segment.policy
        num_masked = sum(self.counts) - self.num_inspected
        if num_masked == 0:
            return None
        is_masked = self.is_masked
        place = _places(is_masked, num_masked)
        checked = place[:0] if self.inspected is None else _places(self.inspected, self.num_inspected)
        logits = yield from self._denoise(index, torch.cat([place, checked]))
        proposal = propose(
            logits.part(0, num_masked),
            temperature=policy.temperature,
            score=policy.score,
            noise=self._noise(index, place, CHOICE) if policy.temperature > 0 else None,
            random_score=self._noise(index, place, RANDOM).one() if policy.score == "random" else None,
            sampling=policy.sampling,
            needs_entropy=policy.commit is not None and policy.commit.needs_entropy,
            dtype=finest(place.device) if policy.compat == "published" else torch.float32,
        )
        self.is_faulty = self.is_faulty | self._spread(place, ~proposal.is_finite, False).any(dim=1)
        support = torch.ones_like(self.record.prob)
        if self.inspected is not None:
            support = self._verify(logits.part(num_masked, len(logits)), checked, self.inspected)
        is_remasked = torch.zeros_like(is_masked)
        if policy.remask is not None:
            view = self._committed(index, is_masked)
            is_remasked = policy.remask.choose(view, support, self.plan.remaining[:, index + 1])
        num_open = is_masked[:, : self.where.num_own].sum(dim=1) + is_remasked.sum(dim=1)
        is_committed = self._choose(index, place, proposal, num_open)
        is_committed |= self._trusted(is_masked, place, proposal)
        self._write(place, proposal, is_committed, is_remasked)
        if self.segment.stop_ids:
            self._stop()
        if index + 1 < self.plan.num_steps:
            self._look(index + 1)
        return Outcome(is_committed, is_remasked)

    def require_finite(self) -> None:
        """DecodingError if a step was given logits that are not finite; reads from the device."""
        self._refuse(self.is_faulty.tolist())

    def _look(self, index: int) -> None:
        """What a step asks for. Only where the plan does not know how much, that is read from the device."""
        is_masked = (self.window == self.mask_id) & self.places.is_valid
        self.is_masked = is_masked & is_masked[:, : self.where.num_own].any(dim=1, keepdim=True)
        if self.plan.counts is not None:
            self.counts = self.plan.counts[index]
            return
        self.inspected = self._inspect(index, self.is_masked)
        asked = self.is_masked if self.inspected is None else self.inspected
        hidden, inspected, is_faulty = torch.stack(
            [self.is_masked.sum(dim=1), asked.sum(dim=1), self.is_faulty.to(torch.int64)]
        ).tolist()
        self._refuse(is_faulty)
        self.counts, self.num_inspected = tuple(hidden), 0
        if self.inspected is not None:
            self.counts = tuple(sum(pair) for pair in zip(hidden, inspected, strict=True))
            self.num_inspected = sum(inspected)

    def _refuse(self, is_faulty: list[int] | list[bool]) -> None:
        """DecodingError if any row is faulty."""
        rows = [key for key, is_bad in zip(self.where.keys, is_faulty, strict=True) if is_bad]
        if rows:
            raise DecodingError(
                f"the network gave logits that are not finite in row {', '.join(map(str, rows))}, segment "
                f"{self.segment.name!r}, block {self.where.number}; expected numbers: check the weights "
                "(dynin doctor), or compute in float32"
            )

    def _noise(self, index: int, place: Int[Tensor, " K"], stream: int) -> PlaceNoise:
        """The random numbers of some places at a step."""
        assert self.draws is not None
        width = self.window.shape[1]
        return self.draws.at(index, place // width, place % width + self.where.span[0], stream)

    def _progress(self, index: int) -> Float[Tensor, " B"]:
        """Share of the way done before a step: of the steps planned, or of the places where a rule may be quicker."""
        if self.segment.policy.is_planned:
            return self.plan.progress[:, index]
        return 1.0 - self.is_masked[:, : self.where.num_own].sum(dim=1) / self.plan.remaining[:, 0]

    def _scales(self, index: int) -> Float[Tensor, " B"] | None:
        """The weight of guidance in each row at a step; None where no row is guided."""
        policy = self.segment.policy
        if policy.is_planned or policy.guidance_interval == (0.0, 1.0):
            return self.plan.scale[:, index] if self.plan.is_guided[index] else None
        first, second = policy.guidance_interval
        progress = self._progress(index)
        scales = ((progress >= first) & (progress < second)) * policy.guidance_scale
        return scales if bool((scales > 0).any()) else None

    def _committed(self, index: int, is_masked: Bool[Tensor, "B W"]) -> Committed:
        """What a rule sees before a step; rows with nothing hidden are left out, as they are when decoded alone."""
        is_open = self.record.is_open & ~is_masked & is_masked.any(dim=1, keepdim=True)
        is_open[:, self.where.num_own :] = False
        return Committed(
            is_open=is_open,
            prob=self.record.prob,
            times=self.record.times,
            checks=self.record.checks,
            num_places=self.plan.remaining[:, 0],
            progress=self._progress(index),
        )

    def _inspect(self, index: int, is_masked: Bool[Tensor, "B W"]) -> Bool[Tensor, "B W"] | None:
        """Committed places that the coming pass verifies; none in a row's last step, which could not hide them."""
        rule = self.segment.policy.remask
        if rule is None or not rule.verifies:
            return None
        return rule.inspect(self._committed(index, is_masked)) & (self.plan.remaining[:, index + 1] > 0)[:, None]

    def _verify(self, logits: Logits, place: Int[Tensor, " K"], inspected: Bool[Tensor, "B W"]) -> Float[Tensor, "B W"]:
        """Note how likely inspected ids are; their probability relative to the likeliest id's, 1 elsewhere."""
        prob, support = rate_present(logits, index_in(self.segment.allowed_ids, self.window.flatten()[place]))
        self.record.prob = torch.where(inspected, self._spread(place, prob, 0.0), self.record.prob)
        self.record.checks = self.record.checks + inspected
        return self._spread(place, support, 1.0)

    def _denoise(self, index: int, place: Int[Tensor, " K"]) -> Decoding[Logits]:
        """Logits at places given as flat positions in the window, guided where the plan says so."""
        canvas, policy = self.canvas, self.segment.policy
        if self.inspected is not None and policy.remask is not None and policy.remask.hides_inspected:
            hidden = self.window.masked_fill(self.inspected, self.mask_id)
            canvas = replace(canvas, ids=canvas.ids.scatter(1, self.places.columns, hidden))
        batch, length = canvas.ids.shape
        row = place // self.window.shape[1]
        position = row * length + self.places.columns.flatten()[place]
        scales = self._scales(index)
        if canvas.uncond_ids is None or scales is None:
            return Logits((yield self._query(index, canvas.ids, canvas.attend, position)))
        scale = scales[row]
        if self.resting is not None and self.resting.covers(index):
            alone = yield self._query(index, canvas.ids, canvas.attend, position)
            return Logits(alone, *self.resting.at(place, scale))
        ids = pair_with_unconditional(canvas.ids, canvas.uncond_ids, self.is_any_target)
        attend = None
        if canvas.attend is not None or canvas.uncond_attend is not None:
            first = torch.ones_like(canvas.ids, dtype=torch.bool) if canvas.attend is None else canvas.attend
            attend = torch.cat([first, first if canvas.uncond_attend is None else canvas.uncond_attend])
        both = yield self._query(index, ids, attend, torch.cat([position, position + batch * length]))
        if policy.guidance_every > 1:
            self.resting = Resting(index, policy.guidance_every, place, both[len(place) :])
        return Logits(both[: len(place)], both[len(place) :], scale)

    def _query(
        self, index: int, ids: Int[Tensor, "B2 S"], attend: Bool[Tensor, "B2 S"] | None, rows: Int[Tensor, " K2"]
    ) -> Query:
        """What is asked at a step, and where it comes up."""
        return Query(
            ids=ids,
            attend=attend,
            rows=rows,
            allowed=self.segment.allowed_ids,
            keys=self.where.keys,
            counts=None if self.inspected is not None else self.counts * (len(ids) // len(self.where.keys)),
            is_guided=len(ids) > len(self.where.keys),
            segment=self.segment.name,
            segment_index=self.where.segment_index,
            block=self.where.number,
            step=index,
            span=self.where.span,
            window=self.places,
            refresh=self.segment.policy.passes,
        )

    def _choose(
        self, index: int, place: Int[Tensor, " K"], proposal: Proposal, num_open: Int[Tensor, " B"]
    ) -> Bool[Tensor, "B W"]:
        """Which places to commit; `num_open` counts those hidden now and those that will be hidden again."""
        policy = self.segment.policy
        score = proposal.score
        if policy.noise_temperature > 0:
            row = place // self.window.shape[1]
            drawn = gumbel(self._noise(index, place, REVEAL).one())
            score = log_score(score, policy.score) + self.plan.noise_temperature[row, index] * drawn
        if policy.defer_stops:
            score = torch.where(self._is_stop(self._ids(proposal)), score - _LAST, score)
        if policy.compat == "published":
            quota = self.plan.remaining[:, index] - self.plan.remaining[:, index + 1]
        else:
            quota = (num_open - self.plan.remaining[:, index + 1]).clamp_min(1)
        spread = self._spread(place, score, -torch.inf)
        if self.rank is not None:
            spread = torch.where(spread > -torch.inf, -self.rank.to(spread.dtype), spread)
        spread[:, self.where.num_own :] = -torch.inf
        return choose_best(spread, quota)

    def _trusted(
        self, is_masked: Bool[Tensor, "B W"], place: Int[Tensor, " K"], proposal: Proposal
    ) -> Bool[Tensor, "B W"]:
        """Which places to commit beyond the plan, in this block and in those looked at ahead."""
        policy, num_own = self.segment.policy, self.where.num_own
        prob = self._spread(place, proposal.prob, -1.0)
        trusted = torch.zeros_like(is_masked)
        if policy.threshold is not None:
            trusted = prob >= policy.threshold
        if policy.commit is not None:
            entropy = torch.zeros_like(prob) if proposal.entropy is None else self._spread(place, proposal.entropy, 0.0)
            trusted = policy.commit.choose(
                Offer(is_masked[:, :num_own], prob[:, :num_own], entropy[:, :num_own].to(prob.dtype))
            )
            trusted = torch.nn.functional.pad(trusted, (0, is_masked.shape[1] - num_own))
        if policy.ahead is not None:
            trusted[:, num_own:] = prob[:, num_own:] >= policy.ahead.bar
        return trusted

    def _write(self, place: Int[Tensor, " K"], proposal: Proposal, is_committed: Tensor, is_remasked: Tensor) -> None:
        """Put committed ids in and mask ids back, in the window, the canvas and the record."""
        window = torch.where(is_committed, self._spread(place, self._ids(proposal), self.mask_id), self.window)
        self.window = window.masked_fill(is_remasked, self.mask_id)
        self.canvas.ids.scatter_(1, self.places.columns, self.window)
        record = self.record
        prob = self._spread(place, proposal.prob.to(record.prob.dtype), 0.0)
        record.prob = torch.where(is_committed, prob, record.prob).masked_fill(is_remasked, 0.0)
        record.times = record.times + is_remasked
        record.checks = record.checks.masked_fill(is_remasked, 0)
        record.is_open = (record.is_open | is_committed) & ~is_remasked

    def _stop(self) -> None:
        """Stop rows whose first stop id has nothing hidden before it, and fill them up with it."""
        width = self.window.shape[1]
        ordinal = torch.arange(width, device=self.window.device)
        is_stop = self._is_stop(self.window) & self.places.is_valid
        is_masked = (self.window == self.mask_id) & self.places.is_valid
        first_stop = torch.where(is_stop, ordinal, width).amin(dim=1, keepdim=True)
        first_masked = torch.where(is_masked, ordinal, width).amin(dim=1, keepdim=True)
        stops_now = first_stop < first_masked  # B 1
        stop_id = self.window.gather(1, first_stop.clamp_max(width - 1))
        is_ended = first_stop < width if self.segment.policy.early_stop else stops_now
        is_after = is_ended & (ordinal > first_stop) & self.places.is_valid
        self.window = torch.where(is_after, stop_id, self.window)
        self.canvas.ids.scatter_(1, self.places.columns, self.window)
        self.stop_id = torch.where(stops_now[:, 0], stop_id[:, 0], self.stop_id)
        self.is_stopped = self.is_stopped | stops_now[:, 0]
        self.record.is_open = self.record.is_open & ~stops_now & ~is_after

    def _is_stop(self, ids: Int[Tensor, "*shape"]) -> Bool[Tensor, "*shape"]:
        """Which ids end the segment."""
        return (ids[..., None] == self.stops).any(dim=-1)

    def _ids(self, proposal: Proposal) -> Int[Tensor, " K"]:
        """The proposed ids."""
        allowed = self.segment.allowed_ids
        return proposal.choice if allowed is None else allowed[proposal.choice]

    def _spread(self, place: Int[Tensor, " K"], values: Tensor, fill: int | float) -> Tensor:
        """Values at flat positions of the window, `fill` elsewhere."""
        spread = values.new_full((self.window.numel(),), fill)
        return spread.index_put((place,), values).view_as(self.window)


def _places(is_wanted: Bool[Tensor, "B W"], number: int) -> Int[Tensor, " K"]:
    """The flat positions of so many places, ascending, without asking the device how many there are."""
    return torch.nonzero_static(is_wanted.flatten(), size=number, fill_value=0).squeeze(1)


def index_in(allowed_ids: Int[Tensor, " A"] | None, ids: Int[Tensor, " K"]) -> Int[Tensor, " K"]:
    """Positions of ids in the list of allowed ones; ids must be allowed."""
    if allowed_ids is None:
        return ids
    order = allowed_ids.argsort()
    return order[torch.searchsorted(allowed_ids[order], ids).clamp_max(len(allowed_ids) - 1)]
