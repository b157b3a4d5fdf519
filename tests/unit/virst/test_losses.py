"""What a mask costs."""

import pytest
import torch
from torch.testing import assert_close

from dynin.errors import ConfigError
from dynin.virst.backbone.protocol import TextScores
from dynin.virst.branch.protocol import MaskOutput
from dynin.virst.config import PUBLISHED_LOSS, LossConfig
from dynin.virst.losses import bce, dice, mask_parts, overlap, token_part, total


def output(logits: torch.Tensor, score: float = 9.0, iou: float = 1.0) -> MaskOutput:
    rows = len(logits)
    return MaskOutput(
        mask_logits=logits,
        predicted_iou=torch.full((rows,), iou),
        object_score=torch.full((rows,), score),
        pointer=torch.zeros(rows, 4),
        candidate_logits=logits[:, None],
        candidate_iou=torch.full((rows, 1), iou),
        chosen=torch.zeros(rows, dtype=torch.long),
    )


def square(side: int, start: int, stop: int) -> torch.Tensor:
    mask = torch.zeros(1, side, side, dtype=torch.bool)
    mask[:, start:stop, start:stop] = True
    return mask


def test_parts_equal_their_definitions_counted_by_hand():
    logits = torch.tensor([[[2.0, -1.0], [0.5, -3.0]]])
    mask = torch.tensor([[[True, False], [False, True]]])
    probs = [1 / (1 + 2.718281828459045**-value) for value in (2.0, -1.0, 0.5, -3.0)]
    logs = [-torch.tensor(p).log() for p in (probs[0], 1 - probs[1], 1 - probs[2], probs[3])]
    assert_close(bce(logits, mask)[0], sum(logs) / 4)
    shared = 2 * (probs[0] + probs[3]) / 1000 + 1e-6
    whole = (sum(probs) + 2) / 1000 + 1e-6
    assert dice(logits, mask).item() == pytest.approx(1 - shared / whole, abs=1e-5)
    assert overlap(logits, mask).item() == pytest.approx(1 / 3)


def test_a_right_mask_costs_nothing_and_a_wrong_one_much():
    mask = square(8, 2, 6)
    right, wrong = (mask_parts(output(sign * (mask.float() - 0.5) * 60), mask, LossConfig()) for sign in (1, -1))
    for name in ("bce", "dice", "iou"):
        assert right[name].item() < 1e-3
        assert wrong[name].item() > 0.9, name


def test_empty_frames_cost_what_is_claimed_in_them():
    empty = square(8, 0, 0)
    silent, loud = torch.full((1, 8, 8), -20.0), torch.full((1, 8, 8), 5.0)
    quiet = mask_parts(output(silent, score=-9.0), empty, LossConfig())
    assert all(value.item() < 1e-2 for value in quiet.values())
    claimed = mask_parts(output(loud, score=9.0), empty, LossConfig())
    assert claimed["bce"].item() > 4
    assert claimed["occlusion"].item() > 8
    assert claimed["iou"].item() == pytest.approx(1.0)
    hidden = mask_parts(output(loud, score=-9.0), empty, LossConfig())
    assert hidden["bce"].item() < 1e-2  # the score says that nothing is there


def test_a_frame_judged_absent_leaves_a_gradient_with_the_soft_score_and_none_with_the_published_gate():
    mask = square(8, 2, 6)
    for config, has_gradient in ((LossConfig(), True), (PUBLISHED_LOSS, False)):
        logits = torch.zeros(1, 8, 8, requires_grad=True)
        parts = mask_parts(output(logits, score=-2.0), mask, config)
        (parts["bce"] + parts["dice"]).sum().backward()
        assert bool(logits.grad.any()) == has_gradient
        assert (parts["bce"].item() > 100) != has_gradient


def test_logits_are_enlarged_to_the_masks():
    mask = square(16, 4, 12)
    coarse = (square(4, 1, 3).float() - 0.5) * 40
    assert mask_parts(output(coarse), mask, LossConfig())["iou"].item() < 0.2


def test_the_iou_part_counts_once_and_twice_where_the_published_code_is_asked_for():
    mask = square(8, 2, 6)
    parts = mask_parts(output(torch.zeros(1, 8, 8), iou=0.5), mask, LossConfig())
    only = {"bce": 0.0, "dice": 0.0, "occlusion": 0.0}
    once = total([parts], None, LossConfig(iou=0.1, **only))
    twice = total([parts], None, LossConfig(iou=0.1, is_iou_twice=True, **only))
    assert_close(once, 0.1 * parts["iou"].mean())
    assert_close(twice, 2 * once)


def test_frames_and_rows_count_alike_and_text_is_added():
    mask, config = square(8, 2, 6), LossConfig(token=0.5)
    frames = [mask_parts(output(torch.full((1, 8, 8), value)), mask, config) for value in (-1.0, 0.0, 2.0)]
    each = torch.stack([total([parts], None, config) for parts in frames])
    assert_close(total(frames, None, config), each.mean())
    text = TextScores(
        logits=torch.tensor([[0.0, 0.0], [0.0, 0.0]]),
        targets=torch.tensor([0, 1]),
        weights=torch.tensor([0.5, 0.5]),
        num_rows=1,
    )
    assert_close(token_part(text), torch.tensor(2.0).log())
    assert_close(total(frames, text, config), each.mean() + 0.5 * torch.tensor(2.0).log())


def test_weights_below_nothing_are_refused():
    with pytest.raises(ConfigError, match=r"loss\.dice' is -1"):
        LossConfig(dice=-1.0)
