"""How things move in referring videos: fourteen motions as paths over any number of frames.

Enters: a motion, a heading, a size and a numpy generator. Leaves: `Path` values: centres and presence in every frame.
Does not know: names, sentences, pixels.

    places are parts of the canvas's side: (0, 0) is the upper left corner, (1, 1) the lower right one
    time runs from 0 (first frame) to 1 (last frame), so that a path means the same with 12 frames and with 24
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

Motion = Literal[
    "still", "left", "right", "up", "down", "zigzag", "orbit", "reverses", "stops", "accelerates", "enters", "leaves",
    "behind", "returns",
]  # fmt: skip
MOTIONS: tuple[Motion, ...] = (
    "still", "left", "right", "up", "down", "zigzag", "orbit", "reverses", "stops", "accelerates", "enters", "leaves",
    "behind", "returns",
)  # fmt: skip

Heading = Literal["left", "right", "up", "down"]
HEADINGS: tuple[Heading, ...] = ("left", "right", "up", "down")
STRAIGHT: dict[Motion, Heading] = {"left": "left", "right": "right", "up": "up", "down": "down"}
"""Motions at a constant speed, and where they go."""
AXIS: dict[str, int] = {"left": 0, "right": 0, "up": 1, "down": 1}
SIGN: dict[str, int] = {"left": -1, "right": 1, "up": -1, "down": 1}

SIDES: dict[str, float] = {"small": 0.1875, "large": 0.28125}
"""Side of a thing: 12 and 18 px of 64, 24 and 36 px of 128."""
MARGIN = 0.03
"""Between a thing inside the canvas and the edge."""
MOST_DRIFT = 0.05
"""How far the camera may wander along each axis."""
OUTSIDE = 0.07
"""Between a thing outside the canvas and the edge; more than the camera wanders, so that it is surely out of view."""
BAR_WIDTH = 0.28
"""A small thing behind the bar is wholly hidden in at least one of 12 frames."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Path:
    """Where one thing is, frame by frame."""

    centres: Float[np.ndarray, "T 2"]
    """Across and down; outside 0 to 1 where the thing is out of view."""
    is_present: Bool[np.ndarray, "T"]
    """False where the thing has vanished in place."""
    leaves_at: float | None = None
    """The time from which a thing that leaves is wholly out of view."""
    enters_at: float | None = None
    """The time until which a thing that enters is wholly out of view."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Freedom:
    """What a path may look like beyond its motion."""

    num_frames: int
    side: float
    """Of the thing."""
    travel: tuple[float, float] = (0.35, 0.7)
    """Least and greatest way of a straight motion."""
    bar: tuple[int, float] | None = None
    """Axis across which the bar is passed, and where its middle lies on it."""
    is_absent_first: bool = False
    """Whether a thing that vanishes and returns is missing in the first frame."""
    times: Float[np.ndarray, "T"] = field(init=False)

    def __post_init__(self) -> None:
        """Time of every frame."""
        object.__setattr__(self, "times", np.linspace(0, 1, self.num_frames))

    @property
    def inside(self) -> tuple[float, float]:
        """Least and greatest centre of a thing inside the canvas."""
        return self.side / 2 + MARGIN, 1 - self.side / 2 - MARGIN

    @property
    def beyond(self) -> float:
        """How far beyond the edge the centre of a thing lies that is out of view."""
        return self.side / 2 + OUTSIDE


def draw_path(motion: Motion, heading: Heading | None, freedom: Freedom, generator: np.random.Generator) -> Path:
    """A path of this motion by chance.

    Args:
        heading: Where the motion goes; None for "still", "orbit" and "returns", which go nowhere.
    """
    return _PATHS[motion](heading, freedom, generator)


def _along(
    heading: Heading | None, progress: Float[np.ndarray, "T"], freedom: Freedom, generator: np.random.Generator,
    travel: tuple[float, float] | None = None, room: float = 0.0,
) -> Float[np.ndarray, "T 2"]:  # fmt: skip
    """A way inside the canvas of which `progress`, 0 to 1, is behind; `room` keeps it from the edges beside it."""
    assert heading is not None
    least, most = freedom.inside
    low, high = travel or freedom.travel
    length = generator.uniform(min(low, most - least), min(high, most - least))
    start = generator.uniform(least, most - length)
    centres = np.empty((freedom.num_frames, 2))
    way = start + length * progress
    centres[:, AXIS[heading]] = way if SIGN[heading] > 0 else 1 - way
    centres[:, 1 - AXIS[heading]] = generator.uniform(least + room, most - room)
    return centres


def _shown(centres: Float[np.ndarray, "T 2"], **times: float) -> Path:
    return Path(centres=centres, is_present=np.ones(len(centres), dtype=bool), **times)


def _still(_: Heading | None, freedom: Freedom, generator: np.random.Generator) -> Path:
    return _shown(np.tile(generator.uniform(*freedom.inside, size=2), (freedom.num_frames, 1)))


def _straight(heading: Heading | None, freedom: Freedom, generator: np.random.Generator) -> Path:
    return _shown(_along(heading, freedom.times, freedom, generator))


def _zigzag(heading: Heading | None, freedom: Freedom, generator: np.random.Generator) -> Path:
    assert heading is not None
    swing = generator.uniform(0.1, 0.14)
    centres = _along(heading, freedom.times, freedom, generator, travel=(0.4, 0.7), room=swing)
    phase = freedom.times * generator.uniform(2, 2.75)
    centres[:, 1 - AXIS[heading]] += swing * (4 * np.abs(phase - np.floor(phase + 0.5)) - 1)
    return _shown(centres)


def _orbit(_: Heading | None, freedom: Freedom, generator: np.random.Generator) -> Path:
    radius = generator.uniform(0.13, 0.2)
    least, most = freedom.inside
    middle = generator.uniform(least + radius, most - radius, size=2)
    turns = generator.uniform(1.1, 1.6) * (1 if generator.random() < 0.5 else -1)
    angle = 2 * np.pi * (generator.random() + turns * freedom.times)
    return _shown(middle + radius * np.stack([np.cos(angle), np.sin(angle)], axis=1))


def _reverses(heading: Heading | None, freedom: Freedom, generator: np.random.Generator) -> Path:
    turn = generator.uniform(0.42, 0.55)
    progress = np.minimum(freedom.times / turn, (1 - freedom.times) / (1 - turn))
    return _shown(_along(heading, progress, freedom, generator, travel=(min(0.3, freedom.travel[0]), 0.55)))


def _stops(heading: Heading | None, freedom: Freedom, generator: np.random.Generator) -> Path:
    progress = np.minimum(freedom.times / generator.uniform(0.35, 0.55), 1)
    return _shown(_along(heading, progress, freedom, generator, travel=(0.35, 0.6)))


def _accelerates(heading: Heading | None, freedom: Freedom, generator: np.random.Generator) -> Path:
    return _shown(_along(heading, freedom.times**2.5, freedom, generator, travel=(0.5, 0.75)))


def _enters(heading: Heading | None, freedom: Freedom, generator: np.random.Generator) -> Path:
    assert heading is not None
    since = generator.uniform(0.25, 0.6)
    least, most = freedom.inside
    end = generator.uniform(least + 0.15, most)
    way = -freedom.beyond + (end + freedom.beyond) * np.clip((freedom.times - since) / (1 - since), 0, 1)
    return _shown(_edge_path(heading, way, freedom, generator), enters_at=since)


def _leaves(heading: Heading | None, freedom: Freedom, generator: np.random.Generator) -> Path:
    assert heading is not None
    until = generator.uniform(0.45, 0.85)
    least, most = freedom.inside
    start = generator.uniform(least, most - 0.15)
    way = start + (1 + freedom.beyond - start) * np.clip(freedom.times / until, 0, 1)
    return _shown(_edge_path(heading, way, freedom, generator), leaves_at=until)


def _edge_path(
    heading: Heading, way: Float[np.ndarray, "T"], freedom: Freedom, generator: np.random.Generator
) -> Float[np.ndarray, "T 2"]:
    centres = np.empty((freedom.num_frames, 2))
    centres[:, AXIS[heading]] = way if SIGN[heading] > 0 else 1 - way
    centres[:, 1 - AXIS[heading]] = generator.uniform(*freedom.inside)
    return centres


def _behind(heading: Heading | None, freedom: Freedom, generator: np.random.Generator) -> Path:
    """From one side of the bar to the other, wholly seen at the beginning and at the end."""
    assert heading is not None
    assert freedom.bar is not None
    least, most = freedom.inside
    middle = freedom.bar[1] if SIGN[heading] > 0 else 1 - freedom.bar[1]
    reach = (BAR_WIDTH + freedom.side) / 2 + 0.02
    start = generator.uniform(least, max(least, middle - reach))
    end = generator.uniform(min(most, middle + reach), most)
    return _shown(_edge_path(heading, start + (end - start) * freedom.times, freedom, generator))


def _returns(_: Heading | None, freedom: Freedom, generator: np.random.Generator) -> Path:
    still = _still(None, freedom, generator)
    first = generator.uniform(0.12, 0.22) if freedom.is_absent_first else -1.0
    gone, back = generator.uniform(0.38, 0.5), generator.uniform(0.68, 0.8)
    times = freedom.times
    return Path(centres=still.centres, is_present=(times >= first) & ~((times > gone) & (times < back)))


_PATHS: dict[Motion, Callable[[Heading | None, Freedom, np.random.Generator], Path]] = {
    "still": _still, "left": _straight, "right": _straight, "up": _straight, "down": _straight, "zigzag": _zigzag,
    "orbit": _orbit, "reverses": _reverses, "stops": _stops, "accelerates": _accelerates, "enters": _enters,
    "leaves": _leaves, "behind": _behind, "returns": _returns,
}  # fmt: skip
