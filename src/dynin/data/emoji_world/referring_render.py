"""Pixels and visible masks of referring videos and stills.

Enters: a `ReferringScene` and the side of the canvas in pixels. Leaves: frames and, for every pixel, which thing is
seen there. Does not know: motions, sentences.

Things are drawn from back to front with the alpha of their artwork. A pixel belongs to the foremost thing that covers
it by more than half, so masks never overlap and what is hidden belongs to nobody.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8

from dynin.data.emoji_world.artwork import TILE_PX, tile
from dynin.data.emoji_world.referring_motion import MOST_DRIFT
from dynin.data.emoji_world.referring_scene import Bar, ReferringScene
from dynin.data.emoji_world.scene import BACKGROUNDS

SIDES_PX = (64, 96, 128)
"""Canvases on which things have whole pixels: small ones 12, 18 and 24, large ones 18, 27 and 36."""

NOBODY = 0
BAR = 255


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Rendered:
    """A video as arrays."""

    frames: UInt8[np.ndarray, "T Y X 3"]
    """RGB."""
    owners: UInt8[np.ndarray, "T Y X"]
    """1 + index of the thing seen at a pixel; `NOBODY` for the background, `BAR` for the bar."""

    def mask(self, things: frozenset[int], frame: int) -> Bool[np.ndarray, "Y X"]:
        """The visible pixels of some things in one frame."""
        return np.isin(self.owners[frame], [1 + index for index in sorted(things)])


def corner_px(centre: float, side: float, drift: float, side_px: int) -> int:
    """Pixel at which the left or upper edge of a thing lies: things and the camera move by whole pixels."""
    return int(np.floor((centre - side / 2) * side_px + 0.5) + np.floor(drift * side_px + 0.5))


def size_px(side: float, side_px: int) -> int:
    """Side of a thing in pixels."""
    return int(np.floor(side * side_px + 0.5))


@cache
def averaging(source: int, target: int) -> Float64[np.ndarray, "B A"]:
    """The matrix that averages `source` pixels to `target` ones by area."""
    edges = np.arange(target + 1) * source / target
    pixels = np.arange(source)
    shared = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.clip(shared, 0, None) * target / source


@cache
def sprite(name: str, side: int) -> Float32[np.ndarray, "Y X 4"]:
    """A thing's picture of any size, premultiplied: RGB in [0, 255], alpha in [0, 1] in whole steps of 1/255."""
    matrix = averaging(TILE_PX, side)
    averaged = np.einsum("ya,xb,abc->yxc", matrix, matrix, tile(name, TILE_PX).astype(np.float64), optimize=True)
    averaged = np.rint(averaged * 255)
    averaged[..., 3] /= 255
    made = averaged.astype(np.float32)
    made.flags.writeable = False
    return made


def render(scene: ReferringScene, side_px: int) -> Rendered:
    """Draw every frame."""
    generator = np.random.Generator(np.random.PCG64(scene.look))
    num_frames = scene.num_frames
    ground = _ground(scene.background, side_px, generator)
    room = (len(ground) - side_px) // 2
    frames = np.empty((num_frames, side_px, side_px, 3), dtype=np.float32)
    owners = np.zeros((num_frames, side_px, side_px), dtype=np.uint8)
    for frame, (across, down) in enumerate(np.floor(scene.drift * side_px + 0.5).astype(int).tolist()):
        frames[frame] = ground[room - down :, room - across :][:side_px, :side_px]
    for index, track in enumerate(scene.tracks):
        if scene.bar is not None and scene.bar.num_behind == index:
            _draw_bar(scene.bar, scene, frames, owners)
        picture = sprite(track.name, size_px(track.side, side_px))
        opaque = picture[..., 3] > 0.5
        for frame in np.flatnonzero(track.path.is_present).tolist():
            left, top = (
                corner_px(track.path.centres[frame, axis], track.side, scene.drift[frame, axis], side_px)
                for axis in (0, 1)
            )
            rows, inner_rows = _shared(top, len(picture), side_px)
            columns, inner_columns = _shared(left, len(picture), side_px)
            part = picture[inner_rows, inner_columns]
            seen = frames[frame, rows, columns]
            seen *= 1 - part[..., 3:]
            seen += part[..., :3]
            owners[frame, rows, columns][opaque[inner_rows, inner_columns]] = index + 1
    if scene.bar is not None and scene.bar.num_behind == len(scene.tracks):
        _draw_bar(scene.bar, scene, frames, owners)
    strength = int(generator.integers(0, 7))
    if strength:
        frames += generator.integers(-strength, strength + 1, size=frames.shape, dtype=np.int8)
    return Rendered(frames=np.clip(np.rint(frames), 0, 255).astype(np.uint8), owners=owners)


def _shared(start: int, length: int, side_px: int) -> tuple[slice, slice]:
    """The part of the canvas that something covers along an axis, and the part of it that is seen there."""
    first, last = min(max(start, 0), side_px), max(min(start + length, side_px), 0)
    return slice(first, max(first, last)), slice(first - start, max(first, last) - start)


def _draw_bar(
    bar: Bar,
    scene: ReferringScene,
    frames: Float32[np.ndarray, "T Y X 3"],
    owners: UInt8[np.ndarray, "T Y X"],
) -> None:
    """Paint the bar with stripes along it over what was drawn so far."""
    side_px = frames.shape[1]
    low, high = bar.ends
    width = size_px(high - low, side_px)
    shade = np.where(np.arange(width) % 4 < 2, 1.0, 0.86).astype(np.float32)
    paint = shade[:, None] * np.array(BACKGROUNDS[bar.colour], dtype=np.float32)
    for frame in range(scene.num_frames):
        start = corner_px(bar.middle, high - low, scene.drift[frame, bar.axis], side_px)
        canvas, inner = _shared(start, width, side_px)
        if bar.axis == 0:
            frames[frame, :, canvas] = paint[inner]
            owners[frame, :, canvas] = BAR
        else:
            frames[frame, canvas] = paint[inner, None]
            owners[frame, canvas] = BAR


def _ground(background: str, side_px: int, generator: np.random.Generator) -> Float32[np.ndarray, "Y X 3"]:
    """A textured background, larger than the canvas by what the camera wanders."""
    side = side_px + 2 * (int(np.ceil(MOST_DRIFT * side_px)) + 1)
    places = np.linspace(0, 1, side)
    kind = int(generator.integers(5))
    strength = generator.uniform(8, 18)
    phase, count = generator.random(), int(generator.integers(3, 7))
    if kind == 0:  # clouds
        pattern = _stretched(generator.uniform(-1, 1, size=(count + 2, count + 2)), side)
    elif kind == 1:  # grains
        pattern = generator.uniform(-1, 1, size=(side, side))
    elif kind == 2:  # stripes
        angle = generator.uniform(0, np.pi)
        pattern = np.sin(2 * np.pi * (count * (np.cos(angle) * places + np.sin(angle) * places[:, None]) + phase))
    elif kind == 3:  # checks
        cells = np.floor(places * count + phase)
        pattern = (cells + cells[:, None]) % 2 * 2 - 1
    else:  # light from one side
        pattern = np.tile(2 * places - 1, (side, 1)) if phase < 0.5 else np.tile(1 - 2 * places[:, None], (1, side))
    ground = np.array(BACKGROUNDS[background], dtype=np.float32) + (strength * pattern[..., None]).astype(np.float32)
    return np.clip(ground, 0, 255)


def _stretched(values: Float64[np.ndarray, "A A"], side: int) -> Float64[np.ndarray, "Y X"]:
    """Few values, spread smoothly over a square."""
    places = np.linspace(0, len(values) - 1, side)
    matrix = np.clip(1 - np.abs(places[:, None] - np.arange(len(values))), 0, None)
    return matrix @ values @ matrix.T
