"""Which frames are prompted: the published tables, and what holds for every policy."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dynin.errors import ConfigError, RequestError
from dynin.virst.anchors import (
    KINDS,
    AnchorPolicy,
    Candidates,
    Dynamic,
    FirstFrame,
    Oracle,
    Published,
    RandomFrames,
    TextSimilarity,
    UniformFrames,
    policy_of,
)

FIXED = [name for name in KINDS if isinstance(policy_of(name), AnchorPolicy)]


def candidates(count: int) -> Candidates:
    return Candidates(frames=tuple(range(count)), likeness=(0.5,) * count, areas=(1.0,) * count)


@pytest.mark.parametrize(
    ("count", "expected"),
    [(32, (0, 4, 9, 13, 18, 22, 27, 31)), (16, (0, 5, 10, 15)), (8, (0, 7)), (4, (0,)), (3, (0,)), (1, (0,))],
)
def test_published_anchors_are_a_quarter_evenly_spread(count: int, expected: tuple[int, ...]) -> None:
    assert Published().choose(candidates(count)) == expected


def test_anchors_are_frames_of_the_video_and_not_places_in_a_list() -> None:
    sparse = Candidates(frames=(3, 10, 40, 90), likeness=(0.1, 0.9, 0.3, 0.9), areas=(0.0, 0.0, 5.0, 2.0))
    assert FirstFrame().choose(sparse) == (3,)
    assert UniformFrames(num_prompted=2).choose(sparse) == (3, 90)
    assert TextSimilarity(num_prompted=1).choose(sparse) == (10,)
    assert TextSimilarity(num_prompted=3).choose(sparse) == (10, 40, 90)
    assert Oracle(num_prompted=2).choose(sparse) == (40, 90)


def test_random_anchors_follow_from_the_generator() -> None:
    first, again, other = (
        RandomFrames().choose(candidates(40), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert first == again != other


@given(
    name=st.sampled_from(FIXED),
    count=st.integers(1, 70),
    wanted=st.one_of(st.none(), st.integers(1, 9)),
)
def test_every_policy_prompts_frames_that_can_be_prompted(name: str, count: int, wanted: int | None) -> None:
    policy = policy_of(name, wanted)
    assert isinstance(policy, AnchorPolicy)
    chosen = policy.choose(candidates(count), torch.Generator().manual_seed(0))
    assert list(chosen) == sorted(set(chosen))
    assert chosen
    assert set(chosen) <= set(range(count))
    if wanted is not None and name != "first":
        assert len(chosen) == min(wanted, count)


def test_what_a_policy_lacks_is_named() -> None:
    bare = Candidates(frames=(0, 1))
    with pytest.raises(RequestError, match="no image-text model says how like the frames are"):
        TextSimilarity().choose(bare)
    with pytest.raises(RequestError, match="oracle anchors were asked for, which need the true masks"):
        Oracle().choose(bare)
    with pytest.raises(RequestError, match="give a seeded generator"):
        RandomFrames().choose(bare)
    with pytest.raises(ConfigError, match=r"unknown anchors 'dynamik', expected one of .*did you mean 'dynamic'"):
        policy_of("dynamik")
    with pytest.raises(ConfigError, match="0 anchors were asked for, expected at least 1"):
        policy_of("uniform", 0)
    with pytest.raises(ConfigError, match=r"least_confidence is 1\.5, expected 0 to 1"):
        Dynamic(least_confidence=1.5)


@pytest.mark.parametrize("frames", [(), (1, 1), (2, 1)])
def test_candidates_are_ascending_and_some(frames: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected at least one frame, ascending"):
        Candidates(frames=frames)
