"""Requests on their way: what each has become, and the canvas on which some of them are decoded together.

Enters: requests that were read, routed, encoded and laid out. Leaves: a canvas, its segments, and a source of random
numbers for each row. Does not know how requests are read, nor networks.
"""

from collections.abc import Mapping
from collections.abc import Sequence as Rows
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from dynin.decoding.canvas import Canvas, Segment
from dynin.decoding.policy import DecodingPolicy
from dynin.pipeline.policies import grid_of
from dynin.pipeline.redo import Redo
from dynin.pipeline.request import Request
from dynin.sequence.batch import MODALITIES, Batch, stack
from dynin.sequence.layout import Assembler, Sequence
from dynin.sequence.task import Task
from dynin.tokenizers.bundle import Tokenizers, Value
from dynin.types import Modality
from dynin.vocabulary import Vocabulary


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Job:
    """A request on its way."""

    request: Request
    sequence: Sequence
    policies: Mapping[Modality, DecodingPolicy]
    redo: Redo | None = None
    original: Value | None = None
    """What a redo corrects."""

    @property
    def task(self) -> Task:
        """The row of the table."""
        return self.sequence.task


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """What a decoding is given."""

    canvas: Canvas
    segments: list[Segment]
    generators: list[torch.Generator]
    """One for each row, where noise is wanted."""


class Easel:
    """Puts jobs on canvases."""

    def __init__(self, vocabulary: Vocabulary, tokenizers: Tokenizers, device: torch.device) -> None:
        """Keep what ids mean and where they are to be."""
        self._vocabulary = vocabulary
        self._tokenizers = tokenizers
        self._device = device
        self._allowed: dict[tuple[str, ...], Tensor] = {}

    def lay(self, jobs: Rows[Job]) -> Work:
        """The canvas of jobs of one task."""
        batch = stack([job.sequence for job in jobs], pad_id=self._vocabulary.pad_id).to(self._device)
        guided = [policy for job in jobs for policy in job.policies.values() if policy.guidance_scale > 0]
        uncond_ids = self._unconditional(jobs).to(self._device) if guided else None
        uncond_attend = None
        if uncond_ids is not None and any(policy.guidance_omits for policy in guided):
            uncond_attend = batch.attend & (uncond_ids == batch.ids)
        return Work(
            canvas=Canvas(
                ids=batch.ids,
                attend=None if bool(batch.attend.all()) else batch.attend,
                uncond_ids=uncond_ids,
                uncond_attend=uncond_attend,
            ),
            segments=[self._segment(jobs, batch, modality) for modality in jobs[0].task.targets],
            generators=[torch.Generator(self._device).manual_seed(job.request.seed) for job in jobs],
        )

    def _segment(self, jobs: Rows[Job], batch: Batch, modality: Modality) -> Segment:
        """One target of all rows."""
        ends = () if jobs[0].redo else jobs[0].task.ends.get(modality, ())
        lengths = [job.policies[modality].max_len or 0 for job in jobs]
        policy = jobs[lengths.index(min(lengths))].policies[modality]
        is_target = batch.is_target & (batch.kind == MODALITIES.index(modality))
        return Segment(
            name=str(modality),
            is_target=is_target,
            grid=grid_of(modality, int(is_target[0].sum()), self._tokenizers.video.num_frames),
            allowed_ids=self._allowed_ids(modality, *ends),
            policy=policy,
            stop_ids=tuple(self._vocabulary[name] for name in ends),
        )

    def _allowed_ids(self, modality: Modality, *ends: str) -> Int[Tensor, " A"]:
        """The ids that a target may take: those its tokenizer can decode, and its end tokens; one tensor for all."""
        known = self._allowed.get((modality, *ends))
        if known is None:
            ids = self._vocabulary.allowed_ids(modality, *ends)
            span = self._vocabulary.range_of(modality)
            is_spare = (ids >= span.start + self._tokenizers.codebook_size(modality)) & (ids < span.stop)
            known = self._allowed[modality, *ends] = ids[~is_spare].to(self._device)
        return known

    def _unconditional(self, jobs: Rows[Job]) -> Int[Tensor, "B S"]:
        """The rows without what guidance strengthens."""
        assembler = Assembler(vocabulary=self._vocabulary, encode_text=self._tokenizers.text.encode)
        rows = [replace(job.sequence, ids=assembler.unconditional(job.sequence)) for job in jobs]
        return stack(rows, pad_id=self._vocabulary.pad_id).ids
