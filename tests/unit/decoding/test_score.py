"""Proposals and their scores."""

import math

import pytest
import torch

from dynin.decoding.score import Noise, Proposal, log_score, propose

LOGITS = torch.tensor([[1.0, 3.0, 3.0], [0.0, 0.0, 0.0]])
ROWS = torch.tensor([0, 1])


def greedy(score: str, logits: torch.Tensor = LOGITS) -> Proposal:
    """The proposal at temperature 0 without noise."""
    return propose(logits, ROWS, temperature=0.0, score=score, noise=Noise(None))


def test_the_best_id_is_taken_and_the_lower_among_equals() -> None:
    assert greedy("confidence").choice.tolist() == [1, 0]


def test_confidence_is_the_probability_of_the_choice() -> None:
    expected = math.exp(3) / (math.exp(1) + 2 * math.exp(3))
    torch.testing.assert_close(greedy("confidence").score, torch.tensor([expected, 1 / 3]))


def test_margin_is_the_distance_of_the_two_best() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)], [5.0, 5.0]])
    torch.testing.assert_close(greedy("margin", logits).score, torch.tensor([0.5, 0.0]))


def test_entropy_prefers_the_surest() -> None:
    score = greedy("entropy").score
    assert score[0] > score[1]
    assert float(score[1]) == pytest.approx(-math.log(3))


def test_half_precision_logits_are_scored_in_float32() -> None:
    assert greedy("confidence", LOGITS.bfloat16()).score.dtype == torch.float32


def test_sampling_follows_the_probabilities_at_the_temperature() -> None:
    logits = torch.tensor([[0.0, math.log(4.0)]]).expand(20_000, 2)
    rows = torch.zeros(20_000, dtype=torch.int64)
    noise = Noise(torch.Generator().manual_seed(0))
    drawn = propose(logits, rows, temperature=2.0, score="confidence", noise=noise)
    assert float(drawn.choice.float().mean()) == pytest.approx(2 / 3, abs=0.01)


def test_large_logits_do_not_overflow() -> None:
    noise = Noise(torch.Generator().manual_seed(0))
    drawn = propose(LOGITS * 1000, ROWS, temperature=1.0, score="entropy", noise=noise)
    assert drawn.score.isfinite().all()
    assert drawn.choice[0] in (1, 2)


def test_one_generator_per_row_makes_draws_independent_of_neighbours() -> None:
    def generators() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in (7, 8)]

    both = Noise(generators()).uniform(torch.tensor([0, 0, 1]), 4, torch.float32)
    alone = Noise(generators()).rows([1]).uniform(torch.tensor([0]), 4, torch.float32)
    torch.testing.assert_close(both[2:], alone)


def test_random_scores_need_a_generator() -> None:
    with pytest.raises(ValueError, match=r"torch\.Generator"):
        greedy("random")


def test_noise_meets_scores_on_a_logarithmic_scale() -> None:
    assert log_score(torch.tensor([1.0, 0.0]), "confidence").tolist() == pytest.approx([0.0, math.log(1e-20)])
    assert log_score(torch.tensor([-2.0]), "entropy").tolist() == [-2.0]
