"""Which frames are seen, and that a mask comes back where it was, whatever the shape of its frame."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from dynin.errors import RequestError
from dynin.virst.config import PUBLISHED_FRAMES, FrameConfig
from dynin.virst.frames import Fit, choose, choose_seg, times_of

quick = settings(max_examples=40, deadline=None)
sides = st.integers(1, 90)


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@quick
@given(count=st.integers(1, 300), most=st.integers(1, 20), multiple=st.integers(1, 4), sampling=st.booleans())
def test_frames_are_in_order_one_from_each_part_and_as_many_as_wanted(count, most, multiple, sampling):
    config = FrameConfig(
        num_frames=most * multiple,
        least=multiple,
        multiple=multiple,
        num_seg=5,
        sampling="jitter" if sampling else "centres",
    )
    chosen = choose(count, config, draw(count))
    assert chosen == sorted(chosen)
    assert 0 <= chosen[0] <= chosen[-1] < count
    assert len(chosen) % multiple == 0
    assert len(chosen) <= config.num_frames
    parts = len(chosen)
    if count > config.least:
        assert len(set(chosen)) == parts
        assert all(at * count // parts <= frame < (at + 1) * count // parts for at, frame in enumerate(chosen))
    seg = choose_seg(parts, config, draw(count))
    assert seg == sorted(set(seg))
    assert len(seg) == min(5, parts)
    assert all(0 <= at < parts for at in seg)


def test_all_frames_of_a_short_video_are_seen_and_middles_are_the_same_each_time():
    config = FrameConfig(num_frames=12, num_seg=4)
    assert choose(7, config) == list(range(7))
    assert choose(120, config) == choose(120, config) == list(range(4, 120, 10))
    assert choose_seg(12, config) == [1, 4, 7, 10]


def test_the_published_rule_is_had_by_its_settings():
    assert choose(5, PUBLISHED_FRAMES, draw()) == [0, 1, 2, 3, 4, 4, 4, 4]
    assert choose(8, PUBLISHED_FRAMES, draw()) == list(range(8))
    assert [len(choose(count, PUBLISHED_FRAMES, draw())) for count in (9, 13, 63, 64, 200)] == [8, 12, 60, 64, 64]
    assert len(choose_seg(64, PUBLISHED_FRAMES, draw())) == 32
    assert choose(200, PUBLISHED_FRAMES, draw(1)) != choose(200, PUBLISHED_FRAMES, draw(2))
    assert choose(200, PUBLISHED_FRAMES, draw(1)) == choose(200, PUBLISHED_FRAMES, draw(1))


def test_no_frames_and_draws_without_a_generator_are_refused():
    with pytest.raises(RequestError, match="0 frames"):
        choose(0, FrameConfig())
    with pytest.raises(RequestError, match=r"sampling' is 'jitter'.*generator"):
        choose(80, PUBLISHED_FRAMES)
    with pytest.raises(RequestError, match="0 x 4 px"):
        Fit(height=4, width=0, rows=4, columns=4)


def test_times_are_places_or_seconds():
    assert times_of([0, 10, 12]) == [0.0, 1.0, 2.0]
    assert times_of([0, 10, 12], 5.0) == [0.0, 2.0, 2.4]


@quick
@given(height=sides, width=sides, rows=st.integers(8, 96), columns=st.integers(8, 96), keeps_aspect=st.booleans())
def test_a_frame_fills_its_part_of_the_canvas_and_nothing_else(height, width, rows, columns, keeps_aspect):
    fit = Fit(height=height, width=width, rows=rows, columns=columns, keeps_aspect=keeps_aspect)
    placed = fit.place(torch.ones(1, 3, height, width))
    inner_rows, inner_columns = fit.inner
    assert placed.shape == (1, 3, rows, columns)
    assert_close(placed[..., :inner_rows, :inner_columns], torch.ones(1, 3, inner_rows, inner_columns))
    assert not placed[..., inner_rows:, :].any()
    assert not placed[..., inner_columns:].any()
    assert inner_rows == rows or inner_columns == columns
    if keeps_aspect:
        scale = min(rows / height, columns / width)
        assert abs(inner_rows - height * scale) <= max(0.5, 1 - height * scale)
        assert abs(inner_columns - width * scale) <= max(0.5, 1 - width * scale)


@quick
@given(height=st.integers(6, 60), width=st.integers(6, 60), keeps_aspect=st.booleans(), data=st.data())
def test_a_mask_comes_back_where_it_was(height, width, keeps_aspect, data):
    top, left = data.draw(st.integers(0, height - 3)), data.draw(st.integers(0, width - 3))
    bottom, right = data.draw(st.integers(top + 3, height)), data.draw(st.integers(left + 3, width))
    mask = torch.zeros(1, height, width, dtype=torch.bool)
    mask[:, top:bottom, left:right] = True
    fit = Fit(height=height, width=width, rows=128, columns=128, keeps_aspect=keeps_aspect)
    placed = fit.place_masks(mask)
    back = fit.lift(placed.float() - 0.5) > 0
    assert torch.equal(back, mask)


@quick
@given(height=st.integers(30, 200), width=st.integers(30, 200))
def test_logits_at_a_quarter_of_the_canvas_keep_the_middle_of_a_mask(height, width):
    mask = torch.zeros(1, height, width, dtype=torch.bool)
    mask[:, height // 4 : height // 4 + height // 3, width // 2 : width // 2 + width // 3] = True
    fit = Fit(height=height, width=width, rows=128, columns=128)
    coarse = torch.nn.functional.avg_pool2d(fit.place_masks(mask)[:, None].float(), 4)[:, 0] - 0.5
    back = fit.lift(coarse) > 0
    for axis in (1, 2):
        middles = [found.nonzero()[:, axis].float().mean() for found in (mask, back)]
        pixel = max(height, width) / 32
        assert abs(float(middles[0] - middles[1])) <= pixel / 2


@quick
@given(side=st.integers(8, 64))
def test_a_square_of_the_right_size_stays_as_it_is(side):
    frame = torch.rand(1, 3, side, side, generator=draw(side)) * 2 - 1
    fit = Fit(height=side, width=side, rows=side, columns=side)
    assert torch.equal(fit.place(frame), frame)
    assert_close(fit.lift(frame[:, 0]), frame[:, 0], atol=1e-5, rtol=1e-4)
