"""Classifier-free guidance."""

import torch

from dynin.decoding.guidance import guide, step_scales


def test_scale_zero_gives_the_conditional_logits_exactly() -> None:
    conditional, unconditional = torch.rand(2, 5) * 1e3, torch.rand(2, 5)
    assert torch.equal(guide(conditional, unconditional, torch.zeros(2)), conditional)


def test_equal_branches_are_left_alone() -> None:
    logits = torch.rand(2, 5)
    torch.testing.assert_close(guide(logits, logits, torch.full((2,), 3.5)), logits)


def test_the_weights_are_one_plus_w_and_minus_w() -> None:
    guided = guide(torch.tensor([[2.0]]), torch.tensor([[1.0]]), torch.tensor([3.5]))
    torch.testing.assert_close(guided, torch.tensor([[4.5 * 2 - 3.5]]))


def test_guidance_acts_only_inside_its_interval() -> None:
    assert step_scales(4, 2.0, (0.25, 0.75)) == (0.0, 2.0, 2.0, 0.0)
    assert step_scales(2, 2.0, (0.0, 1.0)) == (2.0, 2.0)
