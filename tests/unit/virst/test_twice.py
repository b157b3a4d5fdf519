"""A video gone through twice: the same frames, decoded once where there is room."""

import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynin.media.stream import Frame
from dynin.virst.twice import Twice


class Counted:
    """Frames of 12 bytes, and how many of them were asked for."""

    def __init__(self, num_frames: int) -> None:
        self.num_frames, self.decoded = num_frames, 0

    def __iter__(self):
        for index in range(self.num_frames):
            self.decoded += 1
            yield Frame(levels=np.full((2, 2, 3), index, dtype=np.uint8), time_s=float(index))


@given(num_frames=st.integers(1, 8), count=st.integers(1, 10), room=st.integers(0, 10))
def test_both_passes_see_every_frame_and_frames_that_fit_are_decoded_once(num_frames, count, room):
    video = Counted(num_frames)
    twice = Twice(video, room_bytes=12 * room)
    first = [frame.time_s for frame in twice.first(count)]
    whole = [frame.time_s for frame in twice.whole()]
    seen = min(count, num_frames)
    assert first == list(range(seen))
    assert whole == list(range(num_frames))
    assert video.decoded == num_frames + (seen if seen > room else 0)


def test_a_frame_that_was_handed_out_is_held_no_longer():
    twice = Twice(Counted(4))
    held = [weakref.ref(frame.levels) for frame in twice.first(4)]
    assert all(levels() is not None for levels in held)
    whole = twice.whole()
    assert next(whole).time_s == 0
    assert [levels() is None for levels in held] == [True, False, False, False]


def test_frames_for_which_there_is_no_room_are_not_held():
    twice = Twice(Counted(4), room_bytes=24)
    held = [weakref.ref(frame.levels) for frame in twice.first(3)]
    assert [levels() is None for levels in held] == [True, True, True]


def test_a_first_pass_is_gone_through_once():
    twice = Twice(Counted(4))
    list(twice.first(2))
    with pytest.raises(AssertionError, match="before"):
        list(twice.first(2))


def test_what_the_second_half_finds_wrong_is_told():
    def broken():
        yield from Counted(3)
        raise ValueError("damaged")

    twice = Twice(broken())
    assert len(list(twice.first(2))) == 2
    with pytest.raises(ValueError, match="damaged"):
        list(twice.whole())
