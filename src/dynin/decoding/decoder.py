"""The decoding loop: hidden places of a canvas are proposed, scored and committed in parallel until none is left.

Enters: a canvas, its target segments, and a denoiser that turns ids into logits. Leaves: the completed canvas, why each
row ended, and the number of denoiser calls. Does not know models, tokenizers or tasks.

    segments one after another
      blocks from left to right          (the canvas grows by a block where the policy allows it)
        steps: denoise -> score -> commit -> hide again     (block.py)
      a row ends at its first stop id with nothing hidden before it
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dynin.decoding.block import Block, Outcome, Record, Where
from dynin.decoding.canvas import Canvas, Places, Segment, grow, locate
from dynin.decoding.noise import Noise
from dynin.decoding.plan import Plan, plan_block
from dynin.decoding.query import Decoding, Denoiser, QueryDenoiser, drive
from dynin.decoding.trace import Step
from dynin.errors import RequestError

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Decoded:
    """A completed canvas."""

    ids: Int[Tensor, "B S"]
    """As wide as the canvas has grown."""
    attend: Bool[Tensor, "B S"] | None
    is_target: Mapping[str, Bool[Tensor, "B S"]]
    """The places of each segment by name."""
    finish_reasons: tuple[FinishReason, ...]
    """Per row: "length" when a segment that has stop ids was filled without one, else "stop"."""
    num_forwards: int
    """Denoiser calls; a guided call, of both branches at once, counts as one."""
    stop_ids: Mapping[str, tuple[int, ...]]

    def answer(self, name: str, row: int) -> Int[Tensor, " N"]:
        """The ids of a segment in one row, up to and without the first stop id."""
        ids = self.ids[row][self.is_target[name][row]]
        stops = self.stop_ids[name]
        if not stops:
            return ids
        ends = torch.isin(ids, torch.tensor(stops, device=ids.device)).nonzero()
        return ids[: int(ends[0])] if len(ends) else ids


@dataclass(slots=True, eq=False)
class _Progress:
    """What changes while a segment is decoded."""

    places: Places
    record: Record
    is_stopped: Bool[Tensor, " B"]
    stop_id: Int[Tensor, " B"]


class ParallelDecoder:
    """Fills hidden places with what a denoiser predicts."""

    def __init__(self, denoiser: Denoiser | QueryDenoiser, mask_id: int) -> None:
        """Keep the denoiser and the id that means hidden."""
        self.denoiser = denoiser
        self.mask_id = mask_id

    @torch.no_grad()
    def run(
        self,
        canvas: Canvas,
        segments: Sequence[Segment],
        *,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        observer: Callable[[Step], None] | None = None,
    ) -> Decoded:
        """Complete the canvas; see `decoding` for what is what."""
        going = decoding(canvas, segments, mask_id=self.mask_id, generator=generator, observer=observer)
        return drive(going, self.denoiser)


def decoding(
    canvas: Canvas,
    segments: Sequence[Segment],
    *,
    mask_id: int,
    generator: torch.Generator | Sequence[torch.Generator] | Noise | None = None,
    observer: Callable[[Step], None] | None = None,
) -> Decoding[Decoded]:
    """Complete a canvas, asking for logits; segments are decoded in their order, each seeing those before it.

    Ids that are no target never change. The canvas passed in is left as it was.

    Args:
        mask_id: The id that means hidden.
        generator: One for the batch, or one per row, which makes a row's draws independent of its neighbours.
            Greedy policies need none. A `Noise` is taken as it is: with numbers drawn elsewhere, two decoders can be
            compared step by step.
        observer: Called after every step, for traces and for text shown as it appears.

    Raises:
        RequestError: If a segment allows the mask id, guidance lacks unconditional ids, or shapes disagree; at once,
            not when the first query is wanted.
        DecodingError: If logits are not finite, at the latest when the block ends that they were for.
    """
    _check(canvas, segments, mask_id)
    state = _Run(
        mask_id=mask_id,
        canvas=replace(canvas, ids=canvas.ids.clone()),
        is_target=tuple(segment.is_target for segment in segments),
        noise=generator if isinstance(generator, Noise) else Noise(generator),
        observer=observer,
    )
    return state.decode(segments)


@dataclass(slots=True, eq=False)
class _Run:
    """A canvas that is being completed."""

    mask_id: int
    canvas: Canvas
    is_target: tuple[Tensor, ...]
    noise: Noise
    observer: Callable[[Step], None] | None
    num_forwards: int = 0

    def decode(self, segments: Sequence[Segment]) -> Decoding[Decoded]:
        """Decode one segment after the other."""
        needs_length = torch.zeros(len(self.canvas.ids), dtype=torch.bool, device=self.canvas.ids.device)
        for index, segment in enumerate(segments):
            is_stopped = yield from self._decode_segment(index, segment)
            if segment.stop_ids:
                needs_length |= ~is_stopped
        return Decoded(
            ids=self.canvas.ids,
            attend=self.canvas.attend,
            is_target={segment.name: mask for segment, mask in zip(segments, self.is_target, strict=True)},
            finish_reasons=tuple("length" if cut else "stop" for cut in needs_length.tolist()),
            num_forwards=self.num_forwards,
            stop_ids={segment.name: segment.stop_ids for segment in segments},
        )

    def _decode_segment(self, index: int, segment: Segment) -> Decoding[Bool[Tensor, " B"]]:
        """Decode the blocks of one segment; which rows met a stop id."""
        policy = segment.policy
        places = locate(self.is_target[index])
        counts = places.is_valid.sum(dim=1).tolist()
        limits = [max(count, policy.max_len or 0) if count else 0 for count in counts]
        steps = [policy.block_steps(limit) for limit in limits]
        given = self.canvas.ids.gather(1, places.columns) != self.mask_id
        progress = _Progress(
            places=places,
            record=Record(
                given.float(),
                torch.zeros_like(places.columns),
                torch.zeros_like(places.columns),
                torch.zeros_like(given),
            ),
            is_stopped=torch.zeros_like(self.canvas.ids[:, 0], dtype=torch.bool),
            stop_id=torch.zeros_like(self.canvas.ids[:, 0]),
        )
        number = 0
        while True:
            if policy.max_len is not None:
                self._grow(index, progress, number, segment)
            width = progress.places.columns.shape[1]
            block_len = policy.block_len or max(width, 1)
            start = number * block_len
            if start >= width:
                return progress.is_stopped
            span = (start, min(start + block_len, width))
            yield from self._decode_block(segment, progress, (index, number, span), steps)
            number += 1

    def _grow(self, index: int, progress: _Progress, number: int, segment: Segment) -> None:
        """Complete block `number` of the rows that have not stopped, by new hidden places."""
        policy = segment.policy
        assert policy.block_len is not None
        assert policy.max_len is not None
        counts = progress.places.is_valid.sum(dim=1)
        num_ahead = policy.ahead.num_blocks if policy.ahead else 0
        wanted = min((number + 1 + num_ahead) * policy.block_len, policy.max_len)
        num_new = (wanted - counts).clamp_min(0) * (counts > 0) * ~progress.is_stopped
        if not bool(num_new.any()):
            return
        self.canvas, self.is_target = grow(self.canvas, self.is_target, index, num_new, self.mask_id)
        progress.places = locate(self.is_target[index])
        added = progress.places.columns.shape[1] - progress.record.prob.shape[1]
        progress.record = Record(*(_widen(part, added) for part in progress.record.parts()))

    def _decode_block(
        self, segment: Segment, progress: _Progress, which: tuple[int, int, tuple[int, int]], steps: Sequence[int]
    ) -> Decoding[None]:
        """Decode one block of the rows with hidden places in it; `which` is the segment's and its number, its span."""
        segment_index, number, (start, stop) = which
        places = progress.places.window(start, stop)
        hidden = (self.canvas.ids.gather(1, places.columns) == self.mask_id) & places.is_valid
        num_masked = hidden.sum(dim=1).tolist()
        live = tuple(row for row, count in enumerate(num_masked) if count)
        if not live:
            return
        if segment.policy.compat == "published":
            start = 0  # places that earlier blocks left hidden compete with this one
        num_own = stop - start
        if segment.policy.ahead is not None and segment.policy.block_len is not None:
            stop += segment.policy.ahead.num_blocks * segment.policy.block_len
            stop = min(stop, progress.places.columns.shape[1])
        where = Where(keys=live, segment_index=segment_index, number=number, span=(start, stop), num_own=num_own)
        masked, allotted = zip(*((num_masked[row], steps[row]) for row in live), strict=True)
        plan = plan_block(masked, allotted, segment, self.mask_id, self.canvas.ids.device)
        block = self._open(segment, progress, plan, where)
        rows = torch.tensor(live, device=self.canvas.ids.device)
        for index in range(plan.num_steps):
            outcome = yield from block.step(index)
            if outcome is None:
                break
            self.num_forwards += 1
            if self.observer is not None:
                _absorb(self, progress, block, rows)
                self.observer(self._snapshot(progress, block, outcome, rows))
        block.require_finite()
        _absorb(self, progress, block, rows)
        _fill_stopped(self, progress, stop)

    def _open(self, segment: Segment, progress: _Progress, plan: Plan, where: Where) -> Block:
        """The block of the live rows, as copies of the state."""
        canvas = self.canvas
        rows = torch.tensor(where.keys, device=canvas.ids.device)
        places = progress.places.window(*where.span)
        part = Places(places.columns[rows], places.is_valid[rows])
        live_canvas = Canvas(
            ids=canvas.ids[rows],
            attend=None if canvas.attend is None else canvas.attend[rows],
            uncond_ids=None if canvas.uncond_ids is None else canvas.uncond_ids[rows],
            uncond_attend=None if canvas.uncond_attend is None else canvas.uncond_attend[rows],
        )
        return Block(
            where=where,
            mask_id=self.mask_id,
            segment=segment,
            canvas=live_canvas,
            is_any_target=torch.stack(self.is_target).any(dim=0)[rows],
            places=part,
            plan=plan,
            record=Record(*(part[rows, slice(*where.span)] for part in progress.record.parts())),
            draws=self.noise.rows(where.keys).begin(len(live_canvas.ids), canvas.ids.device)
            if segment.policy.is_random
            else None,
            is_stopped=progress.is_stopped[rows],
            stop_id=progress.stop_id[rows],
            window=live_canvas.ids.gather(1, part.columns),
        )

    def _snapshot(self, progress: _Progress, block: Block, outcome: Outcome, rows: Tensor) -> Step:
        """The segment as it is now, on the CPU."""
        places = progress.places
        ids = self.canvas.ids.gather(1, places.columns).masked_fill(~places.is_valid, self.mask_id)
        changed = [torch.zeros_like(places.is_valid) for _ in range(2)]
        for whole, part in zip(changed, (outcome.is_committed, outcome.is_remasked), strict=True):
            whole[rows, slice(*block.where.span)] = part
        return Step(
            index=self.num_forwards - 1,
            segment=block.segment.name,
            block=block.where.number,
            ids=ids.cpu(),
            is_committed=changed[0].cpu(),
            is_remasked=changed[1].cpu(),
            prob=progress.record.prob.cpu(),
        )


def _check(canvas: Canvas, segments: Sequence[Segment], mask_id: int) -> None:
    """Refuse what cannot be decoded."""
    for other in (canvas.attend, canvas.uncond_ids, canvas.uncond_attend, *(item.is_target for item in segments)):
        if other is not None and other.shape != canvas.ids.shape:
            raise RequestError(f"ids are {tuple(canvas.ids.shape)}, but a companion is {tuple(other.shape)}; pad both")
    for segment in segments:
        policy, allowed = segment.policy, segment.allowed_ids
        if policy.guidance_scale > 0 and canvas.uncond_ids is None:
            raise RequestError(
                f"segment {segment.name!r} has guidance_scale {policy.guidance_scale}, but the canvas has no "
                "uncond_ids; pass them, or set guidance_scale to 0"
            )
        if policy.order is not None:
            _check_grid(segment)
        if policy.compat == "published":
            continue
        if allowed is None:
            raise RequestError(f"segment {segment.name!r} allows every id, the mask id too; name the allowed ids")
        if bool((allowed == mask_id).any()):
            raise RequestError(f"segment {segment.name!r} allows the mask id {mask_id}; leave it out")


def _check_grid(segment: Segment) -> None:
    """Refuse an order of places that lie in no grid, or in another."""
    counts = segment.is_target.sum(dim=1)
    wanted = prod(segment.grid or (0,))
    if segment.grid is None or bool(((counts != wanted) & (counts > 0)).any()):
        raise RequestError(
            f"segment {segment.name!r} has order {segment.policy.order!r} and grid {segment.grid}, but "
            f"{counts.tolist()} places; give a grid of as many cells in every row, or set order to None"
        )


def _absorb(state: _Run, progress: _Progress, block: Block, rows: Tensor) -> None:
    """Write a block's rows back."""
    state.canvas.ids[rows] = block.canvas.ids
    progress.is_stopped[rows] = block.is_stopped
    progress.stop_id[rows] = block.stop_id
    for whole, part in zip(progress.record.parts(), block.record.parts(), strict=True):
        whole[rows, slice(*block.where.span)] = part


def _fill_stopped(state: _Run, progress: _Progress, start: int) -> None:
    """Fill the places from ordinal `start` on of rows that have stopped with the id that stopped them."""
    rest = progress.places.window(start, progress.places.columns.shape[1])
    ids = state.canvas.ids.gather(1, rest.columns)
    filled = torch.where(progress.is_stopped[:, None] & rest.is_valid, progress.stop_id[:, None], ids)
    state.canvas.ids.scatter_(1, rest.columns, filled)


def _widen(values: Tensor, extra: int) -> Tensor:
    """Columns of zeros on the right."""
    return torch.nn.functional.pad(values, (0, extra))
