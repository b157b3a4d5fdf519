"""The judge of videos: reads every frame as a picture and follows the things through them.

Enters: four frames. Leaves: a `VideoReading`, the verdict on a claim. Does not know how clips are drawn or tokenized:
what counts as a motion is stated here again.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor

from dynin.data.emoji_world.artwork import NUM_OBJECTS
from dynin.data.emoji_world.clip_caption import ClipSlots
from dynin.evaluation.metrics.picture import PictureReading, SeenThing, read_picture

DIRECTIONS: dict[str, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
"""Sign of the change of column and row."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SeenMotion:
    """One thing followed through all frames."""

    name: str
    size: str
    """"large" for a thing that grows or shrinks."""
    motion: str | None
    """left, right, up, down, still, grows, shrinks; None for anything else."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoReading:
    """What the judge sees in a video."""

    background: str | None
    """None if it is unknown or not the same in all frames."""
    things: tuple[SeenMotion, ...]
    """Things seen once in every frame, by name."""
    is_clear: bool
    """False if a frame has an unknown cell, or shows a thing that another frame does not show exactly as often."""


def read_video(frames: Float[Tensor, "T 3 Y X"], *, num_objects: int = NUM_OBJECTS) -> VideoReading:
    """What a video shows.

    Args:
        frames: At least two frames of 64 x 64 px in [-1, 1].
        num_objects: How many objects of the atlas are looked for, from the first.
    Raises:
        ValueError: If there are fewer than two frames or they have another size.
    """
    if len(frames) < 2:
        raise ValueError(f"video has {len(frames)} frames; the judge needs at least two to see a motion")
    readings = [read_picture(frame, num_objects=num_objects, may_leave=True) for frame in frames]
    grounds = {reading.background for reading in readings}
    names = [Counter(thing.name for thing in reading.things) for reading in readings]
    followed = sorted(name for name in names[0] if all(count[name] == 1 for count in names))
    return VideoReading(
        background=grounds.pop() if len(grounds) == 1 else None,
        things=tuple(_follow(name, readings) for name in followed),
        is_clear=all(count.keys() == set(followed) for count in names)
        and not any(reading.num_unknown_cells for reading in readings),
    )


def _follow(name: str, readings: Sequence[PictureReading]) -> SeenMotion:
    """The motion of the one thing of this name."""
    path = [thing for reading in readings for thing in reading.things if thing.name == name]
    motion = _motion(path)
    size = "large" if motion in ("grows", "shrinks") else path[0].size
    return SeenMotion(name=name, size=size, motion=motion)


def _motion(path: Sequence[SeenThing]) -> str | None:
    """Name the motion: one direction in every step, or none at all, or one change of size on the spot."""
    steps = [(after.column - before.column, after.row - before.row) for before, after in pairwise(path)]
    sizes = [thing.size for thing in path]
    if len(set(sizes)) == 1:
        if not any(any(step) for step in steps):
            return "still"
        signs = {(_sign(columns), _sign(rows)) for columns, rows in steps}
        return next((name for name, direction in DIRECTIONS.items() if signs == {direction}), None)
    changes = [pair for pair in pairwise(sizes) if pair[0] != pair[1]]
    if len(changes) > 1 or any(any(step) for step in steps):
        return None
    return "grows" if changes[0][0] == "small" else "shrinks"


def _sign(value: int) -> int:
    """-1, 0 or 1."""
    return (value > 0) - (value < 0)


def video_matches(frames: Float[Tensor, "T 3 Y X"], slots: ClipSlots, *, num_objects: int = NUM_OBJECTS) -> bool:
    """Whether a video shows what is claimed: the thing, its size and motion, the second thing and the background.

    A thing too many, one that cannot be recognised in every frame or a background that changes makes it wrong.
    """
    return video_reading_matches(read_video(frames, num_objects=num_objects), slots)


def video_reading_matches(reading: VideoReading, slots: ClipSlots) -> bool:
    """The verdict of `video_matches` on a video that was read already."""
    if not reading.is_clear or reading.background is None:
        return False
    if slots.background is not None and reading.background != slots.background:
        return False
    wanted: list[tuple[str, str, str | None]] = [(slots.mover, slots.size, slots.motion)]
    if slots.still is not None:
        wanted.append((*slots.still, "still"))
    return Counter((thing.name, thing.size, thing.motion) for thing in reading.things) == Counter(wanted)
