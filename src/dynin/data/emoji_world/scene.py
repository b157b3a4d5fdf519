"""Still scenes: what lies where on which background, how such scenes are drawn by chance, and how they look.

Enters: object names and a numpy generator. Leaves: `Scene` values, their pixels, visible masks and relations. Does not
know: wording, splits, tasks, files.

    64 x 64 px = 4 x 4 cells of 16 px; a large thing covers 2 x 2 cells, a small one covers one cell.
    A canvas of more cells has more room and things of the same size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Literal

import numpy as np
from jaxtyping import Bool, UInt8

from dynin.data.emoji_world.artwork import tile

CELL_PX = 16
GRID_CELLS = 4
"""Cells along a side of the usual canvas, the smallest there is."""
MOST_CELLS = 16
"""Cells along a side of the largest canvas."""

Size = Literal["large", "small"]
SIZE_CELLS: dict[str, int] = {"large": 2, "small": 1}
"""Cells along a side of a thing."""

BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "red": (168, 28, 52),
    "orange": (250, 148, 70),
    "yellow": (255, 236, 130),
    "green": (38, 106, 60),
    "blue": (42, 64, 146),
    "purple": (150, 110, 205),
    "white": (250, 250, 250),
    "black": (24, 24, 28),
}
"""Background colours in RGB 0..255: shades that every object stands out from, and that stand apart from each other."""

Relation = Literal["left of", "right of", "above", "below"]
RELATIONS: tuple[Relation, ...] = ("left of", "right of", "above", "below")
OPPOSITE: dict[str, Relation] = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}

Kind = Literal["one", "pair", "count", "trio"]
KINDS: tuple[Kind, ...] = ("one", "pair", "count", "trio")

MOST_THINGS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Thing:
    """One object at one place."""

    name: str
    size: Size
    column: int
    """Cell of its left edge; 0 is the left edge of the canvas."""
    row: int
    """Cell of its upper edge; 0 is the upper edge of the canvas."""

    @property
    def num_cells(self) -> int:
        """Cells along a side."""
        return SIZE_CELLS[self.size]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """Things on a solid background. In still scenes they lie inside the canvas and do not overlap."""

    things: tuple[Thing, ...]
    background: str
    num_cells: int = GRID_CELLS
    """Cells along a side of the canvas."""

    @property
    def side_px(self) -> int:
        """Pixels along a side of the canvas."""
        return self.num_cells * CELL_PX

    @property
    def kind(self) -> Kind:
        """What sort of scene it is: one thing, several of the same, or two or three different ones."""
        if len(self.things) == 1:
            return "one"
        if len({thing.name for thing in self.things}) == 1:
            return "count"
        return "pair" if len(self.things) == 2 else "trio"


def relation(one: Thing, other: Thing) -> Relation | None:
    """How the first thing lies to the second, where that is beyond doubt.

    Beyond doubt means: their extents along the axis do not overlap, and their centres are farther apart along this axis
    than across it. A pair on the diagonal has no relation.
    """
    across = 2 * (other.column - one.column) + other.num_cells - one.num_cells  # distance of centres in half cells
    down = 2 * (other.row - one.row) + other.num_cells - one.num_cells
    reach = one.num_cells + other.num_cells  # half cells between the centres of things that touch
    if abs(across) > abs(down) and abs(across) >= reach:
        return "left of" if across > 0 else "right of"
    if abs(down) > abs(across) and abs(down) >= reach:
        return "above" if down > 0 else "below"
    return None


def overlap(one: Thing, other: Thing) -> bool:
    """Whether two things share a cell."""
    return (
        one.column < other.column + other.num_cells
        and other.column < one.column + one.num_cells
        and one.row < other.row + other.num_cells
        and other.row < one.row + one.num_cells
    )


def is_inside(thing: Thing, num_cells: int = GRID_CELLS) -> bool:
    """Whether the whole thing lies on a canvas of so many cells a side."""
    last = num_cells - thing.num_cells
    return 0 <= thing.column <= last and 0 <= thing.row <= last


@cache
def places(size: Size, num_cells: int = GRID_CELLS) -> tuple[tuple[int, int], ...]:
    """Every (column, row) at which a thing of this size lies inside a canvas of so many cells a side."""
    last = num_cells - SIZE_CELLS[size]
    return tuple(product(range(last + 1), range(last + 1)))


@cache
def _layouts(sizes: tuple[Size, ...]) -> dict[tuple[Relation | None, ...], tuple[tuple[tuple[int, int], ...], ...]]:
    """All overlap-free placements on the usual canvas, by the relations of things (0, 1), (2, 0) and (2, 1)."""
    found: dict[tuple[Relation | None, ...], list[tuple[tuple[int, int], ...]]] = {}
    for placement in product(*(places(size) for size in sizes)):
        key = _relations(sizes, placement)
        if key is not None:
            found.setdefault(key, []).append(placement)
    return {key: tuple(placements) for key, placements in found.items()}


def _relations(sizes: tuple[Size, ...], placement: Sequence[tuple[int, int]]) -> tuple[Relation | None, ...] | None:
    """The relations of things (0, 1), (2, 0) and (2, 1), as far as they exist; None where things overlap."""
    things = _put(("",) * len(sizes), sizes, placement)
    pairs = ((0, 1),) if len(sizes) == 2 else ((0, 1), (2, 0), (2, 1))
    if any(overlap(things[i], things[j]) for i, j in pairs):
        return None
    return tuple(relation(things[i], things[j]) for i, j in pairs)


@cache
def _any_layout(sizes: tuple[Size, ...]) -> tuple[tuple[tuple[int, int], ...], ...]:
    return tuple(placement for placements in _layouts(sizes).values() for placement in placements)


@cache
def _trio_layouts(sizes: tuple[Size, ...], first: Relation) -> tuple[tuple[tuple[int, int], ...], ...]:
    """Placements of three things whose first two have the given relation and whose third is related to one of them."""
    return tuple(
        placement
        for key, placements in _layouts(sizes).items()
        if key[0] == first and (key[1] or key[2])
        for placement in placements
    )


def _draw_placement(
    sizes: tuple[Size, ...], first: Relation | None, num_cells: int, generator: np.random.Generator
) -> tuple[tuple[int, int], ...]:
    """Places of two or three things that do not overlap, every choice of them being equally likely.

    Args:
        first: The relation of the first two things; a third must then be related to one of them. None for any places.
    """
    if num_cells > GRID_CELLS:
        return _try_placements(sizes, first, num_cells, generator)
    if first is None:
        layouts = _any_layout(sizes)
    else:
        layouts = _layouts(sizes)[(first,)] if len(sizes) == 2 else _trio_layouts(sizes, first)
    return layouts[int(generator.integers(len(layouts)))]


def _try_placements(
    sizes: tuple[Size, ...], first: Relation | None, num_cells: int, generator: np.random.Generator
) -> tuple[tuple[int, int], ...]:
    """The same on a canvas with too many placements to list them: drawn until one fits."""
    counts = [[num_cells - SIZE_CELLS[size] + 1] * 2 for size in sizes]
    while True:
        placement = tuple((column, row) for column, row in generator.integers(counts).tolist())
        key = _relations(sizes, placement)
        if key is not None and (first is None or (key[0] == first and (len(sizes) == 2 or any(key[1:])))):
            return placement


def _put(names: Sequence[str], sizes: Sequence[Size], placement: Sequence[tuple[int, int]]) -> tuple[Thing, ...]:
    return tuple(
        Thing(name=name, size=size, column=column, row=row)
        for name, size, (column, row) in zip(names, sizes, placement, strict=True)
    )


def _draw_sizes(count: int, generator: np.random.Generator) -> tuple[Size, ...]:
    """Mostly all large; in a fifth of the scenes each size is drawn anew."""
    if count == 1:
        return ("large",) if generator.random() < 0.7 else ("small",)
    is_mixed = generator.random() < 0.2
    drawn: list[Size] = ["small" if is_mixed and generator.random() < 0.5 else "large" for _ in range(count)]
    return tuple(drawn)


def sample_scene(
    kind: Kind,
    names: Sequence[str],
    generator: np.random.Generator,
    max_things: int = 3,
    num_cells: int = GRID_CELLS,
) -> Scene:
    """Draw a scene of the given kind: names, sizes, places and background by chance.

    Args:
        names: The objects to choose from, at least three.
        max_things: Upper limit for the number of things of a "count" scene.
        num_cells: Cells along a side of the canvas, `GRID_CELLS` or more.
    """
    background = tuple(BACKGROUNDS)[int(generator.integers(len(BACKGROUNDS)))]
    if kind == "one":
        sizes = _draw_sizes(1, generator)
        choices = places(sizes[0], num_cells)
        chosen: tuple[str, ...] = (names[int(generator.integers(len(names)))],)
        placement: Sequence[tuple[int, int]] = (choices[int(generator.integers(len(choices)))],)
    elif kind == "count":
        count = 3 if max_things >= 3 and generator.random() < 0.5 else 2
        size: Size = "large" if generator.random() < 0.7 else "small"
        sizes = (size,) * count
        chosen = (names[int(generator.integers(len(names)))],) * count
        placement = _draw_placement(sizes, None, num_cells, generator)
    else:
        count = 2 if kind == "pair" else 3
        sizes = _draw_sizes(count, generator)
        chosen = draw_names(names, count, generator)
        first = RELATIONS[int(generator.integers(len(RELATIONS)))]
        placement = _draw_placement(sizes, first, num_cells, generator)
    return Scene(things=_put(chosen, sizes, placement), background=background, num_cells=num_cells)


def draw_names(names: Sequence[str], count: int, generator: np.random.Generator) -> tuple[str, ...]:
    """Draw different names."""
    chosen: list[str] = []
    while len(chosen) < count:
        name = names[int(generator.integers(len(names)))]
        if name not in chosen:
            chosen.append(name)
    return tuple(chosen)


def free_places(scene: Scene, size: Size) -> tuple[tuple[int, int], ...]:
    """Every (column, row) at which a thing of this size would lie inside the canvas and overlap nothing."""
    return tuple(
        (column, row)
        for column, row in places(size, scene.num_cells)
        if not any(overlap(Thing(name="", size=size, column=column, row=row), thing) for thing in scene.things)
    )


@cache
def _composite(name: str, size_px: int, background: str) -> UInt8[np.ndarray, "Y X 3"]:
    """A tile drawn over a solid background."""
    premultiplied = tile(name, size_px)
    colour = np.array(BACKGROUNDS[background], dtype=np.float32)
    blended = premultiplied[..., :3] * 255 + (1 - premultiplied[..., 3:]) * colour
    return np.rint(blended).clip(0, 255).astype(np.uint8)


@cache
def _opaque(name: str, size_px: int) -> Bool[np.ndarray, "Y X"]:
    return tile(name, size_px)[..., 3] > 0.5


@cache
def _blank(background: str, side_px: int) -> UInt8[np.ndarray, "Y X 3"]:
    return np.full((side_px, side_px, 3), BACKGROUNDS[background], dtype=np.uint8)


def _visible(thing: Thing, side_px: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The part of the canvas that a thing covers, and the part of its tile that is seen there."""
    size_px = thing.num_cells * CELL_PX
    corner = (thing.row * CELL_PX, thing.column * CELL_PX)
    starts = [max(0, start) for start in corner]
    stops = [max(0, min(side_px, start + size_px)) for start in corner]
    canvas = tuple(slice(start, stop) for start, stop in zip(starts, stops, strict=True))
    inner = tuple(
        slice(start - origin, max(start, stop) - origin)
        for start, stop, origin in zip(starts, stops, corner, strict=True)
    )
    return (canvas[0], canvas[1]), (inner[0], inner[1])


def render(scene: Scene) -> UInt8[np.ndarray, "Y X 3"]:
    """The scene's pixels. Things must not overlap; what lies outside the canvas is cut off."""
    pixels = _blank(scene.background, scene.side_px).copy()
    for thing in scene.things:
        canvas, inner = _visible(thing, scene.side_px)
        pixels[canvas] = _composite(thing.name, thing.num_cells * CELL_PX, scene.background)[inner]
    return pixels


def visible_masks(scene: Scene) -> Bool[np.ndarray, "N Y X"]:
    """For every thing, the pixels that it covers by more than half."""
    masks = np.zeros((len(scene.things), scene.side_px, scene.side_px), dtype=bool)
    for mask, thing in zip(masks, scene.things, strict=True):
        canvas, inner = _visible(thing, scene.side_px)
        mask[canvas] = _opaque(thing.name, thing.num_cells * CELL_PX)[inner]
    return masks
