"""Proposals and their scores."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dynin.decoding.guidance import guide
from dynin.decoding.noise import Draws, PlaceNoise
from dynin.decoding.score import Logits, Proposal, log_score, propose, rate_present

LOGITS = torch.tensor([[1.0, 3.0, 3.0], [0.0, 0.0, 0.0]])


def greedy(score: str, logits: torch.Tensor = LOGITS, **options) -> Proposal:
    """The proposal at temperature 0 without noise."""
    return propose(Logits(logits), temperature=0.0, score=score, **options)


def noise(num_places: int) -> PlaceNoise:
    """Random numbers of the places of one row."""
    places = torch.arange(num_places)
    return Draws(torch.tensor([5])).at(0, torch.zeros_like(places), places)


def wide(num_places: int, width: int, seed: int = 0) -> torch.Tensor:
    """Logits over more ids than are added up at once."""
    return 3 * torch.randn(num_places, width, generator=torch.Generator().manual_seed(seed))


class NoFloat64(TorchDispatchMode):
    """A device on which nothing is float64."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        assert all(each.dtype != torch.float64 for each in tree_leaves(made) if isinstance(each, torch.Tensor)), func
        return made


def test_the_best_id_is_taken_and_the_lower_among_equals() -> None:
    assert greedy("confidence").choice.tolist() == [1, 0]
    equal = torch.zeros(2, 1024).index_fill(1, torch.tensor([300, 301, 900]), 1.0)
    assert greedy("confidence", equal).choice.tolist() == [300, 300]


def test_confidence_is_the_probability_of_the_choice() -> None:
    expected = math.exp(3) / (math.exp(1) + 2 * math.exp(3))
    torch.testing.assert_close(greedy("confidence").score, torch.tensor([expected, 1 / 3]))


def test_margin_is_the_distance_of_the_two_best() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)], [5.0, 5.0]])
    torch.testing.assert_close(greedy("margin", logits).score, torch.tensor([0.5, 0.0]))
    assert greedy("margin", torch.zeros(1, 1)).score.tolist() == [1.0]


def test_entropy_prefers_the_surest() -> None:
    score = greedy("entropy").score
    assert score[0] > score[1]
    assert float(score[1]) == pytest.approx(-math.log(3))


def test_half_precision_logits_are_scored_in_float32() -> None:
    assert greedy("confidence", LOGITS.bfloat16()).score.dtype == torch.float32


@pytest.mark.parametrize("width", [1, 255, 256, 1000, 2048])
def test_many_ids_in_float32_are_rated_as_in_float64(width: int) -> None:
    logits = wide(9, width)
    found = greedy("entropy", logits, dtype=torch.float64, needs_entropy=True)
    prob = logits.double().softmax(dim=1)
    assert torch.equal(found.choice, logits.argmax(dim=1))
    torch.testing.assert_close(found.prob, prob.amax(dim=1), rtol=3e-7, atol=0.0)
    torch.testing.assert_close(-found.score, -(prob * prob.log()).sum(dim=1), rtol=1e-6, atol=1e-7)
    assert torch.equal(found.entropy, -found.score)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = Logits(wide(7, 300), wide(7, 300, seed=1), torch.tensor([0.0, 1, 2, 3, 0, 5, 6]))
    whole = propose(logits, temperature=1.0, score="margin", noise=noise(7))
    monkeypatch.setattr("dynin.decoding.score._CHUNK", 700)
    parts = propose(logits, temperature=1.0, score="margin", noise=noise(7))
    assert torch.equal(whole.choice, parts.choice)
    assert torch.equal(whole.score, parts.score)


def test_guidance_is_applied_before_anything_is_rated() -> None:
    conditional, unconditional, scale = wide(4, 50), wide(4, 50, seed=1), torch.tensor([0.0, 0.5, 2.0, 3.5])
    guided = propose(Logits(conditional, unconditional, scale), temperature=0.0, score="confidence")
    plain = greedy("confidence", guide(conditional, unconditional, scale))
    assert torch.equal(guided.choice, plain.choice)
    assert torch.equal(guided.prob, plain.prob)


@pytest.mark.parametrize("sampling", ["gumbel", "inverse"])
def test_sampling_follows_the_probabilities_at_the_temperature(sampling: str) -> None:
    logits = torch.tensor([[0.0, math.log(4.0)]]).expand(20_000, 2)
    drawn = propose(Logits(logits), temperature=2.0, score="confidence", noise=noise(20_000), sampling=sampling)
    assert float(drawn.choice.float().mean()) == pytest.approx(2 / 3, abs=0.01)


@pytest.mark.parametrize("width", [1, 3, 256, 257, 1000])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_one_number_finds_the_id_at_which_the_sum_of_probabilities_exceeds_it(width: int, temperature: float) -> None:
    logits, draws = wide(400, width), noise(400)
    drawn = propose(Logits(logits), temperature=temperature, score="entropy", noise=draws, sampling="inverse")
    so_far = (logits.double() / temperature).softmax(dim=1).cumsum(dim=1)
    uniform = draws.fine(0, 400)
    slack = 1e-6
    assert torch.all(so_far.gather(1, drawn.choice[:, None])[:, 0] > uniform - slack)
    before = torch.where(drawn.choice > 0, so_far.gather(1, (drawn.choice - 1).clamp_min(0)[:, None])[:, 0], 0.0)
    assert torch.all(before <= uniform + slack)
    torch.testing.assert_close(drawn.prob, logits.softmax(dim=1).gather(1, drawn.choice[:, None])[:, 0])
    assert torch.equal(drawn.score, greedy("entropy", logits).score)


def test_what_is_impossible_is_never_drawn() -> None:
    logits = torch.full((5000, 600), -math.inf)
    logits[:, [3, 257, 599]] = 0.0
    drawn = propose(Logits(logits), temperature=1.0, score="confidence", noise=noise(5000), sampling="inverse")
    found, counts = drawn.choice.unique(return_counts=True)
    assert found.tolist() == [3, 257, 599]
    assert (counts.float() / 5000 - 1 / 3).abs().max() < 0.03


def test_large_logits_do_not_overflow() -> None:
    drawn = propose(Logits(LOGITS * 1000), temperature=1.0, score="entropy", noise=noise(2))
    assert drawn.score.isfinite().all()
    assert drawn.choice[0] in (1, 2)


def test_impossible_ids_are_allowed_and_other_infinities_are_told() -> None:
    never, inf, nan = -math.inf, math.inf, math.nan
    logits = torch.tensor([[0.0, never], [never, never], [0.0, inf], [nan, 0.0]])
    found = greedy("entropy", logits)
    assert found.is_finite.tolist() == [True, False, False, False]
    assert float(found.score[0]) == 0.0


def test_present_ids_are_rated_by_their_probability_and_against_the_likeliest() -> None:
    logits = wide(5, 700)
    present = torch.tensor([0, 699, 3, 5, 300])
    prob, support = rate_present(Logits(logits), present)
    expected = logits.softmax(dim=1)
    torch.testing.assert_close(prob, expected.gather(1, present[:, None])[:, 0])
    torch.testing.assert_close(support, prob / expected.amax(dim=1))
    assert [len(part) for part in rate_present(Logits(logits[:0]), present[:0])] == [0, 0]


def test_random_scores_and_sampling_need_noise() -> None:
    with pytest.raises(ValueError, match="random scores"):
        greedy("random")
    with pytest.raises(ValueError, match="noise"):
        propose(Logits(LOGITS), temperature=1.0, score="confidence")


def test_noise_meets_scores_on_a_logarithmic_scale() -> None:
    assert log_score(torch.tensor([1.0, 0.0]), "confidence").tolist() == pytest.approx([0.0, math.log(1e-20)])
    assert log_score(torch.tensor([-2.0]), "entropy").tolist() == [-2.0]


@pytest.mark.parametrize("sampling", ["gumbel", "inverse"])
def test_a_device_without_float64_is_served_in_float32(sampling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    logits = Logits(wide(300, 700))
    options = {"temperature": 1.0, "score": "confidence", "noise": noise(300), "sampling": sampling}
    fine = propose(logits, **options)
    monkeypatch.setattr("dynin.nn.precision._has_float64", lambda kind: False)
    with NoFloat64():
        coarse = propose(logits, **options)
    assert float((fine.choice == coarse.choice).float().mean()) > 0.99
    is_same = fine.choice == coarse.choice
    torch.testing.assert_close(fine.prob[is_same], coarse.prob[is_same], rtol=1e-5, atol=0.0)
