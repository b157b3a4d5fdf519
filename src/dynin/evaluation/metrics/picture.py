"""The judge of pictures: reads which things lie where on which background, by matching the known artwork.

Enters: pixels. Leaves: a `PictureReading`, the verdict on a claim, the fidelity outside an edit.
Does not know how scenes are drawn or tokenized: of the data it shares the atlas alone, so colours, places and relations
are stated here again. Its limits were fixed before any training; docs/evaluation.md states them.

    background   the named colour that most pixels have
    things       of all ways to lay 2 x 2 and 1 x 1 blocks on the 4 x 4 cells, the one that explains the pixels best
    trust        a thing whose picture, or any quarter of it, fits badly is unknown; so is a bare cell that is not bare
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dynin.data.emoji_world.artwork import NAMES, NUM_OBJECTS, tile
from dynin.data.emoji_world.caption import RelationSlot, SceneSlots

CELL_PX = 16
SIDE_CELLS = 4
SIDE_PX = CELL_PX * SIDE_CELLS
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

    @property
    def cells(self) -> tuple[tuple[int, int], ...]:
        """The (row, column) of its cells on the canvas."""
        rows, columns = range(self.row, self.row + 2), range(self.column, self.column + 2)
        return tuple((r, c) for r in rows for c in columns if 0 <= r < SIDE_CELLS and 0 <= c < SIDE_CELLS)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Layouts:
    """All ways to place large things without overlap."""

    blocks: tuple[_Block, ...]
    uses: Float[Tensor, "L P"]
    """1 where layout L has a thing at block P."""
    bare: Float[Tensor, "L 16"]
    """1 where a cell is under no block."""


@cache
def _layouts(may_leave: bool) -> _Layouts:
    """The blocks, and every set of at most four that do not overlap (three where things may leave the canvas)."""
    inside = range(SIDE_CELLS - 1)
    blocks = [_Block(column=column, row=row) for row in inside for column in inside]
    if may_leave:
        edge = (-1, SIDE_CELLS - 1)
        blocks += [_Block(column=column, row=row) for row in inside for column in edge]
        blocks += [_Block(column=column, row=row) for row in edge for column in inside]
    covered = [frozenset(block.cells) for block in blocks]
    uses, bare = [], []
    for count in range(4 if may_leave else 5):
        for chosen in combinations(range(len(blocks)), count):
            cells = [cell for index in chosen for cell in covered[index]]
            if len(set(cells)) < len(cells):
                continue
            use, free = torch.zeros(len(blocks)), torch.ones(SIDE_CELLS, SIDE_CELLS)
            use[list(chosen)] = 1
            for row, column in cells:
                free[row, column] = 0
            uses.append(use)
            bare.append(free.flatten())
    return _Layouts(blocks=tuple(blocks), uses=torch.stack(uses), bare=torch.stack(bare))


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
        pixels: 64 x 64 px in [-1, 1].
        num_objects: How many objects of the atlas are looked for, from the first.
        may_leave: Whether a large thing may be half outside the canvas, as in videos.
    Raises:
        ValueError: If the picture is not 64 x 64 px.
    """
    if tuple(pixels.shape) != (3, SIDE_PX, SIDE_PX):
        raise ValueError(f"picture has shape {tuple(pixels.shape)}; the judge reads (3, {SIDE_PX}, {SIDE_PX})")
    picture = (pixels.detach().to("cpu", torch.float32) + 1) / 2
    background = _background(picture)
    if background is None:
        return PictureReading(background=None, things=(), num_unknown_cells=SIDE_CELLS**2)
    shown = _cells(picture[None])[0]  # 4 4 P
    ground = torch.tensor(GROUND_COLOURS[background])[:, None].expand(3, CELL_PX**2).flatten() / 255
    bare_error = (shown - ground).square().sum(-1)  # 4 4
    large = _cell_errors(shown, _templates(background, 2, num_objects))  # A 2 2 4 4
    small = _cell_errors(shown, _templates(background, 1, num_objects))[:, 0, 0]  # A 4 4
    layouts = _layouts(may_leave)
    fits = torch.stack([_block_error(large, block) for block in layouts.blocks])  # P A
    block_cost = fits.min(1).values + THING_COST
    cell_cost = torch.minimum(bare_error, small.min(0).values + THING_COST).flatten()
    best = int((layouts.uses @ block_cost + layouts.bare @ cell_cost).argmin())

    things: list[SeenThing] = []
    num_unknown = 0
    for index in layouts.uses[best].nonzero()[:, 0].tolist():
        block, which = layouts.blocks[index], int(fits[index].argmin())
        errors = torch.stack([large[which, r - block.row, c - block.column, r, c] for r, c in block.cells])
        empty = torch.stack([bare_error[r, c] for r, c in block.cells])
        if _is_trusted(errors, empty):
            things.append(_seen(which, "large", block.column, block.row, errors, empty))
        else:
            num_unknown += len(block.cells)
    for row, column in layouts.bare[best].reshape(SIDE_CELLS, SIDE_CELLS).nonzero().tolist():
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


def _block_error(large: Float[Tensor, "A 2 2 4 4"], block: _Block) -> Float[Tensor, " A"]:
    """Squared error of every object laid at a block."""
    return torch.stack([large[:, r - block.row, c - block.column, r, c] for r, c in block.cells]).sum(0)


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
