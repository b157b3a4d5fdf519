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
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dynin.decoding.block import Block, Outcome, Plan, Record, plan_block
from dynin.decoding.canvas import Canvas, Places, Segment, grow, locate
from dynin.decoding.score import Noise
from dynin.decoding.trace import Step
from dynin.errors import RequestError

FinishReason = Literal["stop", "length"]


@runtime_checkable
class Denoiser(Protocol):
    """The only thing the decoder knows of a network."""

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
class _Run:
    """What changes while a request is decoded."""

    canvas: Canvas
    is_target: tuple[Tensor, ...]
    noise: Noise
    observer: Callable[[Step], None] | None
    num_forwards: int = 0


@dataclass(slots=True, eq=False)
class _Progress:
    """What changes while a segment is decoded."""

    places: Places
    record: Record
    is_stopped: Bool[Tensor, " B"]
    stop_id: Int[Tensor, " B"]


class ParallelDecoder:
    """Fills hidden places with what a denoiser predicts."""

    def __init__(self, denoiser: Denoiser, mask_id: int) -> None:
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
        """Complete the canvas; segments are decoded in their order, each seeing those before it.

        Ids that are no target never change. The canvas passed in is left as it was.

        Args:
            generator: One for the batch, or one per row, which makes a row's draws independent of its neighbours.
                Greedy policies need none.
            observer: Called after every step, for traces and for text shown as it appears.

        Raises:
            RequestError: If a segment allows the mask id, guidance lacks unconditional ids, or shapes disagree.
        """
        self._check(canvas, segments)
        state = _Run(
            canvas=replace(canvas, ids=canvas.ids.clone()),
            is_target=tuple(segment.is_target for segment in segments),
            noise=Noise(generator),
            observer=observer,
        )
        needs_length = torch.zeros(len(canvas.ids), dtype=torch.bool, device=canvas.ids.device)
        for index, segment in enumerate(segments):
            is_stopped = self._decode_segment(state, index, segment)
            if segment.stop_ids:
                needs_length |= ~is_stopped
        return Decoded(
            ids=state.canvas.ids,
            attend=state.canvas.attend,
            is_target={segment.name: mask for segment, mask in zip(segments, state.is_target, strict=True)},
            finish_reasons=tuple("length" if cut else "stop" for cut in needs_length.tolist()),
            num_forwards=state.num_forwards,
            stop_ids={segment.name: segment.stop_ids for segment in segments},
        )

    def _decode_segment(self, state: _Run, index: int, segment: Segment) -> Bool[Tensor, " B"]:
        """Decode the blocks of one segment; which rows met a stop id."""
        policy = segment.policy
        places = locate(state.is_target[index])
        counts = places.is_valid.sum(dim=1).tolist()
        limits = [max(count, policy.max_len or 0) if count else 0 for count in counts]
        steps = [policy.block_steps(limit) for limit in limits]
        given = state.canvas.ids.gather(1, places.columns) != self.mask_id
        progress = _Progress(
            places=places,
            record=Record(
                given.float(),
                torch.zeros_like(places.columns),
                torch.zeros_like(places.columns),
                torch.zeros_like(given),
            ),
            is_stopped=torch.zeros_like(state.canvas.ids[:, 0], dtype=torch.bool),
            stop_id=torch.zeros_like(state.canvas.ids[:, 0]),
        )
        number = 0
        while True:
            if policy.max_len is not None:
                self._grow(state, index, progress, number, segment)
            width = progress.places.columns.shape[1]
            block_len = policy.block_len or max(width, 1)
            start = number * block_len
            if start >= width:
                return progress.is_stopped
            self._decode_block(state, segment, progress, (number, start, min(start + block_len, width)), steps)
            number += 1

    def _grow(self, state: _Run, index: int, progress: _Progress, number: int, segment: Segment) -> None:
        """Complete block `number` of the rows that have not stopped, by new hidden places."""
        policy = segment.policy
        assert policy.block_len is not None
        assert policy.max_len is not None
        counts = progress.places.is_valid.sum(dim=1)
        wanted = min((number + 1) * policy.block_len, policy.max_len)
        num_new = (wanted - counts).clamp_min(0) * (counts > 0) * ~progress.is_stopped
        if not bool(num_new.any()):
            return
        state.canvas, state.is_target = grow(state.canvas, state.is_target, index, num_new, self.mask_id)
        progress.places = locate(state.is_target[index])
        added = progress.places.columns.shape[1] - progress.record.prob.shape[1]
        progress.record = Record(*(_widen(part, added) for part in progress.record.parts()))

    def _decode_block(
        self, state: _Run, segment: Segment, progress: _Progress, where: tuple[int, int, int], steps: Sequence[int]
    ) -> None:
        """Decode one block of the rows that have hidden places in it; `where` is its number, start and stop."""
        number, start, stop = where
        places = progress.places.window(start, stop)
        hidden = (state.canvas.ids.gather(1, places.columns) == self.mask_id) & places.is_valid
        num_masked = hidden.sum(dim=1).tolist()
        live = [row for row, count in enumerate(num_masked) if count]
        if not live:
            return
        if segment.policy.compat == "published":
            start = 0  # places that earlier blocks left hidden compete with this one
        plan = plan_block(
            [num_masked[row] for row in live], [steps[row] for row in live], segment, state.canvas.ids.device
        )
        block = self._open(state, segment, progress, (live, plan), (start, stop))
        rows = torch.tensor(live, device=state.canvas.ids.device)
        for index in range(block.plan.num_steps):
            outcome = block.step(index)
            if outcome is None:
                break
            state.num_forwards += 1
            if state.observer is not None:
                _absorb(state, progress, block, rows, (start, stop))
                state.observer(self._snapshot(state, progress, (segment.name, number, start), outcome, rows))
        _absorb(state, progress, block, rows, (start, stop))
        _fill_stopped(state, progress, stop)

    def _open(
        self,
        state: _Run,
        segment: Segment,
        progress: _Progress,
        planned: tuple[Sequence[int], Plan],
        span: tuple[int, int],
    ) -> Block:
        """The block of the live rows, as copies of the state; `planned` is those rows and their plan."""
        live, plan = planned
        canvas = state.canvas
        rows = torch.tensor(live, device=canvas.ids.device)
        places = progress.places.window(*span)
        part = Places(places.columns[rows], places.is_valid[rows])
        live_canvas = Canvas(
            ids=canvas.ids[rows],
            attend=None if canvas.attend is None else canvas.attend[rows],
            uncond_ids=None if canvas.uncond_ids is None else canvas.uncond_ids[rows],
            uncond_attend=None if canvas.uncond_attend is None else canvas.uncond_attend[rows],
        )
        return Block(
            denoiser=self.denoiser,
            mask_id=self.mask_id,
            segment=segment,
            canvas=live_canvas,
            is_any_target=torch.stack(state.is_target).any(dim=0)[rows],
            places=part,
            plan=plan,
            record=Record(*(part[rows, slice(*span)] for part in progress.record.parts())),
            noise=state.noise.rows(live),
            is_stopped=progress.is_stopped[rows],
            stop_id=progress.stop_id[rows],
            window=live_canvas.ids.gather(1, part.columns),
        )

    def _snapshot(
        self, state: _Run, progress: _Progress, block: tuple[str, int, int], outcome: Outcome, rows: Tensor
    ) -> Step:
        """The segment as it is now, on the CPU; `block` is the segment's name, the block's number and start."""
        name, number, start = block
        places = progress.places
        ids = state.canvas.ids.gather(1, places.columns).masked_fill(~places.is_valid, self.mask_id)
        changed = [torch.zeros_like(places.is_valid) for _ in range(2)]
        for whole, part in zip(changed, (outcome.is_committed, outcome.is_remasked), strict=True):
            whole[rows, start : start + part.shape[1]] = part
        return Step(
            index=state.num_forwards - 1,
            segment=name,
            block=number,
            ids=ids.cpu(),
            is_committed=changed[0].cpu(),
            is_remasked=changed[1].cpu(),
            prob=progress.record.prob.cpu(),
        )

    def _check(self, canvas: Canvas, segments: Sequence[Segment]) -> None:
        """Refuse what cannot be decoded."""
        for other in (canvas.attend, canvas.uncond_ids, canvas.uncond_attend, *(item.is_target for item in segments)):
            if other is not None and other.shape != canvas.ids.shape:
                raise RequestError(
                    f"ids are {tuple(canvas.ids.shape)}, but a companion is {tuple(other.shape)}; pad both"
                )
        for segment in segments:
            policy, allowed = segment.policy, segment.allowed_ids
            if policy.guidance_scale > 0 and canvas.uncond_ids is None:
                raise RequestError(
                    f"segment {segment.name!r} has guidance_scale {policy.guidance_scale}, but the canvas has no "
                    "uncond_ids; pass them, or set guidance_scale to 0"
                )
            if policy.compat == "published":
                continue
            if allowed is None:
                raise RequestError(f"segment {segment.name!r} allows every id, the mask id too; name the allowed ids")
            if bool((allowed == self.mask_id).any()):
                raise RequestError(f"segment {segment.name!r} allows the mask id {self.mask_id}; leave it out")


def _absorb(state: _Run, progress: _Progress, block: Block, rows: Tensor, span: tuple[int, int]) -> None:
    """Write a block's rows back."""
    state.canvas.ids[rows] = block.canvas.ids
    progress.is_stopped[rows] = block.is_stopped
    progress.stop_id[rows] = block.stop_id
    for whole, part in zip(progress.record.parts(), block.record.parts(), strict=True):
        whole[rows, slice(*span)] = part


def _fill_stopped(state: _Run, progress: _Progress, start: int) -> None:
    """Fill the places from ordinal `start` on of rows that have stopped with the id that stopped them."""
    rest = progress.places.window(start, progress.places.columns.shape[1])
    ids = state.canvas.ids.gather(1, rest.columns)
    filled = torch.where(progress.is_stopped[:, None] & rest.is_valid, progress.stop_id[:, None], ids)
    state.canvas.ids.scatter_(1, rest.columns, filled)


def _widen(values: Tensor, extra: int) -> Tensor:
    """Columns of zeros on the right."""
    return torch.nn.functional.pad(values, (0, extra))
