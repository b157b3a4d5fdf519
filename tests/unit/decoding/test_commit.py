"""Quotas and the choice of places."""

import pytest
import torch

from dynin.decoding.commit import choose_best, noise_temperatures, plan_remaining, published_mask_counts

GOLDEN_1024_20 = [1020, 1011, 995, 973, 946, 912, 873, 828, 778, 724, 665, 601, 535, 464, 391, 316, 239, 160, 80, 1]
GOLDEN_441_64 = [
    440, 439, 438, 437, 436, 435, 434, 432, 430, 427, 425, 422, 418, 415, 411, 407, 403, 398, 393, 388, 383, 378,
    372, 366, 360, 354, 347, 340, 333, 326, 319, 311, 304, 296, 288, 279, 271, 262, 253, 245, 235, 226, 217, 207,
    198, 188, 178, 168, 158, 148, 138, 128, 117, 107, 96, 86, 75, 64, 53, 43, 32, 21, 10, 1,
]  # fmt: skip
GOLDEN_TEMPERATURES = [0.95, 0.855, 0.727, 0.581, 0.436, 0.305, 0.198, 0.119, 0.0655, 0.0327, 0.0147]


def quotas(num_masked: int, num_steps: int) -> list[int]:
    """Revealed per step under the uniform schedule."""
    left = (num_masked, *plan_remaining(num_masked, num_steps, "uniform"))
    return [before - after for before, after in zip(left, left[1:], strict=False)]


def test_uniform_quotas_are_the_published_transfer_counts() -> None:
    assert quotas(128, 32) == [4] * 32
    assert quotas(10, 4) == [3, 3, 2, 2]
    assert quotas(128, 127) == [2] + [1] * 126


def test_steps_that_would_reveal_nothing_are_not_planned() -> None:
    assert quotas(2, 4) == [1, 1]
    assert plan_remaining(0, 4, "cosine") == ()


@pytest.mark.parametrize(("num", "steps", "golden"), [(1024, 20, GOLDEN_1024_20), (441, 64, GOLDEN_441_64)])
def test_cosine_counts_are_the_published_mask_counts(num: int, steps: int, golden: list[int]) -> None:
    assert list(published_mask_counts(num, steps)) == golden
    assert list(plan_remaining(num, steps, "cosine")) == [*golden[:-1], 0]


def test_compounding_noise_is_the_published_one() -> None:
    values = noise_temperatures(20, 1.0, "compound")
    for value, golden in zip(values, GOLDEN_TEMPERATURES, strict=False):
        assert value == pytest.approx(golden, rel=0.01)
    assert values[-1] == 0


def test_linear_noise_falls_evenly_to_zero() -> None:
    assert noise_temperatures(4, 2.0, "linear") == (1.5, 1.0, 0.5, 0.0)


def test_held_places_stay_hidden_until_the_last_step() -> None:
    assert plan_remaining(10, 6, "uniform", num_held=2, hold_steps=3) == (7, 4, 2, 2, 2, 0)


def test_ties_go_to_the_lower_index() -> None:
    score = torch.tensor([[1.0, 2.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
    chosen = choose_best(score, torch.tensor([2, 1]))
    assert chosen.tolist() == [[False, True, True, False], [True, False, False, False]]


def test_places_with_no_score_are_never_chosen() -> None:
    score = torch.tensor([[-torch.inf, 0.5, -torch.inf]])
    assert choose_best(score, torch.tensor([3])).tolist() == [[False, True, False]]
