"""Rules that hide committed places again."""

import torch

from dynin.decoding.remask import Committed, LowConfidenceRemask, VerifyRemask


def committed(prob: list[float], *, times: list[int] | None = None, progress: float = 0.6) -> Committed:
    """One row in which every place is open."""
    return Committed(
        is_open=torch.ones(1, len(prob), dtype=torch.bool),
        prob=torch.tensor([prob]),
        times=torch.tensor([times or [0] * len(prob)]),
        num_places=torch.tensor([len(prob)]),
        progress=torch.tensor([progress]),
    )


def test_the_least_certain_places_are_hidden() -> None:
    chosen = LowConfidenceRemask(fraction=0.5).choose(committed([0.9, 0.2, 0.8, 0.1]), torch.tensor([4]))
    assert chosen.tolist() == [[False, True, False, True]]


def test_the_decoder_limit_is_kept() -> None:
    chosen = LowConfidenceRemask(fraction=1.0).choose(committed([0.9, 0.2, 0.8, 0.1]), torch.tensor([1]))
    assert chosen.tolist() == [[False, False, False, True]]


def test_nothing_is_hidden_outside_the_active_share_of_steps() -> None:
    rule = LowConfidenceRemask(fraction=0.5, start=0.5, stop=0.8)
    for progress in (0.4, 0.8):
        assert not rule.choose(committed([0.1, 0.2], progress=progress), torch.tensor([2])).any()


def test_places_hidden_less_often_go_first_and_exhausted_ones_never() -> None:
    view = committed([0.1, 0.9, 0.2], times=[1, 0, 4])
    chosen = LowConfidenceRemask(fraction=0.3, max_times=4).choose(view, torch.tensor([1]))
    assert chosen.tolist() == [[False, True, False]]
    chosen = LowConfidenceRemask(fraction=1.0, max_times=4).choose(view, torch.tensor([3]))
    assert chosen.tolist() == [[True, True, False]]


def test_refinement_sets_steps_aside() -> None:
    assert LowConfidenceRemask(fraction=0.2, refine=0.25).hold(16, 8) == (4, 2)
    assert LowConfidenceRemask(fraction=0.2).hold(16, 8) == (0, 0)


def test_verification_hides_what_is_below_the_bar() -> None:
    chosen = VerifyRemask(bar=0.5).choose(committed([0.9, 0.2, 0.49, 0.5]), torch.tensor([4]))
    assert chosen.tolist() == [[False, True, True, False]]
