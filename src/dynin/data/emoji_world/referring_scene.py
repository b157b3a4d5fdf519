"""What a referring video or still holds: things with their paths, a bar perhaps, a background, a wandering camera.

Enters: paths and names. Leaves: `Track`, `Bar`, `ReferringScene`, and what follows from places alone: who is in view,
how much of whom is covered. Does not know: motions by chance, sentences, pixels.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from dynin.data.emoji_world.referring_motion import BAR_WIDTH, SIDES, Heading, Motion, Path
from dynin.data.emoji_world.scene import Size


@dataclass(frozen=True, kw_only=True, slots=True)
class Track:
    """One thing and the way it goes."""

    name: str
    size: Size
    motion: Motion
    heading: Heading | None
    path: Path

    @property
    def side(self) -> float:
        """Side of its picture, as part of the canvas."""
        return SIDES[self.size]

    @property
    def kind(self) -> tuple[str, str]:
        """Name and size; things of one kind look the same to the pixel."""
        return self.name, self.size


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """A bar from edge to edge, in front of some things and behind others."""

    axis: int
    """0 for an upright bar, which is passed going left or right; 1 for a level one."""
    middle: float
    colour: str
    """One of the backgrounds' names."""
    num_behind: int
    """How many of the tracks, from the first, lie behind it."""

    @property
    def ends(self) -> tuple[float, float]:
        """Where it begins and ends along its axis."""
        return self.middle - BAR_WIDTH / 2, self.middle + BAR_WIDTH / 2


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ReferringScene:
    """A whole video; a still is one of one frame."""

    tracks: tuple[Track, ...]
    """From back to front."""
    bar: Bar | None
    background: str
    drift: Float[np.ndarray, "T 2"]
    """How far everything is shifted by the camera in every frame, across and down."""
    look: int
    """Seed of the texture and the noise."""

    @property
    def num_frames(self) -> int:
        """Number of frames."""
        return len(self.drift)


def in_view(track: Track) -> Bool[np.ndarray, "T"]:
    """Where at least a part of the thing's box is on the canvas, were there no other thing and a still camera."""
    reach = track.side / 2
    centres = track.path.centres
    return track.path.is_present & ((centres > -reach) & (centres < 1 + reach)).all(axis=1)


def cover(track: Track, front: Track) -> Float[np.ndarray, "T"]:
    """The part of a thing's box that another's box covers, frame by frame."""
    reach = (track.side + front.side) / 2
    shared = np.clip(reach - np.abs(track.path.centres - front.path.centres), 0, min(track.side, front.side))
    return np.where(front.path.is_present, shared.prod(axis=1) / track.side**2, 0)


def bar_cover(track: Track, bar: Bar) -> Float[np.ndarray, "T"]:
    """The part of a thing's box that lies on the bar, frame by frame."""
    low, high = bar.ends
    along = track.path.centres[:, bar.axis]
    shared = np.minimum(along + track.side / 2, high) - np.maximum(along - track.side / 2, low)
    return np.clip(shared, 0, None) / track.side


def exposure(scene: ReferringScene, index: int) -> float:
    """The least that can be seen of a thing's box, mean over the frames in which it is in view; the bar aside."""
    track = scene.tracks[index]
    seen = in_view(track)
    if not seen.any():
        return 0.0
    covered = sum((cover(track, front) for front in scene.tracks[index + 1 :]), np.zeros(scene.num_frames))
    return float(np.clip(1 - covered, 0, 1)[seen].mean())
