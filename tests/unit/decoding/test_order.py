"""Halton's order: the numbers of the sequence, and that its beginnings are spread out."""

from math import prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_denoisers import ContextDenoiser

from dynin.decoding.canvas import Canvas, Segment
from dynin.decoding.decoder import ParallelDecoder
from dynin.decoding.order import halton_ranks, radical_inverse
from dynin.decoding.policy import DecodingPolicy
from dynin.errors import ConfigError, RequestError


def test_digits_are_mirrored_at_the_point():
    assert [radical_inverse(number, 2) for number in (1, 2, 3, 6)] == [1 / 2, 1 / 4, 3 / 4, 3 / 8]
    assert radical_inverse(5, 3) == pytest.approx(2 / 3 + 1 / 9)


def test_the_first_places_of_a_square_are_those_of_the_sequence():
    ranks = halton_ranks((4, 4))
    # points (1/2, 1/3), (1/4, 2/3), (3/4, 1/9), (1/8, 4/9) of a grid of four by four
    assert [divmod(ranks.index(rank), 4) for rank in range(4)] == [(2, 1), (1, 2), (3, 0), (0, 1)]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=3))
@settings(deadline=None, max_examples=60)
def test_every_place_has_one_rank(shape):
    assert sorted(halton_ranks(tuple(shape))) == list(range(prod(shape)))


@pytest.mark.parametrize("side", [4, 8, 16, 32])
def test_beginnings_are_spread_over_the_quarters_better_than_at_random(side):
    ranks = torch.tensor(halton_ranks((side, side))).view(side, side)
    quarters = torch.stack([part for half in ranks.chunk(2, 0) for part in half.chunk(2, 1)]).flatten(1)
    counts = torch.stack([(quarters < number).sum(dim=1) for number in range(1, side * side + 1)])
    gap = (counts.amax(dim=1) - counts.amin(dim=1)).float()
    shuffled = torch.randperm(side * side, generator=torch.Generator().manual_seed(0)).view(4, -1)
    other = torch.stack([(shuffled < number).sum(dim=1) for number in range(1, side * side + 1)])
    assert gap.mean() < 0.7 * (other.amax(dim=1) - other.amin(dim=1)).float().mean()
    assert gap.max() <= 2 + side // 4


@pytest.mark.parametrize("shape", [(), (0,), (2, 2, 2, 2), (4, -1)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ConfigError, match="no Halton order"):
        halton_ranks(shape)


def _decode(policy, grid, num_new=9):
    ids = torch.full((1, num_new), 23)
    segment = Segment(name="out", is_target=ids == 23, allowed_ids=torch.arange(8), policy=policy, grid=grid)
    seen = []
    ParallelDecoder(ContextDenoiser(24), 23).run(Canvas(ids=ids), [segment], observer=seen.append)
    return seen


def test_places_are_revealed_in_that_order_whatever_their_score():
    steps = _decode(DecodingPolicy(num_steps=9, order="halton"), (3, 3))
    revealed = [int(step.is_committed[0].nonzero()) for step in steps]
    assert [halton_ranks((3, 3))[place] for place in revealed] == list(range(9))


@pytest.mark.parametrize("grid", [None, (4, 4)])
def test_an_order_without_its_grid_is_refused_with_both_values(grid):
    with pytest.raises(RequestError, match=r"order 'halton' and grid .* \[9\] places"):
        _decode(DecodingPolicy(num_steps=9, order="halton"), grid)
