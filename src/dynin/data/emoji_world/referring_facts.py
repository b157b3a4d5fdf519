"""What is true of a thing that moves: yes, no, or neither beyond doubt.

Enters: tracks, as they were planned. Leaves: `Truth` values and the thing that stands out in some way, if one does.
Does not know: words, pixels, chance.

A sentence is said only where no answer is in doubt: "the dog that moves left" needs one dog that does and others that
do not, and a dog that zigzags to the left is neither. So a sentence has one right answer for whoever looks carefully.
"""

from collections.abc import Sequence

import numpy as np

from dynin.data.emoji_world.referring_motion import AXIS, SIGN, STRAIGHT, Heading, Motion
from dynin.data.emoji_world.referring_scene import Bar, ReferringScene, Track, bar_cover, in_view

Truth = bool | None
"""None where people could disagree."""

CLEAR = 0.1
"""Distances that differ by less, as parts of the canvas, are in doubt."""
CLEAR_RATIO = 1.4
"""Speeds and times that differ by a smaller factor are in doubt."""
CLEAR_TIME = 0.12
"""Moments that differ by less, as parts of the video, are in doubt."""

_STEADY: frozenset[Motion] = frozenset((*STRAIGHT, "accelerates", "leaves", "enters", "behind"))
_WAVERING: frozenset[Motion] = frozenset(("zigzag", "stops"))

MOTION_OF: dict[str, Motion] = {
    "stays": "still", "zigzags": "zigzag", "circles": "orbit", "turns": "reverses", "stops": "stops",
    "speeds": "accelerates", "enters": "enters", "leaves": "leaves", "vanishes": "returns",
}  # fmt: skip
"""What a thing of each motion does."""

_DOUBTFUL: dict[str, frozenset[Motion]] = {
    "stays": frozenset(("returns",)),
    "turns": frozenset(("orbit", "zigzag")),
    "enters": frozenset(("returns",)),
    "leaves": frozenset(("returns",)),
    "vanishes": frozenset(("behind",)),
}


def does(deed: str, track: Track) -> Truth:
    """Whether a thing does something, such as "turns" (back), or "left": whether it moves there."""
    if deed in AXIS:
        return _goes(deed, track)
    if track.motion == MOTION_OF[deed]:
        return True
    return None if track.motion in _DOUBTFUL.get(deed, frozenset()) else False


def _goes(heading: str, track: Track) -> Truth:
    if track.motion in ("still", "returns"):
        return False
    if track.motion == "orbit" or track.heading is None:
        return None
    if track.motion == "reverses":
        return None if AXIS[track.heading] == AXIS[heading] else False
    if track.motion == "zigzag" and AXIS[track.heading] != AXIS[heading]:
        return None
    if track.heading != heading:
        return False
    if track.motion in _STEADY:
        return True
    return None if track.motion in _WAVERING else False


def moves(track: Track) -> Truth:
    """Whether a thing moves at all."""
    return None if track.motion == "returns" else track.motion != "still"


def passes_behind(track: Track) -> Truth:
    """Whether a thing passes behind the bar."""
    return track.motion == "behind"


def passes_before(track: Track, bar: Bar) -> Truth:
    """Whether a thing passes in front of the bar, from one side of it to the other."""
    covered = bar_cover(track, bar)
    if track.motion == "behind" or not covered.any():
        return False
    low, high = bar.ends
    along = track.path.centres[:, bar.axis]
    first, last = along[0], along[-1]
    is_crossing = min(first, last) < low - track.side / 2 and max(first, last) > high + track.side / 2
    is_plain = track.motion in STRAIGHT or track.motion == "accelerates"
    return True if is_crossing and is_plain else None


def overtakes(track: Track, other: Track) -> Truth:
    """Whether a thing comes from behind another that goes the same way, and ends before it."""
    if other.motion not in STRAIGHT or other.heading is None:
        return None
    lead = SIGN[other.heading] * (track.path.centres - other.path.centres)[:, AXIS[other.heading]]
    if (lead > 0.04).all() or (lead < -0.04).all():
        return False
    if track.motion in STRAIGHT or track.motion == "accelerates":
        if track.heading != other.heading:
            return False if AXIS[str(track.heading)] != AXIS[other.heading] else None
        return True if lead[0] < -CLEAR and lead[-1] > CLEAR else None
    return False if track.motion in ("still", "returns") else None


def crosses(track: Track, other: Track, heading: Heading) -> Truth:
    """Whether a thing goes from one side of a still one to the other: with "right", from its left to its right."""
    if other.motion != "still" or not (in_view(track)[0] and in_view(track)[-1]):
        return None
    lead = SIGN[heading] * (track.path.centres - other.path.centres)[:, AXIS[heading]]
    if lead[0] > 0.04 or lead[-1] < -0.04:
        return False
    return True if lead[0] < -CLEAR and lead[-1] > CLEAR else None


def nearest(scene: ReferringScene, among: Sequence[int], other: int, frame: int) -> int | None:
    """The thing nearest to another in one frame; None where two are about as near, or one is out of view."""
    if not all(in_view(scene.tracks[index])[frame] for index in (*among, other)):
        return None
    place = scene.tracks[other].path.centres[frame]
    distances = [float(np.linalg.norm(scene.tracks[index].path.centres[frame] - place)) for index in among]
    return first(among, distances, CLEAR)


def first(among: Sequence[int], values: Sequence[float], apart: float) -> int | None:
    """The thing of least value, if the next is greater by `apart` at least; None for fewer than two things."""
    if len(values) < 2:
        return None
    order = np.argsort(values)
    return among[int(order[0])] if values[order[1]] - values[order[0]] >= apart else None


def first_to_leave(scene: ReferringScene, among: Sequence[int], *, is_last: bool) -> int | None:
    """Of several things that leave, the first or the last."""
    if any(scene.tracks[index].motion == "returns" for index in among):
        return None
    times = {i: scene.tracks[i].path.leaves_at for i in among if scene.tracks[i].motion == "leaves"}
    return first(list(times), [-(at or 0) if is_last else (at or 0) for at in times.values()], CLEAR_TIME)


def first_to_enter(scene: ReferringScene, among: Sequence[int], *, is_last: bool) -> int | None:
    """Of several things that come into view, the first or the last."""
    if any(scene.tracks[index].motion == "returns" for index in among):
        return None
    times = {i: scene.tracks[i].path.enters_at for i in among if scene.tracks[i].motion == "enters"}
    return first(list(times), [-(at or 0) if is_last else (at or 0) for at in times.values()], CLEAR_TIME)


def speed(track: Track) -> float | None:
    """Way per video of a thing of constant speed; None where it changes."""
    if track.motion in ("accelerates", "stops", "enters", "leaves"):
        return None
    steps = np.linalg.norm(np.diff(track.path.centres, axis=0), axis=1)
    if track.motion == "zigzag":  # the tips of the way are cut off between two frames
        return float(np.median(steps)) * len(steps)
    return float(steps.sum())


def fastest(scene: ReferringScene, among: Sequence[int]) -> int | None:
    """The fastest thing, if it is beyond doubt."""
    speeds = [speed(scene.tracks[index]) for index in among]
    if len(speeds) < 2 or any(value is None for value in speeds):
        return None
    order = np.argsort([-(value or 0) for value in speeds])
    best, next_best = (float(speeds[int(place)] or 0) for place in order[:2])
    return among[int(order[0])] if best > 0.2 and best >= CLEAR_RATIO * next_best and next_best > 0.1 else None


def approaches(track: Track, heading: Heading) -> Truth:
    """Whether a thing that is in view in the end goes towards an edge then."""
    if track.motion in ("orbit", "zigzag"):
        return None
    if track.motion == "leaves" or not in_view(track)[-1]:
        return False
    return _last_pace(track, heading) > 1e-6


def _last_pace(track: Track, heading: Heading) -> float:
    along = SIGN[heading] * track.path.centres[:, AXIS[heading]]
    return float(along[-1] - along[-2])


def next_at_edge(scene: ReferringScene, among: Sequence[int], heading: Heading) -> int | None:
    """The thing that would reach an edge first if all went on as they go in the end."""
    truths = {index: approaches(scene.tracks[index], heading) for index in among}
    if None in truths.values() or not any(truths.values()):
        return None
    times: dict[int, float] = {}
    for index in (index for index, truth in truths.items() if truth):
        track = scene.tracks[index]
        edge = (1.0 if SIGN[heading] > 0 else 0.0) - track.side / 2
        room = edge - SIGN[heading] * float(track.path.centres[-1, AXIS[heading]])
        times[index] = max(room, 0.01) / _last_pace(track, heading)
    order = sorted(times, key=lambda index: times[index])
    is_clear = len(order) == 1 or times[order[1]] >= CLEAR_RATIO * times[order[0]]
    return order[0] if is_clear else None


def is_missing_first(track: Track) -> bool:
    """Whether a thing cannot be seen in the first frame."""
    return not bool(in_view(track)[0])


def is_hidden_a_while(track: Track) -> Truth:
    """Whether a thing is seen, then not, then again."""
    return track.motion in ("returns", "behind")
