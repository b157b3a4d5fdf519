"""False claims: what is true of a scene or a clip with one slot changed, for judging the judges.

Enters: slots, a numpy generator. Leaves: slots of a claim that is wrong in one thing, as a caption could say it. Does
not know pixels or the judges' verdicts.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from dynin.data.emoji_world.artwork import NAMES, NUM_OBJECTS
from dynin.data.emoji_world.caption import RelationSlot, SceneSlots
from dynin.data.emoji_world.clip import MOTIONS
from dynin.data.emoji_world.clip_caption import ClipSlots
from dynin.data.emoji_world.scene import BACKGROUNDS, Relation

Item = TypeVar("Item")

SCENE_SLOTS = ("object", "relation", "background", "count", "size")
CLIP_SLOTS = ("mover", "motion", "background", "size", "second")
OTHER_SIZE = {"large": "small", "small": "large"}
RESIZING = ("grows", "shrinks")
"""Motions whose claim names no size."""
MOST = 3
"""Things of one sort that a caption can count."""


def slots_of_scene(claim: SceneSlots) -> tuple[str, ...]:
    """Which slots of a claim can be changed: a relation where one is stated, a count where all things are equal."""
    left_out = "count" if claim.relations else "relation"
    return tuple(slot for slot in SCENE_SLOTS if slot != left_out)


def slots_of_clip(claim: ClipSlots) -> tuple[str, ...]:
    """Which slots of a claim can be changed: a size unless the motion changes it."""
    return tuple(slot for slot in CLIP_SLOTS if slot != "size" or claim.motion not in RESIZING)


def alter_scene(claim: SceneSlots, slot: str, generator: np.random.Generator) -> SceneSlots:
    """A claim about a scene with one slot changed.

    Things of a counted scene change together, since the caption names them once.

    Args:
        claim: What is true, with its background.
        slot: One of `slots_of_scene(claim)`.
    """
    names = {name for name, _ in claim.things}
    old, size = _drawn(claim.things, generator)
    match slot:
        case "object":
            new = _drawn([name for name in NAMES[:NUM_OBJECTS] if name not in names], generator)
            renamed = {old: new}
            relations = frozenset(
                (renamed.get(one, one), held, renamed.get(other, other)) for one, held, other in claim.relations
            )
            things = tuple(sorted((renamed.get(name, name), size) for name, size in claim.things))
            return replace(claim, things=things, relations=relations)
        case "size":
            things = tuple(sorted((name, OTHER_SIZE[size] if name == old else size) for name, size in claim.things))
            return replace(claim, things=things)
        case "count":
            count = _drawn([count for count in range(1, MOST + 1) if count != len(claim.things)], generator)
            return replace(claim, things=((old, size),) * count)
        case "relation":
            one, held, other = stated = _drawn(sorted(claim.relations), generator)
            across: Relation = "above" if held == "left of" else "left of"
            choices: list[RelationSlot] = [(other, held, one), (one, across, other), (other, across, one)]
            return replace(claim, relations=claim.relations - {stated} | {_drawn(choices, generator)})
        case _:
            return replace(claim, background=_other_background(claim.background, generator))


def alter_clip(claim: ClipSlots, slot: str, generator: np.random.Generator) -> ClipSlots:
    """A claim about a clip with one slot changed; the second thing becomes another one, or goes, or comes.

    Args:
        claim: What is true, with its background.
        slot: One of `slots_of_clip(claim)`.
    """
    names = {claim.mover, *(claim.still or ())[:1]}
    stranger = _drawn([name for name in NAMES[:NUM_OBJECTS] if name not in names], generator)
    match slot:
        case "mover":
            return replace(claim, mover=stranger)
        case "motion":
            motion = _drawn([motion for motion in MOTIONS if motion != claim.motion], generator)
            return replace(claim, motion=motion, size="large" if motion in RESIZING else claim.size)
        case "size":
            return replace(claim, size=OTHER_SIZE[claim.size])
        case "second":
            if claim.still is None:
                return replace(claim, still=(stranger, "large"))
            name, size = claim.still
            return replace(claim, still=_drawn([None, (stranger, size), (name, OTHER_SIZE[size])], generator))
        case _:
            return replace(claim, background=_other_background(claim.background, generator))


def _other_background(background: str | None, generator: np.random.Generator) -> str:
    return _drawn([colour for colour in BACKGROUNDS if colour != background], generator)


def _drawn(items: Sequence[Item], generator: np.random.Generator) -> Item:
    return items[int(generator.integers(len(items)))]
