"""The judge of pictures: reads which things lie where on which background, by matching the known artwork.

Enters: pixels. Leaves: a `PictureReading`, the verdict on a claim, the fidelity outside an edit.
Does not know how scenes are drawn or tokenized: of the data it shares the atlas alone, so colours, places and relations
are stated here again. Its limits were fixed before any training; docs/evaluation.md states them.

    background   the named colour that most pixels have
    things       of all ways to lay 2 x 2 and 1 x 1 blocks on the cells, the one that explains the pixels best
    trust        a thing whose picture, or any quarter of it, fits badly is unknown; so is a bare cell that is not bare
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from dynin.data.emoji_world.artwork import NAMES, NUM_OBJECTS, tile
from dynin.data.emoji_world.caption import RelationSlot, SceneSlots

CELL_PX = 16
LEAST_CELLS, MOST_CELLS = 4, 16
"""Cells along a side of pictures that are read."""
CELL_VALUES = 3 * CELL_PX**2

GROUND_COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (168, 28, 52),
    "orange": (250, 148, 70),
    "yellow": (255, 236, 130),
    "green": (38, 106, 60),
    "blue": (42, 64, 146),
    "purple": (150, 110, 205),
    "white": (250, 250, 250),
    "black": (24, 24, 28),
}
"""The colours that count as backgrounds, in RGB 0..255."""

GROUND_DISTANCE = 0.2
"""Farthest distance in RGB, each channel in [0, 1], at which a pixel still has a background's colour."""
LEAST_GROUND_SHARE = 0.08
"""Share of pixels that a background must have."""
THING_COST = 0.004 * CELL_VALUES
"""Squared error that a thing must explain away to be believed."""
WORST_MISFIT = 0.3
"""Largest squared error of a thing, relative to that of bare ground in its place."""
WORST_QUARTER_MISFIT = 0.5
"""The same for every cell of a thing, unless the error is below `BARE_ERROR`."""
BARE_ERROR = 0.02 * CELL_VALUES
"""Largest squared error of a cell that counts as bare ground."""
IMPOSSIBLE = 1e9
"""A squared error that no picture has: the cost of what may not be."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SeenThing:
    """One thing that the judge found."""

    name: str
    size: str
    """"large" (2 x 2 cells) or "small" (one cell)."""
    column: int
    row: int
    misfit: float
    """Squared error relative to bare ground in its place; 0 is a perfect picture of the thing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureReading:
    """What the judge sees in a picture."""

    background: str | None
    """None if no named colour covers enough of the picture."""
    things: tuple[SeenThing, ...]
    """From upper left to lower right."""
    num_unknown_cells: int
    """Cells that show neither ground nor any known thing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Block:
    """A place for a large thing; partly outside the canvas only where videos are read."""

    column: int
    row: int

    def cells(self, side: int) -> tuple[tuple[int, int], ...]:
        """The (row, column) of its cells on a canvas of so many cells a side."""
        rows, columns = range(self.row, self.row + 2), range(self.column, self.column + 2)
        return tuple((r, c) for r in rows for c in columns if 0 <= r < side and 0 <= c < side)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Strips:
    """All ways to put large things side by side whose upper edges lie in the same row. The first way is none."""

    uses: Float[Tensor, "W C1"]
    """1 where way W has a thing whose left edge is at column C1 - 1."""
    covers: Float[Tensor, "W C"]
    """1 where it covers column C of the canvas."""
    clash: Float[Tensor, "W W"]
    """IMPOSSIBLE where a way would cover what another way, one row above, covers too; else 0."""


@cache
def _strips(side: int) -> _Strips:
    ways: list[tuple[int, ...]] = [()]
    for column in range(-1, side):
        ways += [(*way, column) for way in ways if not way or way[-1] + 2 <= column]
    uses, covers = torch.zeros(len(ways), side + 1), torch.zeros(len(ways), side + 2)
    for index, way in enumerate(ways):
        for column in way:
            uses[index, column + 1] = 1
            covers[index, column + 1 : column + 3] = 1
    covers = covers[:, 1:-1]
    return _Strips(uses=uses, covers=covers, clash=((covers @ covers.T) > 0) * IMPOSSIBLE)


def _best_blocks(block_cost: Float[Tensor, "R1 C1"], cell_cost: Float[Tensor, "R C"]) -> list[_Block]:
    """The large things of the cheapest way to lay blocks and cells, each cell being under one block or its own.

    Found exactly, row by row: what is cheapest from here on depends only on what the row above reaches into this one.

    Args:
        block_cost: Of a block by its upper left cell, from row and column -1.
    """
    side = len(cell_cost)
    strips = _strips(side)
    chosen_above: list[Int[Tensor, " W"]] = []
    best = torch.full((len(strips.uses),), IMPOSSIBLE)
    best[0] = 0
    for row in range(-1, side):
        cells = cell_cost[row] if row >= 0 else torch.zeros(side)
        above = best - strips.covers @ cells
        least = (above + strips.clash).min(dim=1)
        chosen_above.append(least.indices)
        best = least.values + strips.uses @ block_cost[row + 1] - strips.covers @ cells + cells.sum()
    way = int(best.argmin())
    found: list[_Block] = []
    for row in range(side - 1, -2, -1):
        found += [_Block(column=column - 1, row=row) for column in strips.uses[way].nonzero()[:, 0].tolist()]
        way = int(chosen_above[row + 1][way])
    return found[::-1]


@cache
def _templates(background: str, size_cells: int, num_objects: int) -> Float[Tensor, "A R C P"]:
    """Every object on a background, cut into cells: object, row, column, values of the cell."""
    ground = torch.tensor(GROUND_COLOURS[background]) / 255
    size_px = size_cells * CELL_PX
    drawn = []
    for name in NAMES[:num_objects]:
        picture = torch.tensor(tile(name, size_px))
        drawn.append((picture[..., :3] + (1 - picture[..., 3:]) * ground).permute(2, 0, 1))
    return _cells(torch.stack(drawn))


def _cells(pictures: Float[Tensor, "A 3 Y X"]) -> Float[Tensor, "A R C P"]:
    """Cut pictures into cells."""
    cut = pictures.unfold(2, CELL_PX, CELL_PX).unfold(3, CELL_PX, CELL_PX)  # A 3 R C p p
    return cut.permute(0, 2, 3, 1, 4, 5).flatten(3)


def _background(picture: Float[Tensor, "3 Y X"]) -> str | None:
    """The named colour that most pixels have."""
    colours = torch.tensor(list(GROUND_COLOURS.values())) / 255
    distance = (picture.flatten(1).T[:, None] - colours).square().sum(-1)  # pixels, colours
    share = ((distance == distance.min(1, keepdim=True).values) & (distance < GROUND_DISTANCE**2)).float().mean(0)
    return None if float(share.max()) < LEAST_GROUND_SHARE else list(GROUND_COLOURS)[int(share.argmax())]


def read_picture(
    pixels: Float[Tensor, "3 Y X"], *, num_objects: int = NUM_OBJECTS, may_leave: bool = False
) -> PictureReading:
    """What a picture shows.

    Args:
        pixels: In [-1, 1]; a square of 4 to 16 cells of 16 px a side.
        num_objects: How many objects of the atlas are looked for, from the first.
        may_leave: Whether a large thing may be half outside the canvas, as in videos.
    Raises:
        ValueError: If the picture has another size.
    """
    sides = [CELL_PX * cells for cells in range(LEAST_CELLS, MOST_CELLS + 1)]
    if tuple(pixels.shape) not in [(3, side_px, side_px) for side_px in sides]:
        raise ValueError(
            f"picture has shape {tuple(pixels.shape)}; the judge reads squares (3, Y, X) of {sides[0]} to "
            f"{sides[-1]} px in steps of {CELL_PX}"
        )
    side = pixels.shape[-1] // CELL_PX
    picture = (pixels.detach().to("cpu", torch.float32) + 1) / 2
    background = _background(picture)
    if background is None:
        return PictureReading(background=None, things=(), num_unknown_cells=side**2)
    shown = _cells(picture[None])[0]  # R C P
    ground = torch.tensor(GROUND_COLOURS[background])[:, None].expand(3, CELL_PX**2).flatten() / 255
    bare_error = (shown - ground).square().sum(-1)  # R C
    large = _cell_errors(shown, _templates(background, 2, num_objects))  # A 2 2 R C
    small = _cell_errors(shown, _templates(background, 1, num_objects))[:, 0, 0]  # A R C
    fits = _block_errors(large)  # A R1 C1
    block_cost = fits.min(0).values + THING_COST
    is_edge = torch.ones(side + 1, side + 1)
    is_edge[1:-1, 1:-1] = 0
    if may_leave:
        is_edge[1:-1] = is_edge[:, 1:-1] = 0  # over one edge, but not over a corner
    cell_cost = torch.minimum(bare_error, small.min(0).values + THING_COST)
    blocks = _best_blocks(block_cost + is_edge * IMPOSSIBLE, cell_cost)

    things: list[SeenThing] = []
    num_unknown = 0
    is_bare = torch.ones(side, side, dtype=torch.bool)
    for block in blocks:
        cells, which = block.cells(side), int(fits[:, block.row + 1, block.column + 1].argmin())
        errors = torch.stack([large[which, r - block.row, c - block.column, r, c] for r, c in cells])
        empty = torch.stack([bare_error[r, c] for r, c in cells])
        is_bare[max(0, block.row) : block.row + 2, max(0, block.column) : block.column + 2] = False
        if _is_trusted(errors, empty):
            things.append(_seen(which, "large", block.column, block.row, errors, empty))
        else:
            num_unknown += len(cells)
    for row, column in is_bare.nonzero().tolist():
        which = int(small[:, row, column].argmin())
        errors, empty = small[which, row, column][None], bare_error[row, column][None]
        if float(errors + THING_COST) < float(empty) and _is_trusted(errors, empty):
            things.append(_seen(which, "small", column, row, errors, empty))
        elif float(empty) > BARE_ERROR:
            num_unknown += 1
    things.sort(key=lambda thing: (thing.row, thing.column))
    return PictureReading(background=background, things=tuple(things), num_unknown_cells=num_unknown)


def _cell_errors(shown: Float[Tensor, "Y X P"], templates: Float[Tensor, "A R C P"]) -> Float[Tensor, "A R C Y X"]:
    """Squared error of every cell of every object against every cell of the picture."""
    product = torch.tensordot(templates, shown, dims=([3], [2]))
    squares = templates.square().sum(-1)[..., None, None] + shown.square().sum(-1)
    return (squares - 2 * product).clamp(min=0)


def _block_errors(large: Float[Tensor, "A 2 2 R C"]) -> Float[Tensor, "A R1 C1"]:
    """Squared error of every object laid at every block, by its upper left cell from row and column -1.

    What lies outside the canvas has no error.
    """
    rows, columns = large.shape[3] + 1, large.shape[4] + 1
    padded = functional.pad(large, (1, 1, 1, 1))
    parts = [padded[:, r, c, r : r + rows, c : c + columns] for r in (0, 1) for c in (0, 1)]
    return torch.stack(parts).sum(0)


def _is_trusted(errors: Float[Tensor, " N"], bare: Float[Tensor, " N"]) -> bool:
    """Whether a thing's cells fit well enough to say that it is there."""
    is_good = (errors <= WORST_QUARTER_MISFIT * bare) | (errors <= BARE_ERROR)
    return bool(is_good.all()) and float(errors.sum()) <= WORST_MISFIT * float(bare.sum())


def _seen(which: int, size: str, column: int, row: int, errors: Tensor, bare: Tensor) -> SeenThing:
    misfit = float(errors.sum() / bare.sum())
    return SeenThing(name=NAMES[which], size=size, column=column, row=row, misfit=misfit)


def relations_of(things: Sequence[SeenThing]) -> frozenset[RelationSlot]:
    """Every relation that holds beyond doubt, said with "left of" and "above".

    It holds when one thing ends before the other begins, and the centres are farther apart that way than the other way.
    """
    found: set[RelationSlot] = set()
    for one in things:
        for other in things:
            one_span, other_span = (2 if thing.size == "large" else 1 for thing in (one, other))
            across = other.column + other_span / 2 - one.column - one_span / 2
            down = other.row + other_span / 2 - one.row - one_span / 2
            if one.column + one_span <= other.column and across > abs(down):
                found.add((one.name, "left of", other.name))
            if one.row + one_span <= other.row and down > abs(across):
                found.add((one.name, "above", other.name))
    return frozenset(found)


def picture_matches(pixels: Float[Tensor, "3 Y X"], slots: SceneSlots, *, num_objects: int = NUM_OBJECTS) -> bool:
    """Whether a picture shows what is claimed: exactly these things and sizes, the relations and the background.

    A thing too many, a thing that cannot be recognised or anything else on the ground makes it wrong.
    """
    return reading_matches(read_picture(pixels, num_objects=num_objects), slots)


def reading_matches(reading: PictureReading, slots: SceneSlots) -> bool:
    """The verdict of `picture_matches` on a picture that was read already."""
    if reading.background is None or reading.num_unknown_cells:
        return False
    if slots.background is not None and reading.background != slots.background:
        return False
    if Counter((thing.name, thing.size) for thing in reading.things) != Counter(slots.things):
        return False
    return slots.relations <= relations_of(reading.things)


def reading_shows(reading: PictureReading, things: Iterable[tuple[str, str, int, int]], background: str) -> bool:
    """Whether a picture shows exactly these things at exactly these places, as the target of an edit must.

    Args:
        things: Name, size, column and row of each.
    """
    if reading.background != background or reading.num_unknown_cells:
        return False
    return Counter((thing.name, thing.size, thing.column, thing.row) for thing in reading.things) == Counter(things)


def psnr_outside(
    result: Float[Tensor, "3 Y X"], source: Float[Tensor, "3 Y X"], is_edited: Bool[Tensor, "Y X"]
) -> float:
    """Peak signal-to-noise ratio in dB over the pixels that an edit should leave alone; at most 100.

    Args:
        result: Decoded picture in [-1, 1], before anything of the source is pasted over it.
        is_edited: Pixels that the edit may change.
    Raises:
        ValueError: If the shapes differ or nothing is outside.
    """
    if result.shape != source.shape or result.shape[1:] != is_edited.shape:
        raise ValueError(
            f"shapes differ: result {tuple(result.shape)}, source {tuple(source.shape)}, edit {tuple(is_edited.shape)}"
        )
    if bool(is_edited.all()):
        raise ValueError("the edit covers the whole picture; there is nothing outside to compare")
    error = (result - source)[:, ~is_edited].double().div(2).square().mean()  # peak to peak is 2
    return float(-10 * torch.log10(error.clamp(min=1e-10)))
