"""Who is in a referring video and where they go, drawn by chance so that every kind of sentence has something to say.

Enters: names, a split and a numpy generator. Leaves: `ReferringScene` values. Does not know: sentences, pixels.

Two to four things look alike and do different things; one or two others are different, and may be what the first are
told apart by. Two themes steer the look-alikes: one gives a relation over time, one something to reason about.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
from jaxtyping import Float

from dynin.data.emoji_world.artwork import COLOUR_FAMILIES, family
from dynin.data.emoji_world.referring_facts import crosses, overtakes, passes_before
from dynin.data.emoji_world.referring_motion import (
    AXIS,
    HEADINGS,
    MOST_DRIFT,
    MOTIONS,
    SIDES,
    STRAIGHT,
    Freedom,
    Heading,
    Motion,
    draw_path,
)  # fmt: skip
from dynin.data.emoji_world.referring_scene import Bar, ReferringScene, Track, exposure, in_view
from dynin.data.emoji_world.scene import BACKGROUNDS, Size
from dynin.data.emoji_world.splits import Split, is_motion_held_out

Relating = Literal["behind", "overtakes", "crosses", "nearest"]
Reasoning = Literal["leaves", "enters", "fastest", "edge", "hidden", "missing", "alone"]
RELATING: tuple[Relating, ...] = ("behind", "overtakes", "crosses", "nearest")
REASONING: tuple[Reasoning, ...] = ("leaves", "enters", "fastest", "edge", "hidden", "missing", "alone")

FEWEST_THINGS, MOST_THINGS = 3, 6
MOST_TRIES = 40
"""Paths drawn for one thing before the whole video is drawn anew."""
MOST_SHARED = 0.35
"""Part of the smaller of two boxes that lies in the other, at most, mean over the frames in which both are in view."""
LEAST_EXPOSURE = 0.6
"""Part of a thing's box that is seen, at least, mean over the frames in which it is in view."""
SLOW, FAST = (0.2, 0.36), (0.62, 0.75)
ABSENT_SHARE = 0.35
"""How many of the things that return are missing in the first frame, besides those that must be: half of all in all."""
_CONSPICUOUS: tuple[Motion, ...] = ("zigzag", "orbit", "reverses", "stops", "accelerates", "leaves") * 2
"""Motions that are drawn more often, since their paths find room less often."""
ALIKE_APART = 0.75
"""Look-alikes keep at least so many of their sides between their centres, so that nobody mistakes one for the other."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Role:
    """One thing before it has a path."""

    motion: Motion
    size: Size
    heading: Heading | None
    travel: tuple[float, float] = (0.35, 0.7)
    is_absent_first: bool = False
    is_alike: bool = False
    must: Callable[[Track, Track], bool] | None = None
    """What the thing must do, told by its track and that of the first thing that is different."""
    name: str = ""


def draw_video(names: Sequence[str], split: Split, num_frames: int, generator: np.random.Generator) -> ReferringScene:
    """Draw things, paths, a background and a camera until they fit."""
    relating = RELATING[int(generator.integers(len(RELATING)))]
    reasoning = REASONING[int(generator.integers(len(REASONING)))]
    while True:
        bar = _draw_bar(generator) if relating == "behind" else None
        named = _name(_roles(relating, reasoning, bar, generator), names, split, generator)
        tracks = None if named is None else _place(named, bar, num_frames, generator)
        if tracks is None:
            continue
        background = tuple(BACKGROUNDS)[int(generator.integers(len(BACKGROUNDS)))]
        if bar is not None:
            colours = [colour for colour in BACKGROUNDS if colour != background]
            bar = replace(bar, colour=colours[int(generator.integers(len(colours)))])
        scene = ReferringScene(
            tracks=tracks,
            bar=bar and replace(bar, num_behind=sum(track.motion == "behind" for track in tracks)),
            background=background,
            drift=draw_drift(num_frames, generator),
            look=int(generator.integers(2**32)),
        )
        if all(exposure(scene, index) >= LEAST_EXPOSURE for index in range(len(tracks))):
            return scene


def draw_drift(num_frames: int, generator: np.random.Generator) -> Float[np.ndarray, "T 2"]:
    """How the camera wanders: not at all in a third of the videos."""
    times = np.linspace(0, 1, num_frames)[:, None]
    slope = generator.uniform(-0.5, 0.5, size=2)
    phase, turns = generator.random(2), generator.uniform(0.5, 1.5, size=2)
    wander = slope * (2 * times - 1) + 0.5 * np.sin(2 * np.pi * (turns * times + phase))
    return wander * (0 if generator.random() < 1 / 3 else MOST_DRIFT)


def _draw_bar(generator: np.random.Generator) -> Bar:
    axis = int(generator.integers(2))
    return Bar(axis=axis, middle=float(generator.uniform(0.4, 0.6)), colour="white", num_behind=0)


def _heading(generator: np.random.Generator, axis: int | None = None) -> Heading:
    choices = [heading for heading in HEADINGS if axis is None or AXIS[heading] == axis]
    return choices[int(generator.integers(len(choices)))]


def _pick(choices: Sequence[Motion], generator: np.random.Generator) -> Motion:
    return choices[int(generator.integers(len(choices)))]


def _role(motion: Motion, size: Size, generator: np.random.Generator, **more: object) -> Role:
    heading = STRAIGHT.get(motion)
    if heading is None and motion not in ("still", "orbit", "returns"):
        heading = _heading(generator)
    is_absent = motion == "returns" and generator.random() < ABSENT_SHARE
    return replace(Role(motion=motion, size=size, heading=heading, is_absent_first=is_absent), **more)  # type: ignore[arg-type]


def _roles(relating: Relating, reasoning: Reasoning, bar: Bar | None, generator: np.random.Generator) -> list[Role]:
    """The first different thing, the look-alikes, and what else there is."""
    num_alike = 3 if reasoning == "alone" else int(generator.choice([2, 3, 4], p=[0.2, 0.45, 0.35]))
    small = bar is not None or num_alike == 4 or generator.random() < 0.7
    size: Size = "small" if small else "large"
    other_size: Size = "small" if generator.random() < 0.6 else "large"
    heading = _heading(generator)
    other = _role("still", other_size, generator)
    alike: list[Role] = []
    match relating:
        case "behind":
            assert bar is not None
            alike.append(_role("behind", "small", generator, heading=_heading(generator, bar.axis)))
            if generator.random() < 0.5:
                across = _heading(generator, bar.axis)
                alike.append(_role(across, "small", generator, travel=FAST, must=partial(_passes_before, bar)))
            other = _role(_pick(("still", "left", "right", "up", "down", "orbit"), generator), other_size, generator)
        case "overtakes":
            other = _role(heading, other_size, generator, travel=SLOW)
            alike.append(_role(heading, size, generator, travel=FAST, must=_overtakes))
        case "crosses":
            alike.append(_role(heading, size, generator, must=_crosses))
        case "nearest":
            pass
    alike += _reasoned(reasoning, size, generator)
    filling = (*MOTIONS, *_CONSPICUOUS)
    if reasoning == "fastest":
        filling = ("still", *STRAIGHT, "returns")
    elif reasoning in ("leaves", "enters", "alone"):
        filling = tuple(motion for motion in filling if motion != "returns")
    filling = tuple(motion for motion in filling if motion != "behind")
    while len(alike) < num_alike:
        taken = [role.motion for role in alike]
        motion = _pick([motion for motion in filling if motion not in taken], generator)
        alike.append(_role(motion, size, generator, travel=SLOW if reasoning == "fastest" else (0.35, 0.7)))
    roles = [other, *(replace(role, is_alike=True) for role in alike[:4])]
    num_things = int(generator.integers(max(FEWEST_THINGS, len(roles)), min(MOST_THINGS, len(roles) + 1) + 1))
    while len(roles) < num_things:
        third: Size = "small" if generator.random() < 0.7 else "large"
        motions = [motion for motion in MOTIONS if motion != "behind"]
        roles.append(_role(_pick(motions, generator), third, generator))
    return roles


def _reasoned(reasoning: Reasoning, size: Size, generator: np.random.Generator) -> list[Role]:
    """Look-alikes of which one stands out when one thinks about it."""
    straight = tuple(STRAIGHT)
    match reasoning:
        case "leaves":
            return [_role("leaves", size, generator) for _ in range(2)]
        case "enters":
            return [_role("enters", size, generator) for _ in range(2)]
        case "fastest":
            slow = _role(_pick(straight, generator), size, generator, travel=SLOW)
            return [_role(_pick(straight, generator), size, generator, travel=FAST), slow]
        case "edge":
            heading = _heading(generator)
            return [_role(heading, size, generator), _role(_pick((heading, "stops"), generator), size, generator)]
        case "hidden":
            return [_role("returns", size, generator)]
        case "alone":
            return [_role("still", size, generator) for _ in range(2)]
        case "missing":
            return [_role(_pick(("enters", "returns"), generator), size, generator, is_absent_first=True)]


def _passes_before(bar: Bar, track: Track, _: Track) -> bool:
    return passes_before(track, bar) is True


def _overtakes(track: Track, other: Track) -> bool:
    return overtakes(track, other) is True


def _crosses(track: Track, other: Track) -> bool:
    return track.heading is not None and crosses(track, other, track.heading) is True


def _name(roles: list[Role], names: Sequence[str], split: Split, generator: np.random.Generator) -> list[Role] | None:
    """Give names: one to the look-alikes, others to the rest; None where a split has none that fit.

    In training no thing has a motion that is held out for it; among the held out, a look-alike does.
    """
    motions = {role.motion for role in roles if role.is_alike}
    held = {name: any(is_motion_held_out(name, motion) for motion in motions) for name in names}
    fitting = [name for name in names if held[name] == (split == "held_out")]
    if not fitting:
        return None
    alike = fitting[int(generator.integers(len(fitting)))]
    taken = [alike]
    named = []
    for role in roles:
        if role.is_alike:
            named.append(replace(role, name=alike))
            continue
        is_twin = generator.random() < 0.12 and any(other.is_alike and other.size != role.size for other in roles)
        wanted = [alike] if is_twin and named else _relatives(alike, names) if generator.random() < 0.3 else names
        free = [
            name
            for name in wanted or names
            if (name not in taken or is_twin) and not (split == "train" and is_motion_held_out(name, role.motion))
        ]
        if not free:
            return None
        named.append(replace(role, name=free[int(generator.integers(len(free)))]))
        taken.append(named[-1].name)
    return named


def _relatives(name: str, names: Sequence[str]) -> list[str]:
    """The same thing in other colours: "red heart" of "blue heart"."""
    of = family(name)
    return [f"{colour} {of}" for colour in COLOUR_FAMILIES.get(of or "", ()) if f"{colour} {of}" in names]


def _place(
    roles: list[Role], bar: Bar | None, num_frames: int, generator: np.random.Generator
) -> tuple[Track, ...] | None:
    """Paths for all things, in the order in which they are drawn: those behind the bar first, the others by chance."""
    placed: list[Track] = []
    for role in roles:
        freedom = Freedom(
            num_frames=num_frames,
            side=SIDES[role.size],
            travel=role.travel,
            bar=None if bar is None else (bar.axis, bar.middle),
            is_absent_first=role.is_absent_first,
        )
        for _ in range(MOST_TRIES):
            path = draw_path(role.motion, role.heading, freedom, generator)
            track = Track(name=role.name, size=role.size, motion=role.motion, heading=role.heading, path=path)
            if _fits(track, placed) and (role.must is None or role.must(track, placed[0])):
                placed.append(track)
                break
        else:
            return None
    order = generator.permutation(len(placed))
    return tuple(sorted((placed[int(index)] for index in order), key=lambda track: track.motion != "behind"))


def _fits(track: Track, placed: Sequence[Track]) -> bool:
    """Whether a thing keeps apart from its look-alikes, and is not hidden by, nor hides, another most of the time."""
    seen = in_view(track)
    for other in placed:
        both = seen & in_view(other)
        if not both.any():
            continue
        distance = np.abs(track.path.centres - other.path.centres)[both]
        if track.kind == other.kind:
            if (distance.max(axis=1) < ALIKE_APART * track.side).any():
                return False
            continue
        shared = np.clip((track.side + other.side) / 2 - distance, 0, min(track.side, other.side)).prod(axis=1)
        if shared.mean() > MOST_SHARED * min(track.side, other.side) ** 2:
            return False
    return True
