"""The judge of videos tells true clips from clips with one slot changed."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from dynin.data.emoji_world.artwork import NAMES, NUM_OBJECTS
from dynin.data.emoji_world.clip import Clip, render_clip, sample_clip
from dynin.data.emoji_world.clip_caption import ClipSlots, parse, slots
from dynin.data.emoji_world.scene import Thing
from dynin.evaluation.metrics.altered import alter_clip, slots_of_clip
from dynin.evaluation.metrics.video import read_video, video_matches, video_reading_matches


def frames_of(clip: Clip) -> Tensor:
    """The rendered clip in [-1, 1]."""
    return torch.tensor(render_clip(clip)).permute(0, 3, 1, 2) / 127.5 - 1


def claim(text: str) -> ClipSlots:
    """The slots of a caption that is understood."""
    found = parse(text)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    generator = np.random.default_rng(12)
    return [sample_clip(NAMES[:NUM_OBJECTS], generator) for _ in range(60)]


DOG_AND_STAR = Clip(
    mover=Thing(name="dog", size="large", column=0, row=0),
    motion="right",
    still=Thing(name="star", size="small", column=1, row=3),
    background="green",
)


def test_true_clips_are_right(clips: list[Clip]) -> None:
    right = [video_matches(frames_of(clip), slots(clip)) for clip in clips]
    assert sum(right) >= 0.98 * len(right)


def test_a_claim_with_any_slot_changed_is_wrong(clips: list[Clip]) -> None:
    generator = np.random.default_rng(5)
    for clip in clips:
        reading, true = read_video(frames_of(clip)), slots(clip)
        for slot in slots_of_clip(true):
            assert not video_reading_matches(reading, alter_clip(true, slot, generator)), (clip, slot)


@pytest.mark.parametrize(
    "text",
    [
        "a dog moves left and a small star stays still on a green background",
        "a dog grows and a small star stays still on a green background",
        "a cat moves right and a small star stays still on a green background",
        "a dog moves right and a star stays still on a green background",
        "a small dog moves right and a small star stays still on a green background",
        "a dog moves right on a green background",
        "a dog moves right and a small star stays still on a blue background",
    ],
)
def test_a_worded_claim_with_one_slot_changed_is_wrong(text: str) -> None:
    assert not video_matches(frames_of(DOG_AND_STAR), claim(text))


def test_a_thing_that_leaves_the_canvas_is_followed() -> None:
    reading = read_video(frames_of(DOG_AND_STAR))
    assert [(thing.name, thing.size, thing.motion) for thing in reading.things] == [
        ("dog", "large", "right"),
        ("star", "small", "still"),
    ]


def test_frames_in_another_order_show_no_motion() -> None:
    shuffled = frames_of(DOG_AND_STAR)[[0, 2, 1, 3]]
    assert not video_matches(shuffled, slots(DOG_AND_STAR))


def test_a_thing_missing_from_one_frame_is_wrong() -> None:
    frames = frames_of(DOG_AND_STAR)
    frames[2, :, 48:64, 16:32] = frames[2, :, 63, 63][:, None, None]
    assert not read_video(frames).is_clear
    assert not video_matches(frames, slots(DOG_AND_STAR))


def test_a_background_that_changes_is_wrong() -> None:
    frames = frames_of(DOG_AND_STAR)
    frames[3] = frames_of(replace(DOG_AND_STAR, background="purple"))[3]
    assert read_video(frames).background is None


def test_one_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two"):
        read_video(torch.zeros(1, 3, 64, 64))
