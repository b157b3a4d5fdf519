"""The judge of pictures tells true scenes from scenes with one slot changed."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from dynin.data.emoji_world.artwork import NAMES, NUM_OBJECTS
from dynin.data.emoji_world.caption import SceneSlots, is_describable, parse, slots
from dynin.data.emoji_world.scene import BACKGROUNDS, KINDS, Scene, Thing, render, sample_scene
from dynin.evaluation.metrics.altered import alter_scene, slots_of_scene
from dynin.evaluation.metrics.picture import (
    GROUND_COLOURS,
    _best_blocks,
    picture_matches,
    psnr_outside,
    read_picture,
    reading_matches,
    reading_shows,
)

NUM_SCENES = 120


def pixels_of(scene: Scene) -> Tensor:
    """The rendered scene in [-1, 1]."""
    return torch.tensor(render(scene)).permute(2, 0, 1) / 127.5 - 1


def claim(text: str) -> SceneSlots:
    """The slots of a caption that is understood."""
    found = parse(text)
    assert found is not None
    return found


@pytest.fixture(scope="module", params=[4, 8])
def scenes(request: pytest.FixtureRequest) -> list[Scene]:
    generator = np.random.default_rng(11)
    drawn = (
        sample_scene(KINDS[index % 4], NAMES[:NUM_OBJECTS], generator, num_cells=request.param)
        for index in range(2 * NUM_SCENES)
    )
    return [scene for scene in drawn if is_describable(scene)][:NUM_SCENES]


DOG_AND_APPLE = Scene(
    things=(
        Thing(name="dog", size="large", column=0, row=1),
        Thing(name="red apple", size="small", column=3, row=2),
    ),
    background="blue",
)


def test_the_judges_colours_are_the_worlds() -> None:
    assert GROUND_COLOURS == BACKGROUNDS


def test_true_scenes_are_right(scenes: list[Scene]) -> None:
    right = [picture_matches(pixels_of(scene), slots(scene)) for scene in scenes]
    assert sum(right) >= 0.98 * len(right)


def test_places_are_read_exactly(scenes: list[Scene]) -> None:
    for scene in scenes[:40]:
        placed = [(thing.name, thing.size, thing.column, thing.row) for thing in scene.things]
        assert reading_shows(read_picture(pixels_of(scene)), placed, scene.background)


def test_a_claim_with_any_slot_changed_is_wrong(scenes: list[Scene]) -> None:
    generator = np.random.default_rng(5)
    for scene in scenes:
        reading, true = read_picture(pixels_of(scene)), slots(scene)
        for slot in slots_of_scene(true):
            assert not reading_matches(reading, alter_scene(true, slot, generator)), (scene, slot)


@pytest.mark.parametrize(
    "text",
    [
        "a dog right of a small red apple on a blue background",
        "a dog above a small red apple on a blue background",
        "a dog left of a small red apple on a red background",
        "a dog left of a red apple on a blue background",
        "a small dog left of a small red apple on a blue background",
        "a dog left of a small green apple on a blue background",
        "a dog on a blue background",
        "two dogs on a blue background",
        "a dog left of a small red apple with a star below the dog on a blue background",
    ],
)
def test_a_worded_claim_with_one_slot_changed_is_wrong(text: str) -> None:
    assert not picture_matches(pixels_of(DOG_AND_APPLE), claim(text))


def test_a_claim_that_leaves_out_the_background_can_be_right() -> None:
    assert picture_matches(pixels_of(DOG_AND_APPLE), claim("a dog left of a small red apple"))


def test_blur_and_noise_are_forgiven() -> None:
    shown = pixels_of(DOG_AND_APPLE)
    blurred = functional.avg_pool2d(functional.pad(shown[None], (1, 1, 1, 1), mode="replicate"), 3, stride=1)[0]
    noisy = shown + 0.1 * torch.randn(shown.shape, generator=torch.Generator().manual_seed(0))
    assert picture_matches(blurred, slots(DOG_AND_APPLE))
    assert picture_matches(noisy, slots(DOG_AND_APPLE))


def test_a_thing_with_a_foreign_quarter_is_unknown() -> None:
    shown = pixels_of(DOG_AND_APPLE)
    cat = replace(DOG_AND_APPLE, things=(replace(DOG_AND_APPLE.things[0], name="blue book"),))
    shown[:, 16:32, 0:16] = pixels_of(cat)[:, 16:32, 0:16]
    assert read_picture(shown).num_unknown_cells > 0
    assert not picture_matches(shown, slots(DOG_AND_APPLE))


def test_litter_on_the_ground_is_wrong() -> None:
    shown = pixels_of(DOG_AND_APPLE)
    shown[:, 50:62, 20:30] = 1.0
    assert not picture_matches(shown, slots(DOG_AND_APPLE))


def test_noise_alone_shows_nothing() -> None:
    shown = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    reading = read_picture(shown)
    assert reading.things == ()
    assert not reading_matches(reading, claim("a dog"))


def test_half_a_thing_is_seen_only_where_things_may_leave() -> None:
    leaving = Scene(things=(Thing(name="cat", size="large", column=3, row=1),), background="white")
    assert read_picture(pixels_of(leaving)).things == ()
    (seen,) = read_picture(pixels_of(leaving), may_leave=True).things
    assert (seen.name, seen.size, seen.column, seen.row) == ("cat", "large", 3, 1)


@pytest.mark.parametrize("shape", [(3, 32, 64), (3, 48, 48), (3, 72, 72), (3, 272, 272)])
def test_a_picture_of_another_size_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"shape \({', '.join(map(str, shape))}\); .* 64 to 256 px in steps of 16"):
        read_picture(torch.zeros(shape))


@pytest.mark.parametrize("side", [2, 3, 4])
def test_the_cheapest_way_to_lay_blocks_is_found(side: int) -> None:
    """Against every set of blocks that do not overlap, on canvases small enough to list them."""
    places = [(row, column) for row in range(-1, side) for column in range(-1, side)]
    places = [place for place in places if not {-1, side - 1} >= set(place)]  # over no corner
    covered = {
        place: {(r, c) for r in range(place[0], place[0] + 2) for c in range(place[1], place[1] + 2)}
        & set(product(range(side), range(side)))
        for place in places
    }
    for seed in range(6):
        generator = torch.Generator().manual_seed(seed)
        block_cost = 3 * torch.rand(side + 1, side + 1, generator=generator)
        for row, column in product((0, side), (0, side)):
            block_cost[row, column] = 1e9
        cell_cost = torch.rand(side, side, generator=generator)

        def cost(chosen: Iterable[tuple[int, int]], blocks: Tensor = block_cost, cells: Tensor = cell_cost) -> float:
            under = [cell for place in chosen for cell in covered[place]]
            if len(set(under)) < len(under):
                return 1e9
            bare = set(product(range(side), range(side))) - set(under)
            return float(sum(blocks[r + 1, c + 1] for r, c in chosen) + sum(cells[r, c] for r, c in bare))

        listed = min(cost(chosen) for count in range(side + 1) for chosen in combinations(places, count))
        found = [(block.row, block.column) for block in _best_blocks(block_cost, cell_cost)]
        assert cost(found) <= listed + 1e-4


def test_fidelity_outside_ignores_the_edit() -> None:
    source = torch.zeros(3, 64, 64)
    result = source.clone()
    is_edited = torch.zeros(64, 64, dtype=torch.bool)
    is_edited[:32] = True
    result[:, :32] = 1.0
    assert psnr_outside(result, source, is_edited) == pytest.approx(100.0)
    result[:, 32:] = 0.2
    assert psnr_outside(result, source, is_edited) == pytest.approx(20.0, abs=1e-4)


def test_fidelity_needs_something_outside() -> None:
    picture = torch.zeros(3, 64, 64)
    with pytest.raises(ValueError, match="nothing outside"):
        psnr_outside(picture, picture, torch.ones(64, 64, dtype=torch.bool))
