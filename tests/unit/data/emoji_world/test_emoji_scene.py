"""Scenes: relations beyond doubt, pixels that equal the masks, backgrounds from which every object stands out."""

import hashlib
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from dynin.data.emoji_world.artwork import NAMES, tile
from dynin.data.emoji_world.scene import (
    BACKGROUNDS,
    CELL_PX,
    KINDS,
    OPPOSITE,
    RELATIONS,
    Scene,
    Thing,
    free_places,
    is_inside,
    overlap,
    places,
    relation,
    render,
    sample_scene,
    visible_masks,
)

GOLDEN_PLACES = {"one": "2bc381c07587", "pair": "81f9d5e75e6b", "count": "a813672484d7", "trio": "ccc205b8c383"}
"""Recorded before there were other canvases."""


def thing(column, row, size="large", name="dog"):
    return Thing(name=name, size=size, column=column, row=row)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (thing(2, 0), "left of"),
        (thing(2, 1), "left of"),
        (thing(2, 2), None),
        (thing(0, 2), "above"),
        (thing(1, 2), "above"),
        (thing(1, 1), None),
        (thing(3, 0, "small"), "left of"),
        (thing(2, 3, "small"), "above"),
        (thing(3, 3, "small"), None),
    ],
)
def test_a_relation_holds_only_beyond_doubt(other, expected):
    first = thing(0, 0)
    assert relation(first, other) == expected
    assert relation(other, first) == (OPPOSITE[expected] if expected else None)


@pytest.mark.parametrize("num_cells", [4, 5, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_sampled_scenes_are_what_they_are_called(kind, num_cells):
    generator = np.random.default_rng(0)
    relations = set()
    for _ in range(200):
        scene = sample_scene(kind, NAMES[:48], generator, num_cells=num_cells)
        assert scene.kind == kind
        assert scene.num_cells == num_cells
        assert all(is_inside(thing, num_cells) for thing in scene.things)
        assert not any(overlap(one, other) for one, other in combinations(scene.things, 2))
        if kind in ("pair", "trio"):
            relations.add(relation(scene.things[0], scene.things[1]))
    assert relations == (set(RELATIONS) if kind in ("pair", "trio") else set())


@pytest.mark.parametrize("kind", KINDS)
def test_scenes_of_the_usual_canvas_are_drawn_by_the_same_numbers_as_ever(kind):
    seen = [sample_scene(kind, NAMES[:48], np.random.default_rng(index)) for index in range(50)]
    places_seen = "".join(f"{thing.column}{thing.row}{thing.size[0]}" for scene in seen for thing in scene.things)
    assert hashlib.sha256(places_seen.encode()).hexdigest()[:12] == GOLDEN_PLACES[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_every_place_of_a_large_canvas_is_used(kind):
    generator = np.random.default_rng(0)
    scenes = [sample_scene(kind, NAMES, generator, num_cells=8) for _ in range(2500)]
    seen = {(item.size, item.column, item.row) for scene in scenes for item in scene.things}
    assert seen == {(size, *place) for size in ("large", "small") for place in places(size, 8)}


def test_a_count_stays_within_the_limit():
    generator = np.random.default_rng(0)
    assert {len(sample_scene("count", NAMES, generator, 2).things) for _ in range(100)} == {2}
    assert {len(sample_scene("count", NAMES, generator).things) for _ in range(100)} == {2, 3}


@pytest.mark.parametrize("num_cells", [4, 8])
def test_pixels_equal_the_background_where_no_thing_is_and_the_artwork_where_it_is_opaque(num_cells):
    generator = np.random.default_rng(1)
    for index in range(40):
        scene = sample_scene(KINDS[index % 4], NAMES, generator, num_cells=num_cells)
        pixels, masks = render(scene), visible_masks(scene)
        drawn = (pixels != np.array(BACKGROUNDS[scene.background])).any(axis=-1)
        squares = np.zeros((num_cells * CELL_PX,) * 2, dtype=bool)
        for item, mask in zip(scene.things, masks, strict=True):
            top, left, side = item.row * 16, item.column * 16, item.num_cells * 16
            square = np.s_[top : top + side, left : left + side]
            squares[square] = True
            art = tile(item.name, side)
            assert mask.sum() == mask[square].sum() == (art[..., 3] > 0.5).sum()
            solid = art[..., 3] == 1
            np.testing.assert_allclose(pixels[square][solid], art[..., :3][solid] * 255, atol=0.51)
        assert not (drawn & ~squares).any()


def test_what_lies_outside_the_canvas_is_cut_off():
    scene = Scene(things=(thing(-1, 3),), background="blue")
    whole = Scene(things=(thing(0, 0),), background="blue")
    np.testing.assert_array_equal(render(scene)[48:, :16], render(whole)[:16, 16:32])
    assert visible_masks(scene)[0][:48].sum() == 0
    gone = Scene(things=(thing(5, 0),), background="blue")
    assert not visible_masks(gone).any()


def test_every_object_stands_out_from_every_background():
    for name in NAMES:
        art = tile(name, 32).astype(np.float64)
        opaque = art[..., 3] > 0.5
        for colour, rgb in BACKGROUNDS.items():
            difference = np.linalg.norm(art[..., :3] * 255 - art[..., 3:] * np.array(rgb), axis=-1)
            assert np.minimum(difference, 120)[opaque].mean() > 40, (name, colour)


def test_backgrounds_stand_apart():
    for one, other in combinations(BACKGROUNDS.values(), 2):
        assert np.linalg.norm(np.subtract(one, other)) > 75


def test_free_places_overlap_nothing():
    scene = Scene(things=(thing(0, 0), thing(2, 0)), background="red")
    assert free_places(scene, "large") == ((0, 2), (1, 2), (2, 2))
    assert len(free_places(scene, "small")) == 8
    assert len(free_places(replace(scene, num_cells=8), "small")) == 64 - 8
