"""What never occurs in training, chosen by hash.

Enters: names, relations, colours, motions, sentences and keys of problems, and scenes and clips made of them. Leaves:
whether they belong to the held-out tenth. Does not know: how examples are drawn.

The choice depends on the words alone, so it stays the same when objects are added or their order changes.
"""

import hashlib
from functools import cache
from itertools import combinations
from typing import Literal

from dynin.data.emoji_world.clip import Clip, frames
from dynin.data.emoji_world.scene import OPPOSITE, Relation, Scene, relation

Split = Literal["train", "held_out"]

ONE_IN = 10
"""One of so many compositions is held out."""


def _is_chosen(kind: str, *words: str) -> bool:
    digest = hashlib.sha256("|".join((kind, *words)).encode()).digest()
    return int.from_bytes(digest[:8], "big") % ONE_IN == 0


@cache
def is_triple_held_out(one: str, relation: Relation, other: str) -> bool:
    """Whether two different objects in this relation are held out; "a left of b" and "b right of a" are the same."""
    if relation in ("right of", "below"):
        return is_triple_held_out(other, OPPOSITE[relation], one)
    return one != other and _is_chosen("triple", one, relation, other)


@cache
def is_background_held_out(name: str, background: str) -> bool:
    """Whether this object on this background is held out."""
    return _is_chosen("background", name, background)


@cache
def is_motion_held_out(name: str, motion: str) -> bool:
    """Whether this object with this motion is held out."""
    return _is_chosen("motion", name, motion)


def is_sentence_held_out(sentence: str) -> bool:
    """Whether this sentence is held out from all speech."""
    return _is_chosen("sentence", sentence)


def is_problem_held_out(key: str) -> bool:
    """Whether the problem with this key is held out, however it is told."""
    return _is_chosen("problem", key)


def _has_held_out_triple(scene: Scene) -> bool:
    for one, other in combinations(scene.things, 2):
        held = relation(one, other)
        if held is not None and is_triple_held_out(one.name, held, other.name):
            return True
    return False


def is_scene_held_out(scene: Scene) -> bool:
    """Whether any object-relation-object triple or object-background pair of the scene is held out."""
    if any(is_background_held_out(thing.name, scene.background) for thing in scene.things):
        return True
    return _has_held_out_triple(scene)


def is_clip_held_out(clip: Clip) -> bool:
    """Whether the clip's motion, one of its backgrounds or a triple seen in any of its frames is held out."""
    if is_motion_held_out(clip.mover.name, clip.motion):
        return True
    return any(is_scene_held_out(frame) for frame in frames(clip))
