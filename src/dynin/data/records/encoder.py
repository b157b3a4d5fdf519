"""What rows must fit: a model's tasks, tokenizers and length.

Enters: bytes of a declared modality, drafts. Leaves: values of the size that is encoded, codes, findings about rows
that are too long. Does not know where bytes come from or where codes are kept.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from dynin.data.example import Example
from dynin.data.records.draft import Draft
from dynin.data.records.fault import WHOLE, Finding, Place
from dynin.data.rows import RowMaker
from dynin.media import audio, image, video
from dynin.media.audio import require_sound, resample
from dynin.media.video import Video
from dynin.sequence.layout import Assembler, Sequence
from dynin.sequence.task import Task
from dynin.tokenizers.bundle import Tokenizers, Value
from dynin.types import Modality
from dynin.vocabulary import Vocabulary

TEXT, IMAGE, VIDEO, SPEECH = Modality.TEXT, Modality.IMAGE, Modality.VIDEO, Modality.SPEECH

Codes = Mapping[Modality, Tensor]
"""Codes of the media of one side of a row."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RowEncoder:
    """One model's side of own data; holds no network but the tokenizers."""

    tasks: Mapping[str, Task]
    vocabulary: Vocabulary
    tokenizers: Tokenizers
    max_len: int
    """Positions of the longest row that the model takes."""
    _prints: dict[str, str] = field(default_factory=dict, init=False)

    # ---- media ------------------------------------------------------------------------------------------------------

    def prepare(self, modality: Modality, data: bytes, name: str, size_px: int) -> Value:
        """Bytes as exactly what is encoded: a square picture, so many square frames, a sound at the tokenizer's rate.

        Raises:
            MediaError: If the bytes are no such medium, are damaged, silent, or over the limits.
        """
        match modality:
            case Modality.IMAGE:
                return self.tokenizers.fit(image.decode(data, name), size_px)
            case Modality.VIDEO:
                read = video.decode(data, name, self.tokenizers.video.num_frames)
                frames = [self.tokenizers.fit(frame, size_px) for frame in read.frames]
                return Video(frames=torch.stack(frames), rate_hz=read.rate_hz)
            case _:
                sound = require_sound(audio.decode(data, name), name)
                return resample(sound, self.tokenizers.speech.input_rate_hz)

    def encode(self, modality: Modality, value: Value, size_px: int) -> Int[Tensor, " N"]:
        """The codes of a value that was prepared."""
        codes = self.tokenizers.encode(modality, value, size_px or None)
        assert isinstance(codes, Tensor)
        return codes

    def num_codes(self, modality: Modality, value: Value, size_px: int) -> int:
        """How many codes a prepared value has, without the tokenizer; of sounds by their duration, rounded up."""
        if isinstance(value, Tensor | Video):
            rows, columns = self.tokenizers.image.grid(size_px, size_px)
            return rows * columns * (self.tokenizers.video.num_frames if modality == VIDEO else 1)
        assert not isinstance(value, str)
        return math.ceil(round(value.duration_s * self.tokenizers.speech.frame_rate_hz, 6))

    def size_px(self, task: Task, modality: Modality, *, is_target: bool) -> int:
        """The side in pixels that a task's picture or frames are cut to; 0 for sounds."""
        if modality not in (IMAGE, VIDEO):
            return 0
        if not is_target:
            return task.given_px or self.tokenizers.image.image_size
        num_frames = self.tokenizers.video.num_frames if modality == VIDEO else 1
        cells = math.isqrt(task.lengths[modality] // num_frames)
        return cells * self.tokenizers.image.downsample

    # ---- rows -------------------------------------------------------------------------------------------------------

    def example(self, draft: Draft, given: Codes, made: Codes, place: Place | None = None) -> Example:
        """A draft with the codes of its media in place of paths; messages call it by its place."""
        return Example(
            task=draft.task.name,
            condition={key: given.get(key, part.value) for key, part in draft.condition.items()},
            target={key: made.get(key, part.value) for key, part in draft.target.items()},
            truth=place,
            name="" if place is None else str(place),
        )

    def maker(self, whole_prob: float = 1.0) -> RowMaker:
        """What turns the examples into training rows."""
        return RowMaker(
            assembler=Assembler(vocabulary=self.vocabulary, encode_text=self.tokenizers.text.encode),
            tasks=self.tasks,
            image=self.tokenizers.image,
            speech=self.tokenizers.speech,
            whole_prob=whole_prob,
        )

    def measure(self, draft: Draft, example: Example) -> int | Finding:
        """The positions of the whole row, or what in it is too long: for the model, or for the task's prompt."""
        (row,) = self.maker().rows([example], np.random.default_rng(0), drop_prob=0.0)
        cut = self._cut_text(draft, example, row)
        if cut is not None:
            return cut
        if len(row.ids) <= self.max_len:
            return len(row.ids)
        longest = max(row.spans, key=lambda span: span.stop - span.start)
        parts = draft.target if longest.is_target else draft.condition
        return Finding(
            field=parts[longest.modality].field if longest.modality in parts else WHOLE,
            message=f"makes a row of {len(row.ids)} positions, expected at most the model's length, {self.max_len}; "
            f"this {longest.modality} alone takes {longest.stop - longest.start}; shorten or split it",
        )

    def _cut_text(self, draft: Draft, example: Example, row: Sequence) -> Finding | None:
        """A given text that the layout would cut, since its task keeps the prompt in a block of fixed length."""
        text = example.condition.get(TEXT)
        if not isinstance(text, str):
            return None
        (content,) = (part for part in draft.task.contents() if part.modality == TEXT and not part.is_target)
        told = content.template.format(text) if content.template != "{}" else text
        wanted = len(self.tokenizers.text.encode(told))
        spans = [span for span in row.spans if span.modality == TEXT and not span.is_target]
        kept = sum(span.stop - span.start for span in spans)
        if kept >= wanted:
            return None
        return Finding(
            field=draft.condition[TEXT].field,
            message=f"has {wanted} tokens, expected at most {kept}, as {draft.task.name} keeps for it; shorten it",
        )

    # ---- what codes depend on ---------------------------------------------------------------------------------------

    def made_by(self, modalities: Iterable[Modality]) -> dict[str, str]:
        """What the codes of these modalities depend on: the layout, and hashes of the tokenizers."""
        names = {TEXT: "text", IMAGE: "image", VIDEO: "image", SPEECH: "speech"}
        used = set(modalities)
        found = {"layout": self.vocabulary.name}
        for name in sorted({names[modality] for modality in used}):
            if name not in self._prints:
                self._prints[name] = self.tokenizers.fingerprint(name)
            found[name] = self._prints[name]
        if VIDEO in used:
            found["frames"] = str(self.tokenizers.video.num_frames)
        return found
