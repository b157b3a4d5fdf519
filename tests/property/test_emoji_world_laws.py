"""Laws of Emoji World: captions read back, the held-out tenth is never seen in training and always seen outside it."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynin.data.emoji_world import caption, clip_caption, problem, splits
from dynin.data.emoji_world.artwork import NAMES
from dynin.data.emoji_world.clip import Clip, frames, sample_clip
from dynin.data.emoji_world.scene import BACKGROUNDS, KINDS, RELATIONS, Scene, relation, sample_scene
from dynin.data.emoji_world.world import TASKS, EmojiWorld

EXAMPLES = settings(max_examples=150, deadline=None)
SEEDS = st.integers(0, 2**32 - 1)


@given(seed=SEEDS, kind=st.sampled_from(KINDS), num_objects=st.integers(3, 100))
@EXAMPLES
def test_captions_and_requests_read_back_to_the_same_slots(seed, kind, num_objects):
    generator = np.random.default_rng(seed)
    scene = sample_scene(kind, NAMES[:num_objects], generator)
    told = caption.canonical(scene)
    assert caption.parse(told) == caption.slots(scene)
    assert caption.parse(told.upper() + "!") == caption.slots(scene)
    for text in (caption.plain(scene, generator), caption.prompt(scene, generator)):
        assert caption.describes(caption.parse(text), scene), text


@given(seed=SEEDS)
@EXAMPLES
def test_clip_captions_and_requests_read_back_to_the_same_slots(seed):
    generator = np.random.default_rng(seed)
    clip = sample_clip(NAMES, generator)
    assert clip_caption.parse(clip_caption.canonical(clip)) == clip_caption.slots(clip)
    asked = clip_caption.prompt(clip, generator)
    assert clip_caption.describes(clip_caption.parse(asked), clip), asked


@given(text=st.text(max_size=80))
@EXAMPLES
def test_any_text_is_read_or_refused_without_an_error(text):
    caption.parse(text)
    clip_caption.parse(text)
    problem.final_answer(text)


def scenes_seen(truth):
    """Every still picture behind an example, edits' sources included."""
    found = []
    for value in truth.values():
        parts = [value, *(getattr(value, name, None) for name in ("source", "target", "content"))]
        found += [part for part in parts if isinstance(part, Scene)]
        found += [scene for part in parts if isinstance(part, Clip) for scene in frames(part)]
    return found


def is_composition_held_out(scene):
    """An independent statement of the rule: any background pair or any triple, in either wording."""
    if any(splits.is_background_held_out(thing.name, scene.background) for thing in scene.things):
        return True
    held = [
        (one.name, found, other.name)
        for one, other in permutations(scene.things, 2)
        if (found := relation(one, other)) is not None
    ]
    return any(splits.is_triple_held_out(*triple) for triple in held)


@pytest.mark.parametrize("task", TASKS)
def test_training_never_shows_what_is_held_out(task):
    world = EmojiWorld(11, "train")
    for index in range(80):
        drawn = world.sentence(task, index)
        assert not any(is_composition_held_out(scene) for scene in scenes_seen(drawn.truth))
        clips = [value for value in drawn.truth.values() if isinstance(value, Clip)]
        assert not any(splits.is_motion_held_out(clip.mover.name, clip.motion) for clip in clips)
        if "problem" in drawn.truth:
            assert not splits.is_problem_held_out(drawn.truth["problem"].key)
        if "sum" in drawn.truth:
            assert not splits.is_problem_held_out(drawn.truth["sum"].key)
        spoken = [values.get("speech") for values in (drawn.condition, drawn.target)]
        assert not any(splits.is_sentence_held_out(text) for text in spoken if text is not None)


@pytest.mark.parametrize("task", TASKS)
def test_held_out_examples_always_show_something_held_out(task):
    world = EmojiWorld(11, "held_out")
    for index in range(25):
        drawn = world.sentence(task, index)
        spoken = [str(values["speech"]) for values in (drawn.condition, drawn.target) if "speech" in values]
        reasons = [any(is_composition_held_out(scene) for scene in scenes_seen(drawn.truth))]
        reasons += [splits.is_sentence_held_out(text) for text in spoken]
        reasons += [
            splits.is_problem_held_out(part.key)
            for value in drawn.truth.values()
            for part in (value, getattr(value, "content", None))
            if isinstance(part, (problem.Problem, problem.Sum))
        ]
        reasons += [
            splits.is_motion_held_out(part.mover.name, part.motion)
            for value in drawn.truth.values()
            for part in (value, getattr(value, "content", None))
            if isinstance(part, Clip)
        ]
        assert any(reasons)


def test_a_tenth_is_held_out():
    names = NAMES[:48]
    pairs = [splits.is_background_held_out(name, colour) for name in names for colour in BACKGROUNDS]
    triples = [
        splits.is_triple_held_out(one, held, other) for one, other in permutations(names, 2) for held in RELATIONS
    ]
    assert 0.06 < np.mean(pairs) < 0.14
    assert 0.09 < np.mean(triples) < 0.11


@given(pair=st.permutations(NAMES).map(lambda names: names[:2]), held=st.sampled_from(RELATIONS))
@EXAMPLES
def test_a_triple_is_held_out_in_both_wordings_or_in_none(pair, held):
    opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}[held]
    assert splits.is_triple_held_out(pair[0], held, pair[1]) == splits.is_triple_held_out(pair[1], opposite, pair[0])
