"""From prompts of a few frames to a mask of every frame; training and inference go through the same code.

Enters: a mask branch, features of frames, prompt tokens of the anchors. Leaves: `MaskOutput` of every frame, with
gradients into prompts, features and branch. Does not know sentences, pictures, or why a frame is an anchor.

    anchor:       cells without memory --decode(prompts)--> mask --remember--> anchors of the bank
    other frame:  attend( nearest anchors | recent frames | pointers ) --decode()--> mask --remember--> recent frames

Distances in time, and which memory is marked how, follow SAM2: an anchor has the last temporal code wherever it lies, a
frame `r` steps back has code `r`; an anchor that is not among the nearest counts as an ordinary frame while it is
recent; every anchor at or before the frame lends its pointer, attended or not.

All rows of a batch go through the same frames in the same order. Rows with other anchors go in another batch.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from dynin.errors import ConfigError
from dynin.virst.branch.protocol import Choice, FrameFeatures, Gate, MaskBranch, MaskOutput, Memory, Pointed, Recalled

Direction = Literal[1, -1]
"""1 goes forward in time, -1 backward."""
Propagation = Literal["forward", "reached", "nearest"]
"""How masks spread from anchors.

- forward: every anchor first, then one pass from the first frame to the last (published inference);
- reached: one pass in which an anchor is remembered when the pass comes to it, the first one excepted (published
  training): frames see no later anchor but that one;
- nearest: every anchor first, then from each of them in both directions until the next one is nearer.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackerConfig:
    """What a frame may look at, and what counts as its mask."""

    num_attended: int | None = 3
    """Most anchors attended to by a frame (alpha of the paper); None for all of them."""
    num_recent: int | None = None
    """Most recent frames attended to (P of the paper); None for as many as the branch can tell apart."""
    choice: Choice = "single"
    gate: Gate = "hard"
    """Soft in training, where an object score must get gradients."""
    are_pointers_causal: bool = True
    """Whether anchors that lie ahead keep their pointers back, as SAM2 does in evaluation."""
    are_anchors_binary: bool = False
    """Whether masks of anchors are remembered after their threshold, as SAM2 does with clicks in evaluation."""
    is_memory_halved: bool = False
    """Keep memories in bfloat16, as SAM2 does: half the room, numbers of three digits."""

    def __post_init__(self) -> None:
        """ConfigError for numbers below what makes sense."""
        if self.num_attended is not None and self.num_attended < 1:
            raise ConfigError(f"num_attended is {self.num_attended}, expected at least 1 anchor to look at; raise it")
        if self.num_recent is not None and self.num_recent < 0:
            raise ConfigError(f"num_recent is {self.num_recent}, expected 0 or more frames; correct it")


PUBLISHED_TRACKER = TrackerConfig(choice="best")
"""The published evaluation: of three masks the one that is believed to fit best, though training knew a single one."""


def nearest_anchors(anchors: Sequence[int], frame: int, count: int | None) -> list[int]:
    """Which anchors a frame looks at: the nearest before it, the nearest from it on, then the next nearest.

    Where two are equally near, the one named first is taken.

    Source:
        SAM 2, `_select_closest_cond_frames` in `transformers`; VIRST keeps 3.
    """
    if count is None or len(anchors) <= count:
        return list(anchors)
    before = max((anchor for anchor in anchors if anchor < frame), default=None)
    after = min((anchor for anchor in anchors if anchor >= frame), default=None)
    chosen = [anchor for anchor in (before, after) if anchor is not None][:count]
    others = sorted((anchor for anchor in anchors if anchor not in chosen), key=lambda anchor: abs(anchor - frame))
    return chosen + others[: count - len(chosen)]


@dataclass(kw_only=True, slots=True)
class MemoryBank:
    """What is remembered of frames, by their index; it grows until `forget` is called."""

    anchors: dict[int, Memory] = field(default_factory=dict)
    recent: dict[int, Memory] = field(default_factory=dict)
    pointers: dict[int, Float[Tensor, "B D"]] = field(default_factory=dict)
    """Of the frames that are or were `recent`; they reach further back than memories do."""

    def forget(self, frame: int, num_recent: int, max_pointers: int) -> None:
        """Drop what no frame from `frame` on will look at, when time runs forward."""
        self.recent = {at: memory for at, memory in self.recent.items() if at >= frame - num_recent}
        self.pointers = {at: pointer for at, pointer in self.pointers.items() if at > frame - max_pointers}


class Tracker:
    """One object in one video, or a batch of them at the same pace: its memories, and one frame after another."""

    def __init__(self, branch: MaskBranch, config: TrackerConfig, *, max_pointers: int | None = None) -> None:
        """An empty memory.

        Args:
            max_pointers: How far pointers reach; distances are divided by one less. None for as far as the branch says.

        Raises:
            ConfigError: If more recent frames are wanted than the branch can tell apart.
        """
        self.branch = branch
        self.config = config
        self.bank = MemoryBank()
        self.max_pointers = branch.max_pointers if max_pointers is None else max_pointers
        self.num_recent = branch.num_recent if config.num_recent is None else config.num_recent
        if self.num_recent > branch.num_recent:
            raise ConfigError(
                f"num_recent is {self.num_recent}, the mask branch tells {branch.num_recent} recent frames apart; "
                "lower it"
            )

    def prompt(self, features: FrameFeatures, prompts: Float[Tensor, "B N D"]) -> MaskOutput:
        """The mask that prompt tokens alone make of a frame; nothing is remembered."""
        cells = self.branch.without_memory(features)
        return self.branch.decode(cells, features, prompts, choice=self.config.choice, gate=self.config.gate)

    def propagate(self, frame: int, features: FrameFeatures, direction: Direction = 1) -> MaskOutput:
        """The mask that memories make of a frame; nothing is remembered.

        Raises:
            ValueError: If nothing is in the bank that the frame could look at.
        """
        cells = self.look_back(frame, features, direction)
        return self.branch.decode(cells, features, None, choice=self.config.choice, gate=self.config.gate)

    def look_back(self, frame: int, features: FrameFeatures, direction: Direction = 1) -> Float[Tensor, "B D I J"]:
        """Cells for the decoder after a look at what the frame remembers; errors as in `propagate`."""
        recalled, pointers = self._recall(frame, direction)
        if not recalled:
            raise ValueError(f"frame {frame} has no memory to look at; admit an anchor first")
        return self.branch.attend(features, recalled, pointers, max_pointers=self.max_pointers)

    def admit(self, frame: int, features: FrameFeatures, output: MaskOutput) -> None:
        """Remember a frame as an anchor."""
        self.bank.anchors[frame] = self._memory(features, output, is_binary=self.config.are_anchors_binary)

    def keep(self, frame: int, features: FrameFeatures, output: MaskOutput) -> None:
        """Remember a frame as an ordinary one."""
        memory = self._memory(features, output, is_binary=False)
        self.bank.recent[frame] = memory
        self.bank.pointers[frame] = memory.pointer

    def dismiss(self, frame: int) -> None:
        """An anchor is one no more; it counts as an ordinary frame while it is recent."""
        memory = self.bank.anchors.pop(frame)
        self.bank.recent[frame] = memory
        self.bank.pointers[frame] = memory.pointer

    def forget(self, frame: int) -> None:
        """Drop what lies too far back for `frame` and all later ones."""
        self.bank.forget(frame, self.num_recent, self.max_pointers)

    def _memory(self, features: FrameFeatures, output: MaskOutput, *, is_binary: bool) -> Memory:
        memory = self.branch.remember(features, output, gate=self.config.gate, is_binary=is_binary)
        if not self.config.is_memory_halved:
            return memory
        return Memory(cells=memory.cells.to(torch.bfloat16), position=memory.position, pointer=memory.pointer)

    def _recall(self, frame: int, direction: Direction) -> tuple[list[Recalled], list[Pointed]]:
        """Memories and pointers for a frame, oldest recent frame first."""
        bank = self.bank
        attended = nearest_anchors(tuple(bank.anchors), frame, self.config.num_attended)
        recalled = [Recalled(memory=bank.anchors[anchor], steps_back=0) for anchor in attended]
        ordinary = {**{at: bank.anchors[at] for at in bank.anchors if at not in attended}, **bank.recent}
        for steps in range(self.num_recent, 0, -1):
            if (memory := ordinary.get(frame - direction * steps)) is not None:
                recalled.append(Recalled(memory=memory, steps_back=steps))
        pointers = [
            Pointed(pointer=memory.pointer, distance=direction * (frame - anchor))
            for anchor, memory in bank.anchors.items()
            if not self.config.are_pointers_causal or direction * (frame - anchor) >= 0
        ]
        for steps in range(1, self.max_pointers):
            if (pointer := bank.pointers.get(frame - direction * steps)) is not None:
                pointers.append(Pointed(pointer=pointer, distance=steps))
        return recalled, pointers


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One frame of a plan."""

    frame: int
    direction: Direction = 1
    is_anchor: bool = False


def plan(frames: Sequence[int], anchors: Sequence[int], propagation: Propagation = "forward") -> list[Step]:
    """In which order frames get their masks.

    Args:
        frames: Those that want one, ascending; they need not be all of the video.
        anchors: Those that have prompts; at least one, each of `frames`.

    Raises:
        ValueError: If there is no anchor, or one is not among the frames.
    """
    chosen = sorted(set(anchors))
    if not chosen or not set(chosen) <= set(frames):
        raise ValueError(f"anchors {chosen} of frames {list(frames)} were given, expected at least one of the frames")
    rest = [frame for frame in frames if frame not in set(chosen)]
    prompted = [Step(frame=anchor, is_anchor=True) for anchor in chosen]
    if propagation == "forward":
        return prompted + [Step(frame=frame) for frame in rest]
    if propagation == "reached":
        later = sorted(prompted[1:] + [Step(frame=frame) for frame in rest], key=lambda step: step.frame)
        return prompted[:1] + later
    owner = {frame: min(chosen, key=lambda anchor: (abs(anchor - frame), anchor)) for frame in rest}
    onward = [Step(frame=frame) for frame in rest if frame > owner[frame]]
    back = [Step(frame=frame, direction=-1) for frame in reversed(rest) if frame < owner[frame]]
    return prompted + onward + back


def track(
    tracker: Tracker,
    steps: Sequence[Step],
    features: Callable[[int], FrameFeatures],
    prompts: Mapping[int, Float[Tensor, "B N D"]],
) -> Iterator[tuple[int, MaskOutput]]:
    """Masks in the order of a plan; the caller may stop after any of them. The last frame is not remembered.

    Args:
        features: The features of a frame, one row for each row of the batch.
        prompts: Prompt tokens of the anchors by frame.
    """
    for place, step in enumerate(steps, 1):
        found = features(step.frame)
        if step.is_anchor:
            output = tracker.prompt(found, prompts[step.frame])
        else:
            output = tracker.propagate(step.frame, found, step.direction)
        if place < len(steps):  # nobody looks back at the last one
            remember = tracker.admit if step.is_anchor else tracker.keep
            remember(step.frame, found, output)
        yield step.frame, output


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ClipFeatures:
    """Features of all frames of the videos of a batch, looked up by frame for every row."""

    features: FrameFeatures
    """Of V videos of T frames, video by video."""
    num_frames: int
    """T."""
    videos: tuple[int, ...]
    """The video of each row."""

    def __call__(self, frame: int) -> FrameFeatures:
        """The features of a frame, a row for each row of the batch."""
        return self.features.take([video * self.num_frames + frame for video in self.videos])
