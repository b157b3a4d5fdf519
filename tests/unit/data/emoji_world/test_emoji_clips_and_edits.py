"""Clips move as they say; edits change what they say and nothing else."""

import numpy as np
import pytest

from dynin.data.emoji_world.artwork import NAMES
from dynin.data.emoji_world.caption import is_describable
from dynin.data.emoji_world.clip import MOTIONS, NUM_FRAMES, STEP_CELLS, clip_masks, frames, render_clip, sample_clip
from dynin.data.emoji_world.clip_edit import sample_clip_edit, sample_frame_request
from dynin.data.emoji_world.edit import OPERATIONS, changed_region, sample_edit
from dynin.data.emoji_world.scene import KINDS, is_inside, overlap, render, sample_scene, visible_masks

OBJECTS = NAMES[:48]


@pytest.mark.parametrize("motion", MOTIONS)
def test_a_clip_moves_as_it_says(motion):
    generator = np.random.default_rng(0)
    for _ in range(40):
        clip = sample_clip(OBJECTS, generator, motions=(motion,))
        masks = clip_masks(clip)
        assert render_clip(clip).shape == (NUM_FRAMES, 64, 64, 3)
        areas = masks[0].sum(axis=(1, 2))
        if motion in STEP_CELLS:
            centres = np.array([[axis.mean() for axis in np.nonzero(mask)] for mask in masks[0]])  # rows, columns
            columns, rows = STEP_CELLS[motion]
            assert (np.diff(centres[:, 1]) * columns > 0).all() or columns == 0
            assert (np.diff(centres[:, 0]) * rows > 0).all() or rows == 0
        elif motion == "still":
            assert (masks == masks[:, :1]).all()
        else:
            assert (areas[-1] > 3 * areas[0]) if motion == "grows" else (areas[0] > 3 * areas[-1])
        if clip.still is not None:
            assert (masks[1] == masks[1][:1]).all()
            assert not (masks[0] & masks[1]).any()


def test_masks_equal_those_of_the_frames():
    clip = sample_clip(OBJECTS, np.random.default_rng(3))
    for time, scene in enumerate(frames(clip)):
        np.testing.assert_array_equal(clip_masks(clip)[:, time], visible_masks(scene))
        np.testing.assert_array_equal(render_clip(clip)[time], render(scene))


def test_things_of_a_clip_never_overlap_and_stay_half_visible():
    generator = np.random.default_rng(0)
    for _ in range(150):
        clip = sample_clip(OBJECTS, generator)
        for scene in frames(clip):
            mover, *rest = scene.things
            assert not any(overlap(mover, other) for other in rest)
            assert -mover.num_cells / 2 <= min(mover.column, mover.row)
            assert max(mover.column, mover.row) <= 4 - mover.num_cells / 2


def test_a_whole_clip_begins_inside_the_canvas():
    generator = np.random.default_rng(0)
    assert all(is_inside(sample_clip(OBJECTS, generator, is_whole=True).mover) for _ in range(150))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_edit_changes_only_its_region(operation):
    generator = np.random.default_rng(0)
    found = 0
    for index in range(120):
        source = sample_scene(KINDS[index % 4], OBJECTS, generator)
        edit = sample_edit(operation, source, OBJECTS, generator)
        if edit is None:
            continue
        found += 1
        before, after, region = render(edit.source), render(edit.target), changed_region(edit)
        assert (before[~region] == after[~region]).all()
        assert (before[region] != after[region]).any()
        assert is_describable(edit.target)
        assert 0 < region.mean() < 1
        _check_target(edit)
    assert found > 15


def _check_target(edit):
    source, target = set(edit.source.things), set(edit.target.things)
    gone, new = source - target, target - source
    match edit.operation:
        case "replace":
            assert {(thing.size, thing.column, thing.row) for thing in gone} == {
                (thing.size, thing.column, thing.row) for thing in new
            }
            assert {thing.name for thing in gone}.isdisjoint({thing.name for thing in new})
        case "remove":
            assert (len(gone), len(new)) == (1, 0)
        case "add":
            assert (len(gone), len(new)) == (0, 1)
            assert next(iter(new)).name in edit.instruction.lower()
        case "move":
            assert next(iter(gone)).name == next(iter(new)).name
        case "recolour":
            assert next(iter(gone)).name.split()[1] == next(iter(new)).name.split()[1]
            assert next(iter(new)).name.split()[0] in edit.instruction.lower()
        case _:
            assert source == target
            assert edit.target.background in edit.instruction.lower()


def test_an_edited_clip_keeps_its_motion():
    generator = np.random.default_rng(0)
    for _ in range(100):
        edit = sample_clip_edit(sample_clip(OBJECTS, generator), OBJECTS, generator)
        assert edit.source.motion == edit.target.motion
        changed = (edit.source.mover != edit.target.mover, edit.source.background != edit.target.background)
        assert changed == ((True, False) if edit.operation == "replace" else (False, True))


def test_frame_requests_ask_for_the_first_or_the_last():
    generator = np.random.default_rng(0)
    requests = [sample_frame_request(generator) for _ in range(100)]
    assert {request.index for request in requests} == {0, NUM_FRAMES - 1}
    assert all("first" in r.instruction or "begin" in r.instruction for r in requests if r.index == 0)
