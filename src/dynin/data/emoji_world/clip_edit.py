"""Instructions about clips: animate a picture, change a video, pick a frame.

Enters: `Clip` values, names and a numpy generator. Leaves: instructions and exact targets. Does not know: splits,
tasks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from dynin.data.emoji_world import wording
from dynin.data.emoji_world.clip import NUM_FRAMES, Clip, Motion
from dynin.data.emoji_world.scene import BACKGROUNDS

Operation = Literal["replace", "background"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipEdit:
    """A clip, what to do with it, and what comes out; the motion stays."""

    operation: Operation
    instruction: str
    source: Clip
    target: Clip


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameRequest:
    """Which frame of a clip is wanted."""

    instruction: str
    index: int


_ANIMATE: dict[Motion, tuple[str, ...]] = {
    "left": ("move the {name} left", "make the {name} move left", "let the {name} go left"),
    "right": ("move the {name} right", "make the {name} move right", "let the {name} go right"),
    "up": ("move the {name} up", "make the {name} move up", "let the {name} rise"),
    "down": ("move the {name} down", "make the {name} move down", "let the {name} fall"),
    "still": ("keep the {name} still", "let the {name} stay still", "do not move the {name}"),
    "grows": ("make the {name} grow", "let the {name} grow", "make the {name} bigger"),
    "shrinks": ("make the {name} shrink", "let the {name} shrink", "make the {name} smaller"),
}
_REPLACE = (
    "replace the {old} with {new}", "turn the {old} into {new}", "change the {old} to {new}",
    "put {new} in place of the {old}",
)  # fmt: skip
_BACKGROUND = (
    "make the background {colour}", "change the background to {colour}", "turn the background {colour}",
    "paint the background {colour}",
)  # fmt: skip
_FRAMES = {
    0: ("show the first frame", "show the first picture", "how does it begin", "give me the first frame"),
    NUM_FRAMES - 1: ("show the last frame", "show the last picture", "how does it end", "give me the last frame"),
}


def animation(clip: Clip, generator: np.random.Generator) -> str:
    """The instruction that makes the clip out of its first frame."""
    text = wording.pick(_ANIMATE[clip.motion], generator).format(name=clip.mover.name)
    return wording.vary_form(text, generator)


def sample_clip_edit(source: Clip, names: Sequence[str], generator: np.random.Generator) -> ClipEdit:
    """Exchange the moving thing or the background."""
    shown = {source.mover.name} | (set() if source.still is None else {source.still.name})
    if generator.random() < 0.5:
        choices = [name for name in names if name not in shown]
        name = wording.pick(choices, generator)
        text = wording.pick(_REPLACE, generator).format(old=source.mover.name, new=wording.one_of(name))
        target = replace(source, mover=replace(source.mover, name=name))
        operation: Operation = "replace"
    else:
        colour = wording.pick([colour for colour in BACKGROUNDS if colour != source.background], generator)
        text = wording.pick(_BACKGROUND, generator).format(colour=colour)
        target = replace(source, background=colour)
        operation = "background"
    instruction = wording.vary_form(text, generator)
    return ClipEdit(operation=operation, instruction=instruction, source=source, target=target)


def sample_frame_request(generator: np.random.Generator) -> FrameRequest:
    """Ask for the first or the last frame."""
    index = 0 if generator.random() < 0.5 else NUM_FRAMES - 1
    text = wording.pick(_FRAMES[index], generator)
    mark = "?" if text.startswith("how") else "."
    return FrameRequest(instruction=wording.vary_form(text, generator, mark), index=index)
