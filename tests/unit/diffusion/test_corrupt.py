"""Corruption touches targets only, and as many as asked."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from dynin.diffusion.corrupt import bernoulli, exact_count, replace_at_random, stratified_times

seeds = st.integers(0, 2**31)


def targets(seed: int) -> torch.Tensor:
    return torch.rand(4, 12, generator=torch.Generator().manual_seed(seed)) < 0.6


@given(seeds, st.floats(0, 1))
def test_conditions_are_never_hidden(seed, prob):
    is_target = targets(seed)
    generator = torch.Generator().manual_seed(seed)
    for rule in (bernoulli, exact_count):
        is_hidden = rule(is_target, torch.full((4,), prob), generator=generator)
        assert not bool((is_hidden & ~is_target).any())


@given(seeds)
def test_every_target_is_hidden_at_time_one(seed):
    is_target = targets(seed)
    generator = torch.Generator().manual_seed(seed)
    for rule in (bernoulli, exact_count):
        assert torch.equal(rule(is_target, torch.ones(4), generator=generator), is_target)


@given(seeds, st.floats(0, 1))
def test_the_exact_count_is_rounded_and_at_least_one(seed, prob):
    is_target = targets(seed)
    is_hidden = exact_count(is_target, torch.full((4,), prob), generator=torch.Generator().manual_seed(seed))
    expected = (torch.full((4,), prob) * is_target.sum(dim=1)).round().clamp(min=1)
    assert torch.equal(is_hidden.sum(dim=1), torch.minimum(expected, is_target.sum(dim=1)).long())


@given(seeds)
def test_replacements_stay_inside_the_candidates_and_the_given_ids(seed):
    is_candidate = targets(seed)
    ids = torch.zeros(4, 12, dtype=torch.long)
    generator = torch.Generator().manual_seed(seed)
    changed, is_replaced = replace_at_random(
        ids, is_candidate, 0.5, replacements=torch.arange(5, 9), generator=generator
    )
    assert not bool((is_replaced & ~is_candidate).any())
    assert torch.equal(changed != 0, is_replaced)
    assert set(changed[is_replaced].tolist()) <= set(range(5, 9))


@given(seeds, st.integers(1, 40))
def test_stratified_times_fall_once_into_every_interval(seed, count):
    times = stratified_times(count, generator=torch.Generator().manual_seed(seed))
    assert sorted((times * count).floor().int().tolist()) == list(range(count))
