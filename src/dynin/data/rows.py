"""Examples to training rows: tokenize the media, lay out the sequence, cut flexible canvases into blocks.

Enters: `Example` values. Leaves: `Sequence` rows whose targets are known. Does not know where examples come from or
how rows are corrupted.

A target of flexible length (text, speech) is decoded block by block, on a canvas that ends with the current block.
Training shows the same sight: earlier blocks are given, one block is hidden, later ones are not there. The other half
of the rows keeps the whole canvas, so that every block is learned from every row.
"""

from collections.abc import Mapping
from collections.abc import Sequence as Rows
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dynin.data.example import Example
from dynin.errors import RequestError
from dynin.media.audio import Audio
from dynin.media.video import Video
from dynin.sequence.layout import Assembler, Sequence, Value
from dynin.sequence.task import Task
from dynin.tokenizers.protocol import SpeechTokenizer
from dynin.types import Modality


@runtime_checkable
class PictureEncoder(Protocol):
    """What making rows asks of a tokenizer of pictures."""

    def encode(self, pixels: Float[Tensor, "B 3 Y X"]) -> Int[Tensor, "B N"]:
        """Pictures in [-1, 1], sides in pixels, to codes in raster order."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class RowMaker:
    """Makes rows of one vocabulary with one set of tokenizers."""

    assembler: Assembler
    tasks: Mapping[str, Task]
    image: PictureEncoder
    """A tokenizer of pictures, or a `PatchMemo` of one where many pictures are made of the same patches."""
    speech: SpeechTokenizer | None = None
    """None where every sound comes as codes already."""
    whole_prob: float = 0.5
    """Share of rows with the whole canvas of a flexible target; the others are cut to one of its blocks."""

    def rows(self, examples: Rows[Example], generator: np.random.Generator, *, drop_prob: float) -> list[Sequence]:
        """Training rows of examples of any tasks.

        Args:
            drop_prob: Share of rows whose condition is emptied, so that guidance has an unconditional branch.
        """
        codes = self._encode_pictures(examples)
        return [self._row(example, codes, generator, drop_prob) for example in examples]

    def _row(
        self, example: Example, codes: Mapping[int, Tensor], generator: np.random.Generator, drop_prob: float
    ) -> Sequence:
        task = self.tasks[example.task]
        given = {modality: self._value(value, codes) for modality, value in example.condition.items()}
        made = {modality: self._value(value, codes) for modality, value in example.target.items()}
        row = self.assembler.assemble(task, given, made, self._canvas_lengths(task, made))
        row = replace(row, name=example.name)
        if generator.random() < drop_prob:
            row = replace(row, ids=self.assembler.unconditional(row))
        return row if generator.random() < self.whole_prob else cut_to_block(row, generator)

    def _canvas_lengths(self, task: Task, made: Mapping[Modality, Value]) -> dict[str, int]:
        """The whole number of blocks that hold each flexible target and its end token."""
        lengths: dict[str, int] = {}
        for modality in task.targets:
            block = task.lengths[modality]
            value = made[modality]
            count = len(self.assembler.encode_text(value)) if isinstance(value, str) else len(value)
            lengths[modality] = -(-(count + 1) // block) * block if task.ends.get(modality) else count
        return lengths

    def _value(self, value: object, codes: Mapping[int, Tensor]) -> Value:
        """Text as it is; pictures and videos by the codes made for the whole batch; sounds here, or codes as given."""
        if isinstance(value, str):
            return value
        if id(value) in codes:
            return codes[id(value)]
        if isinstance(value, Tensor) and value.ndim == 1:
            return value
        if isinstance(value, Audio) and self.speech is not None:
            return self.speech.encode(value)
        raise RequestError(f"cannot make codes of {type(value).__name__}; sounds need a speech tokenizer or codes")

    def _encode_pictures(self, examples: Rows[Example]) -> dict[int, Int[Tensor, " N"]]:
        """Codes of every picture and video of a batch in one call, by the identity of the value."""
        values = [
            value for example in examples for side in (example.condition, example.target) for value in side.values()
        ]
        frames = {id(value): _frames(value) for value in values if _frames(value) is not None}
        if not frames:
            return {}
        stacked = [value for value in frames.values() if value is not None]
        if len({value.shape[1:] for value in stacked}) > 1:  # pictures of several sizes
            return {key: self.image.encode(value).flatten() for key, value in frames.items() if value is not None}
        device_codes = self.image.encode(torch.cat(stacked))
        counts = [len(value) for value in frames.values() if value is not None]
        return {key: part.flatten() for key, part in zip(frames, device_codes.split(counts), strict=True)}


def cut_to_block(row: Sequence, generator: np.random.Generator) -> Sequence:
    """Keep the row up to a random block of its last target; only that block stays a target.

    Rows whose last target has a fixed length are returned as they are.
    """
    span = row.spans[-1]
    if not (span.is_target and row.task.ends.get(span.modality)):
        return row
    block = row.task.lengths[span.modality]
    chosen = int(generator.integers((span.stop - span.start) // block))
    start = span.start + chosen * block
    stop = start + block
    is_target = row.is_target[:stop].clone()
    is_target[span.start : start] = False
    return replace(
        row,
        ids=row.ids[:stop],
        is_target=is_target,
        attend=row.attend[:stop],
        spans=(*row.spans[:-1], replace(span, stop=stop)),
    )


def _frames(value: object) -> Tensor | None:
    """The pictures of a value, (T, 3, Y, X), or None for text and sound."""
    if isinstance(value, Video):
        return value.frames
    if isinstance(value, Tensor) and value.ndim == 3:
        return value[None]
    return None
