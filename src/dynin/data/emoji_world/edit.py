"""Instructed edits of still scenes, with exact targets.

Enters: `Scene` values, names and a numpy generator. Leaves: `Edit` values and the region that an edit may change. Does
not know: splits, tasks.

What an instruction leaves open is fixed by rule, so that each has one exact target: an added thing has its
neighbour's size and touches it, with the same upper left row (or column); a moved thing goes straight to the edge.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool

from dynin.data.emoji_world import wording
from dynin.data.emoji_world.artwork import COLOUR_FAMILIES, family, plural
from dynin.data.emoji_world.caption import is_describable
from dynin.data.emoji_world.scene import (
    BACKGROUNDS,
    CELL_PX,
    MOST_THINGS,
    RELATIONS,
    Relation,
    Scene,
    Thing,
    is_inside,
    overlap,
    render,
    visible_masks,
)

Operation = Literal["replace", "remove", "add", "move", "recolour", "background"]
OPERATIONS: tuple[Operation, ...] = ("replace", "remove", "add", "move", "recolour", "background")


@dataclass(frozen=True, kw_only=True, slots=True)
class Edit:
    """A scene, what to do with it, and what comes out."""

    operation: Operation
    instruction: str
    source: Scene
    target: Scene


_REPLACE = (
    "replace the {old} with {new}", "turn the {old} into {new}", "change the {old} to {new}",
    "make the {old} {new}", "put {new} in place of the {old}", "swap the {old} for {new}",
)  # fmt: skip
_REMOVE = (
    "remove the {old}", "delete the {old}", "take away the {old}", "erase the {old}", "get rid of the {old}",
    "take the {old} out of the picture",
)  # fmt: skip
_ADD = (
    "add {new} {held} the {anchor}", "put {new} {held} the {anchor}", "place {new} {held} the {anchor}",
    "draw {new} {held} the {anchor}", "there should be {new} {held} the {anchor}",
)  # fmt: skip
_MOVE = {
    "left": ("move the {old} to the left", "push the {old} to the left edge", "put the {old} at the left edge"),
    "right": ("move the {old} to the right", "push the {old} to the right edge", "put the {old} at the right edge"),
    "up": ("move the {old} to the top", "push the {old} up to the top", "put the {old} at the top edge"),
    "down": ("move the {old} to the bottom", "push the {old} down to the bottom", "put the {old} at the bottom edge"),
}
_RECOLOUR = (
    "make the {noun} {colour}", "turn the {noun} {colour}", "color the {noun} {colour}",
    "change the color of the {noun} to {colour}", "paint the {noun} {colour}",
)  # fmt: skip
_BACKGROUND = (
    "make the background {colour}", "change the background to {colour}", "turn the background {colour}",
    "use a {colour} background", "paint the background {colour}", "change the background color to {colour}",
)  # fmt: skip


def sample_edit(
    operation: Operation, source: Scene, names: Sequence[str], generator: np.random.Generator
) -> Edit | None:
    """Draw an edit of this operation, or None where the scene (or the drawn detail) does not allow it.

    The target is always describable.
    """
    match operation:
        case "replace":
            drawn = _replace(source, names, generator)
        case "remove":
            drawn = _remove(source, generator)
        case "add":
            drawn = _add(source, names, generator)
        case "move":
            drawn = _move(source, generator)
        case "recolour":
            drawn = _recolour(source, names, generator)
        case _:
            drawn = _change_background(source, generator)
    if drawn is None:
        return None
    text, target = drawn
    if not is_describable(target):
        return None
    instruction = wording.vary_form(text, generator)
    return Edit(operation=operation, instruction=instruction, source=source, target=target)


def changed_region(edit: Edit) -> Bool[np.ndarray, "Y X"]:
    """The pixels that the edit may change; all others are equal in source and target.

    These are the squares of every thing that comes, goes or changes; for a new background, all that no thing covers.
    """
    if edit.operation == "background":
        return ~(visible_masks(edit.source).any(axis=0) & (render(edit.source) == render(edit.target)).all(axis=-1))
    region = np.zeros((edit.source.side_px,) * 2, dtype=bool)
    for thing in set(edit.source.things) ^ set(edit.target.things):
        top, left, side = thing.row * CELL_PX, thing.column * CELL_PX, thing.num_cells * CELL_PX
        region[top : top + side, left : left + side] = True
    return region


def _exchange(scene: Scene, old: Thing, new: Thing) -> Scene:
    return replace(scene, things=tuple(new if thing is old else thing for thing in scene.things))


def _other_name(scene: Scene, names: Sequence[str], generator: np.random.Generator) -> str | None:
    name = names[int(generator.integers(len(names)))]
    return None if any(thing.name == name for thing in scene.things) else name


def _any_thing(scene: Scene, generator: np.random.Generator) -> Thing:
    return scene.things[int(generator.integers(len(scene.things)))]


def _replace(scene: Scene, names: Sequence[str], generator: np.random.Generator) -> tuple[str, Scene] | None:
    name = _other_name(scene, names, generator)
    if name is None:
        return None
    form = wording.pick(_REPLACE, generator)
    if scene.kind == "count":
        target = replace(scene, things=tuple(replace(thing, name=name) for thing in scene.things))
        return form.format(old=plural(scene.things[0].name), new=plural(name)), target
    old = _any_thing(scene, generator)
    return form.format(old=old.name, new=wording.one_of(name)), _exchange(scene, old, replace(old, name=name))


def _remove(scene: Scene, generator: np.random.Generator) -> tuple[str, Scene] | None:
    if scene.kind in ("one", "count"):
        return None
    old = _any_thing(scene, generator)
    target = replace(scene, things=tuple(thing for thing in scene.things if thing is not old))
    return wording.pick(_REMOVE, generator).format(old=old.name), target


def _beside(anchor: Thing, held: Relation, name: str) -> Thing:
    """A thing of the anchor's size that touches it."""
    columns, rows = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}[held]
    column, row = anchor.column + columns * anchor.num_cells, anchor.row + rows * anchor.num_cells
    return Thing(name=name, size=anchor.size, column=column, row=row)


def _add(scene: Scene, names: Sequence[str], generator: np.random.Generator) -> tuple[str, Scene] | None:
    name = _other_name(scene, names, generator)
    if name is None or scene.kind == "count" or len(scene.things) == MOST_THINGS:
        return None
    anchor = _any_thing(scene, generator)
    options = []
    for held in RELATIONS:
        thing = _beside(anchor, held, name)
        if is_inside(thing, scene.num_cells) and not any(overlap(thing, other) for other in scene.things):
            options.append((held, thing))
    if not options:
        return None
    held, new = options[int(generator.integers(len(options)))]
    text = wording.pick(_ADD, generator).format(new=wording.one_of(name, new.size), held=held, anchor=anchor.name)
    return text, replace(scene, things=(*scene.things, new))


def _move(scene: Scene, generator: np.random.Generator) -> tuple[str, Scene] | None:
    """Straight to an edge that the thing does not touch yet, past nothing else."""
    if scene.kind == "count":
        return None
    old = _any_thing(scene, generator)
    last = scene.num_cells - old.num_cells
    ends = {"left": (0, old.row), "right": (last, old.row), "up": (old.column, 0), "down": (old.column, last)}
    options = []
    for direction, (column, row) in ends.items():
        new = replace(old, column=column, row=row)
        steps = [
            replace(old, column=at_column, row=at_row)
            for at_column in range(min(old.column, column), max(old.column, column) + 1)
            for at_row in range(min(old.row, row), max(old.row, row) + 1)
        ]
        others = [thing for thing in scene.things if thing is not old]
        if new != old and not any(overlap(step, other) for step in steps for other in others):
            options.append((direction, new))
    if not options:
        return None
    direction, new = options[int(generator.integers(len(options)))]
    return wording.pick(_MOVE[direction], generator).format(old=old.name), _exchange(scene, old, new)


def _recolour(scene: Scene, names: Sequence[str], generator: np.random.Generator) -> tuple[str, Scene] | None:
    options = []
    shown = {thing.name for thing in scene.things}
    for thing in scene.things:
        noun = family(thing.name)
        if noun is not None:
            for colour in COLOUR_FAMILIES[noun]:
                name = f"{colour} {noun}"
                if name in names and name not in shown:
                    options.append((thing, noun, colour))
    if not options or scene.kind == "count":
        return None
    old, noun, colour = options[int(generator.integers(len(options)))]
    is_only_one = sum(family(thing.name) == noun for thing in scene.things) == 1
    called = noun if is_only_one and generator.random() < 0.5 else old.name
    text = wording.pick(_RECOLOUR, generator).format(noun=called, colour=colour)
    return text, _exchange(scene, old, replace(old, name=f"{colour} {noun}"))


def _change_background(scene: Scene, generator: np.random.Generator) -> tuple[str, Scene] | None:
    colours = [colour for colour in BACKGROUNDS if colour != scene.background]
    colour = colours[int(generator.integers(len(colours)))]
    text = wording.pick(_BACKGROUND, generator).format(colour=colour).replace("a orange", "an orange")
    return text, replace(scene, background=colour)
