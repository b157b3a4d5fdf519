"""Rules that hide committed places again."""

import torch
from toy_denoisers import ChainDenoiser

from dynin.decoding.canvas import Canvas, Segment
from dynin.decoding.decoder import ParallelDecoder
from dynin.decoding.policy import DecodingPolicy
from dynin.decoding.remask import Committed, LowConfidenceRemask, RemaskRule, VerifyRemask


def committed(
    prob: list[float], *, times: list[int] | None = None, checks: list[int] | None = None, progress: float = 0.6
) -> Committed:
    """One row in which every place is open."""
    return Committed(
        is_open=torch.ones(1, len(prob), dtype=torch.bool),
        prob=torch.tensor([prob]),
        times=torch.tensor([times or [0] * len(prob)]),
        checks=torch.tensor([checks or [0] * len(prob)]),
        num_places=torch.tensor([len(prob)]),
        progress=torch.tensor([progress]),
    )


def choose(rule: RemaskRule, view: Committed, limit: int) -> list[bool]:
    """Places of one row that a rule hides again, when the support of every place is its probability."""
    return rule.choose(view, view.prob, torch.tensor([limit]))[0].tolist()


def test_the_least_certain_places_are_hidden() -> None:
    rule = LowConfidenceRemask(fraction=0.5)
    assert choose(rule, committed([0.9, 0.2, 0.8, 0.1]), 4) == [False, True, False, True]


def test_the_decoder_limit_is_kept() -> None:
    rule = LowConfidenceRemask(fraction=1.0)
    assert choose(rule, committed([0.9, 0.2, 0.8, 0.1]), 1) == [False, False, False, True]


def test_nothing_is_hidden_outside_the_active_share_of_steps() -> None:
    rule = LowConfidenceRemask(fraction=0.5, start=0.5, stop=0.8)
    for progress in (0.4, 0.8):
        assert not any(choose(rule, committed([0.1, 0.2], progress=progress), 2))


def test_places_hidden_less_often_go_first_and_exhausted_ones_never() -> None:
    view = committed([0.1, 0.9, 0.2], times=[1, 0, 4])
    assert choose(LowConfidenceRemask(fraction=0.3, max_times=4), view, 1) == [False, True, False]
    assert choose(LowConfidenceRemask(fraction=1.0, max_times=4), view, 3) == [True, True, False]


def test_refinement_sets_steps_aside() -> None:
    assert LowConfidenceRemask(fraction=0.2, refine=0.25).hold(16, 8) == (4, 2)
    assert LowConfidenceRemask(fraction=0.2).hold(16, 8) == (0, 0)


def test_verification_hides_what_is_below_the_bar() -> None:
    assert choose(VerifyRemask(bar=0.5), committed([0.9, 0.2, 0.49, 0.5]), 4) == [False, True, True, False]


def test_the_least_verified_and_then_the_least_certain_places_are_inspected() -> None:
    view = committed([0.9, 0.2, 0.8, 0.1], checks=[0, 1, 0, 1])
    assert VerifyRemask(share=0.5).inspect(view).tolist() == [[True, False, True, False]]
    assert VerifyRemask(share=0.75).inspect(view).tolist() == [[True, False, True, True]]
    assert VerifyRemask(share=0.0).inspect(view).all()


def test_verification_makes_samples_of_a_chain_likelier_at_the_same_number_of_calls() -> None:
    chain = ChainDenoiser(num_states=8)
    ids = torch.full((300, 24), chain.mask_id)
    ids[:, 0] = torch.arange(300) % 8
    outcomes = []
    for rule in (None, VerifyRemask(bar=0.4)):
        policy = DecodingPolicy(num_steps=8, schedule="cosine", temperature=1.0, remask=rule)
        segment = Segment(name="x", is_target=ids == chain.mask_id, allowed_ids=torch.arange(8), policy=policy)
        decoder = ParallelDecoder(chain, chain.mask_id)
        outcomes.append(decoder.run(Canvas(ids=ids), [segment], generator=torch.Generator().manual_seed(0)))
    plain, verified = outcomes
    assert verified.num_forwards == plain.num_forwards
    assert chain.log_likelihood(verified.ids) > chain.log_likelihood(plain.ids) + 0.2
