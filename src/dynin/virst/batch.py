"""Sentences about videos as one batch: what the backbone sees, what the mask branch sees, the true masks.

Enters: `ReferringExample` values, or conversations about videos; sizes. Leaves: a `Batch`, or a `TextBatch`. Does not
know networks, or where examples come from. Every frame that is seen is read once, however many sentences are about its
video.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dynin.data.referring.example import ReferringExample
from dynin.data.referring.instruct import Conversation
from dynin.errors import DataError
from dynin.media.image import from_levels
from dynin.virst.backbone.protocol import Clips, Sentences
from dynin.virst.config import FrameConfig, FusionConfig
from dynin.virst.frames import Fit, choose, choose_seg, times_of

Shown = ReferringExample | Conversation
"""What has frames."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """What the parts of a VIRST take, and how frames are chosen for them."""

    frame_px: int
    """Side of the backbone's frames."""
    canvas: tuple[int, int]
    """Rows and columns of the mask branch's frames."""
    frames: FrameConfig
    time_unit: str
    """See `FusionConfig.time_unit`."""

    @classmethod
    def of(cls, frame_px: int, canvas: tuple[int, int], frames: FrameConfig, fusion: FusionConfig) -> "Sizes":
        """From the settings of a VIRST and what its parts say."""
        return cls(frame_px=frame_px, canvas=canvas, frames=frames, time_unit=fusion.time_unit)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Batch:
    """V videos of up to T seen frames, R sentences about them."""

    clips: Clips
    canvases: Float[Tensor, "V T 3 rows columns"]
    """The frames that the mask branch sees, in [-1, 1]."""
    is_seen: Bool[Tensor, "V T"]
    """Which of them there are; those of a video come first."""
    times: Float[Tensor, "V T"]
    """When they are; see `FusionConfig.time_unit`."""
    frames: tuple[tuple[int, ...], ...]
    """Which frames of its video each video's canvases are."""
    sentences: Sentences
    masks: Bool[Tensor, "R T rows columns"] | None = None
    """What each sentence means in each canvas; None where that is not known."""
    names: tuple[str, ...] = ()
    """Video and sentence of each row, for messages."""

    def to(self, device: torch.device | str) -> "Batch":
        """The same on another device."""
        clips = self.clips.to(device)
        moved = {name: getattr(self, name).to(device) for name in ("canvases", "is_seen", "times")}
        masks = None if self.masks is None else self.masks.to(device)
        return replace(self, clips=clips, masks=masks, **moved)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TextBatch:
    """Questions about videos with their answers; nothing is segmented."""

    clips: Clips
    sentences: Sentences
    names: tuple[str, ...]
    """Of the videos, for messages."""

    def to(self, device: torch.device | str) -> "TextBatch":
        """The same on another device."""
        return replace(self, clips=self.clips.to(device))


def make_batch(
    videos: Sequence[Sequence[ReferringExample]],
    sizes: Sizes,
    generator: torch.Generator | None = None,
    *,
    with_masks: bool = True,
) -> Batch:
    """A batch of some sentences of some videos.

    Args:
        videos: The sentences of each video, at least one, all with the frames of the first.
        generator: Where frames are drawn.
        with_masks: Read the true masks too.

    Raises:
        DataError: If a mask is wanted that is not public, or a frame or mask has another size than its video.
        RequestError: If frames are drawn without a generator.
    """
    clips, canvases, masks, frames, times = [], [], [], [], []
    for sentences in videos:
        first = sentences[0]
        chosen = choose(len(first), sizes.frames, generator)
        places = choose_seg(len(chosen), sizes.frames, generator)
        seen = [chosen[place] for place in places]
        whole = _read_frames(first, chosen)
        clips.append(_fit(first, (sizes.frame_px, sizes.frame_px), sizes).place(whole))
        fit = _fit(first, sizes.canvas, sizes)
        canvases.append(fit.place(whole[places]))
        frames.append(tuple(seen))
        times.append(torch.tensor(times_of(seen, first.rate_hz if sizes.time_unit == "seconds" else None)))
        if with_masks:
            masks += [fit.place_masks(torch.stack([_read_mask(each, index) for index in seen])) for each in sentences]
    rows = [(each, video) for video, sentences in enumerate(videos) for each in sentences]
    padded_clips, is_frame = _padded(clips)
    padded_canvases, is_seen = _padded(canvases)
    return Batch(
        clips=Clips(frames=padded_clips, is_frame=is_frame),
        canvases=padded_canvases,
        is_seen=is_seen,
        times=_padded(times)[0],
        frames=tuple(frames),
        sentences=Sentences(texts=tuple(each.sentence for each, _ in rows), videos=tuple(video for _, video in rows)),
        masks=_padded(masks)[0] if with_masks else None,
        names=tuple(f"{each.video}/{each.sentence_id}" for each, _ in rows),
    )


def make_text_batch(
    asked: Sequence[tuple[Conversation, int]], sizes: Sizes, generator: torch.Generator | None = None
) -> TextBatch:
    """A batch of questions of conversations, each with the number of its question; arguments and errors as above."""
    clips = []
    for conversation, _ in asked:
        chosen = choose(len(conversation.frame_names), sizes.frames, generator)
        fit = _fit(conversation, (sizes.frame_px, sizes.frame_px), sizes)
        clips.append(fit.place(_read_frames(conversation, chosen)))
    frames, is_frame = _padded(clips)
    pairs = [conversation.pairs[number] for conversation, number in asked]
    return TextBatch(
        clips=Clips(frames=frames, is_frame=is_frame),
        sentences=Sentences(
            texts=tuple(question for question, _ in pairs),
            videos=tuple(range(len(asked))),
            answers=tuple(answer for _, answer in pairs),
        ),
        names=tuple(conversation.video for conversation, _ in asked),
    )


def _fit(example: Shown, canvas: tuple[int, int], sizes: Sizes) -> Fit:
    return Fit(
        height=example.height,
        width=example.width,
        rows=canvas[0],
        columns=canvas[1],
        keeps_aspect=sizes.frames.keeps_aspect,
    )


def _read_frames(example: Shown, chosen: Sequence[int]) -> Float[Tensor, "T 3 Y X"]:
    """Frames in [-1, 1], each read once."""
    pixels = {}
    for index in sorted(set(chosen)):
        levels = example.read_frame(index)
        _require_size(example, index, levels, "frame")
        pixels[index] = from_levels(levels)
    return torch.stack([pixels[index] for index in chosen])


def _read_mask(example: ReferringExample, index: int) -> Bool[Tensor, "Y X"]:
    if example.read_mask is None:
        raise DataError(
            f"the masks of {example.video}/{example.sentence_id} are not public; use examples with masks, or ask for "
            "a batch without them"
        )
    mask = example.read_mask(index)
    _require_size(example, index, mask, "mask")
    return torch.from_numpy(np.ascontiguousarray(mask))


def _require_size(example: Shown, index: int, values: np.ndarray, what: str) -> None:
    height, width = values.shape[:2]
    if (height, width) != (example.height, example.width):
        raise DataError(
            f"{what} {example.frame_names[index]} of {example.video} has {width} x {height} px, its video "
            f"{example.width} x {example.height}; correct the file or the annotation"
        )


def _padded(values: Sequence[Tensor]) -> tuple[Tensor, Bool[Tensor, "V T"]]:
    """Tensors of different first lengths as one, and where they have content."""
    longest = max(len(value) for value in values)
    whole = values[0].new_zeros(len(values), longest, *values[0].shape[1:])
    is_there = torch.zeros(len(values), longest, dtype=torch.bool)
    for row, value in enumerate(values):
        whole[row, : len(value)], is_there[row, : len(value)] = value, True
    return whole, is_there
