"""Lighter parts: the same weights by the same names, and what the library's parts say."""

import copy

import pytest
import torch

from dynin.ahead import ahead
from dynin.virst import frozen
from dynin.virst.branch import build as branches
from dynin.virst.branch.protocol import MaskOutput
from dynin.virst.tracker import Tracker, TrackerConfig
from tests.tiny_virst import make_virst


@pytest.fixture(scope="module")
def pair():
    """A drawn branch, in float64, and its lighter copy."""
    branch = branches.build(branches.small_config(64, hiera_width=8), torch.Generator().manual_seed(3))
    plain = branch.double().eval().requires_grad_(False)
    light = copy.deepcopy(plain)
    frozen.lighten(light.network, {**frozen.ENCODER, **frozen.TRACKER})
    light.settle()
    return plain, light


def outputs(branch, choice, rows) -> list[MaskOutput]:
    """Two anchors, then frames that look at both, at each other and at pointers."""
    draw = torch.Generator().manual_seed(0)
    frames = torch.randn(6, 3, 64, 64, generator=draw, dtype=torch.float64).clamp(-1, 1)
    prompts = torch.randn(rows, 4, branch.width, generator=draw, dtype=torch.float64)
    features = branch.encode(frames, chunk=4)
    tracker = Tracker(branch, TrackerConfig(choice=choice))
    found = []
    for frame in (0, 3):
        here = features.take([frame] * rows)
        found.append(tracker.prompt(here, prompts))
        tracker.admit(frame, here, found[-1])
    for frame in (1, 2, 4, 5):
        here = features.take([frame] * rows)
        found.append(tracker.propagate(frame, here))
        tracker.keep(frame, here, found[-1])
    return found


@pytest.mark.parametrize("choice", ["single", "best"])
@pytest.mark.parametrize("rows", [1, 3])
def test_lighter_parts_say_what_the_library_says(pair, choice, rows) -> None:
    plain, light = (outputs(branch, choice, rows) for branch in pair)
    for first, second in zip(plain, light, strict=True):
        for name in ("mask_logits", "predicted_iou", "object_score", "pointer", "candidate_logits"):
            # angles are in float32 in both
            torch.testing.assert_close(getattr(first, name), getattr(second, name), rtol=1e-5, atol=1e-5)


def test_weights_keep_their_names(pair) -> None:
    plain, light = pair
    assert list(plain.state_dict()) == list(light.state_dict())
    light.load_state_dict(plain.state_dict())


def test_every_part_is_replaced(pair) -> None:
    names = {type(part).__name__ for part in pair[1].modules()}
    assert not names & {*frozen.ENCODER, *frozen.TRACKER}
    assert {"PooledAttention", "RememberedPosition", "MemoryAttention", "TwoWayTransformer", "MaskDecoder"} <= names


def test_a_settled_model_gives_the_prompts_it_gave() -> None:
    model, other = (make_virst().eval().requires_grad_(False) for _ in range(2))
    settled = frozen.settle(other)
    frames = torch.rand(3, 3, *model.branch.image_size, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        plain, light = (each.branch.encode(frames).cells for each in (model, settled))
    torch.testing.assert_close(plain, light)


def test_values_come_in_order_and_a_fault_where_it_belongs() -> None:
    def values():
        yield from range(5)
        raise KeyError("five")

    coming = ahead(values())
    assert [next(coming) for _ in range(5)] == list(range(5))
    with pytest.raises(KeyError, match="five"):
        next(coming)
    assert list(ahead(iter(()))) == []


def test_only_so_many_values_are_drawn_ahead() -> None:
    drawn = []

    def values():
        for each in range(50):
            drawn.append(each)
            yield each

    for each in ahead(values(), count=2):
        assert len(drawn) - 1 - each <= 3
