"""Short videos: one thing that moves, sometimes beside one that does not.

Enters: object names and a numpy generator. Leaves: `Clip` values, their frames as scenes, pixels and visible masks.
Does not know: wording, splits, tasks, files.

    moves right, a large thing          grows
    [XX..] [.XX.] [..XX] [...X]         [X...] [X...] [XX..] [XX..]
    [XX..] [.XX.] [..XX] [...X]         [....] [....] [XX..] [XX..]
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import numpy as np
from jaxtyping import Bool, UInt8

from dynin.data.emoji_world.scene import (
    BACKGROUNDS,
    GRID_CELLS,
    SIZE_CELLS,
    Scene,
    Size,
    Thing,
    draw_names,
    overlap,
    places,
    render,
    visible_masks,
)

NUM_FRAMES = 4
FRAME_RATE_HZ = 4.0

Motion = Literal["left", "right", "up", "down", "still", "grows", "shrinks"]
MOTIONS: tuple[Motion, ...] = ("left", "right", "up", "down", "still", "grows", "shrinks")

STEP_CELLS: dict[str, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
"""Columns and rows per frame."""

GROWTH: tuple[Size, ...] = ("small", "small", "large", "large")
"""The size in each frame of a thing that grows; it shrinks in the opposite order. Its upper left corner stays."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """A thing with a motion, perhaps a second thing that stays still, on a solid background."""

    mover: Thing
    """The thing as it is in the first frame."""
    motion: Motion
    still: Thing | None
    background: str


def frames(clip: Clip) -> tuple[Scene, ...]:
    """The scenes of the clip in order; in each the moving thing comes first. It may be partly outside the canvas."""
    rest = () if clip.still is None else (clip.still,)
    return tuple(
        Scene(things=(_mover_at(clip.mover, clip.motion, time), *rest), background=clip.background)
        for time in range(NUM_FRAMES)
    )


def _mover_at(mover: Thing, motion: Motion, time: int) -> Thing:
    if motion in STEP_CELLS:
        columns, rows = STEP_CELLS[motion]
        return replace(mover, column=mover.column + time * columns, row=mover.row + time * rows)
    if motion == "grows":
        return replace(mover, size=GROWTH[time])
    if motion == "shrinks":
        return replace(mover, size=GROWTH[NUM_FRAMES - 1 - time])
    return mover


def render_clip(clip: Clip) -> UInt8[np.ndarray, "T 64 64 3"]:
    """The pixels of every frame."""
    if clip.motion == "still":
        return np.repeat(render(frames(clip)[0])[None], NUM_FRAMES, axis=0)
    return np.stack([render(scene) for scene in frames(clip)])


def clip_masks(clip: Clip) -> Bool[np.ndarray, "N T 64 64"]:
    """For every thing and frame, the pixels that the thing covers by more than half."""
    return np.stack([visible_masks(scene) for scene in frames(clip)], axis=1)


@cache
def _starts(motion: Motion, size: Size, is_whole: bool) -> tuple[tuple[int, int], ...]:
    """Cells from which the motion keeps at least half of the thing on the canvas in every frame.

    With `is_whole` the first frame shows all of it.
    """
    if motion not in STEP_CELLS:
        return places("large" if motion in ("grows", "shrinks") else size)
    columns, rows = STEP_CELLS[motion]
    num_cells = SIZE_CELLS[size]
    last = GRID_CELLS - num_cells
    outside = num_cells // 2  # cells by which a thing may leave the canvas
    travel = NUM_FRAMES - 1
    reach = range(-outside, last + outside + 1)
    whole = range(last + 1)
    along = [start for start in (whole if is_whole else reach) if start + travel * (columns + rows) in reach]
    return tuple((start, across) if columns else (across, start) for start in along for across in whole)


def sample_clip(
    names: Sequence[str],
    generator: np.random.Generator,
    *,
    motions: Sequence[Motion] = MOTIONS,
    is_whole: bool = False,
    is_alone: bool = False,
) -> Clip:
    """Draw a clip: names, sizes, places, motion and background by chance.

    Args:
        names: The objects to choose from, at least two.
        motions: The motions to choose from.
        is_whole: Whether the first frame must show the whole moving thing.
        is_alone: Whether there must be no second thing.
    """
    background = tuple(BACKGROUNDS)[int(generator.integers(len(BACKGROUNDS)))]
    motion = motions[int(generator.integers(len(motions)))]
    size: Size = "large" if generator.random() < 0.75 else "small"
    if motion == "grows":
        size = "small"
    elif motion == "shrinks":
        size = "large"
    starts = _starts(motion, size, is_whole)
    column, row = starts[int(generator.integers(len(starts)))]
    mover_name, still_name = draw_names(names, 2, generator)
    mover = Thing(name=mover_name, size=size, column=column, row=row)
    still = None
    if not is_alone and motion != "still" and generator.random() < 0.4:
        still = _draw_still(still_name, mover, motion, generator)
    return Clip(mover=mover, motion=motion, still=still, background=background)


def _draw_still(name: str, mover: Thing, motion: Motion, generator: np.random.Generator) -> Thing | None:
    """A second thing beside the path of the first, large where there is room; None where there is none."""
    path = [_mover_at(mover, motion, time) for time in range(NUM_FRAMES)]
    sizes: tuple[Size, ...] = ("large", "small") if generator.random() < 0.75 else ("small",)
    for size in sizes:
        things = [Thing(name=name, size=size, column=column, row=row) for column, row in places(size)]
        free = [thing for thing in things if not any(overlap(thing, moved) for moved in path)]
        if free:
            return free[int(generator.integers(len(free)))]
    return None


def is_in_view(clip: Clip) -> bool:
    """Whether the motion keeps at least half of the thing on the canvas in every frame, clear of the still thing."""
    if (clip.mover.column, clip.mover.row) not in _starts(clip.motion, clip.mover.size, is_whole=False):
        return False
    path = [_mover_at(clip.mover, clip.motion, time) for time in range(NUM_FRAMES)]
    return clip.still is None or not any(overlap(clip.still, moved) for moved in path)
