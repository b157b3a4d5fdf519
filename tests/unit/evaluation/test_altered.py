"""False claims differ from the truth in one slot, and a caption could say them."""

from dataclasses import fields

import numpy as np
import pytest

from dynin.data.emoji_world.artwork import NAMES, NUM_OBJECTS
from dynin.data.emoji_world.caption import describes, is_describable, slots
from dynin.data.emoji_world.clip import sample_clip
from dynin.data.emoji_world.clip_caption import slots as clip_slots
from dynin.data.emoji_world.scene import KINDS, sample_scene
from dynin.evaluation.metrics.altered import (
    CLIP_SLOTS,
    SCENE_SLOTS,
    alter_clip,
    alter_scene,
    slots_of_clip,
    slots_of_scene,
)

CHANGED = {
    "object": {"things", "relations"},
    "relation": {"relations"},
    "background": {"background"},
    "count": {"things"},
    "size": {"things"},
}
CLIP_CHANGED = {
    "mover": {"mover"},
    "motion": {"motion", "size"},
    "background": {"background"},
    "size": {"size"},
    "second": {"still"},
}


def differing(one: object, other: object) -> set[str]:
    return {field.name for field in fields(one) if getattr(one, field.name) != getattr(other, field.name)}


@pytest.mark.parametrize("kind", KINDS)
def test_a_false_claim_about_a_scene_is_wrong_in_its_slot_alone(kind):
    generator = np.random.default_rng(3)
    scenes = filter(is_describable, (sample_scene(kind, NAMES[:NUM_OBJECTS], generator) for _ in range(60)))
    for scene in scenes:
        true = slots(scene)
        assert ("count" in slots_of_scene(true)) == (kind in ("one", "count"))
        for slot in slots_of_scene(true):
            false = alter_scene(true, slot, generator)
            assert false != true
            assert differing(true, false) <= CHANGED[slot]
            assert len(false.things) == len(true.things) or slot == "count"
            assert not describes(false, scene)


def test_a_false_claim_about_a_clip_is_wrong_in_its_slot_alone():
    generator = np.random.default_rng(3)
    for _ in range(100):
        true = clip_slots(sample_clip(NAMES[:NUM_OBJECTS], generator))
        assert ("size" in slots_of_clip(true)) == (true.motion not in ("grows", "shrinks"))
        for slot in slots_of_clip(true):
            false = alter_clip(true, slot, generator)
            assert false != true
            assert differing(true, false) <= CLIP_CHANGED[slot]


def test_every_slot_has_its_turn():
    assert set(CHANGED) == set(SCENE_SLOTS)
    assert set(CLIP_CHANGED) == set(CLIP_SLOTS)
