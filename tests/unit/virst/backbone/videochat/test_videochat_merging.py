import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynin.virst.backbone.videochat.merging import merge, schedule


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def merged_one_by_one(tokens, num_left, num_heads):
    """The same by its definition: one row, one token at a time, lists instead of tensors."""
    entries = [(token.double(), 1) for token in tokens]
    for num_removed in schedule(len(tokens), num_left):
        means = [token.view(num_heads, -1).mean(dim=0) for token, _ in entries]
        firsts, seconds = list(range(0, len(entries), 2)), list(range(1, len(entries), 2))
        best = {}
        for first in firsts:
            likes = [torch.cosine_similarity(means[first], means[second], dim=0) for second in seconds]
            at = max(range(len(seconds)), key=lambda index: likes[index])
            best[first] = (float(likes[at]), seconds[at])
        ranked = sorted(firsts, key=lambda first: -best[first][0])
        for first in ranked[:num_removed]:
            into = best[first][1]
            (token, size), (other, count) = entries[first], entries[into]
            entries[into] = ((token * size + other * count) / (size + count), size + count)
        entries = [entries[first] for first in ranked[num_removed:]] + [entries[second] for second in seconds]
    return torch.stack([token for token, _ in entries]), [size for _, size in entries]


def test_the_published_schedules():
    assert schedule(4 * 28 * 28, 64) == (1568, 784, 392, 196, 98, 34)
    assert schedule(28 * 28, 64) == (392, 196, 98, 34)


@given(num_tokens=st.integers(1, 5000), num_left=st.integers(1, 5000))
def test_a_schedule_ends_where_it_should_and_never_removes_more_than_half(num_tokens, num_left):
    num_left = min(num_tokens, num_left)
    left = num_tokens
    for num_removed in schedule(num_tokens, num_left):
        assert 1 <= num_removed <= left // 2
        left -= num_removed
    assert left == num_left


@pytest.mark.parametrize("num_left", [0, 9])
def test_a_schedule_to_no_token_or_to_more_than_there_are_is_refused(num_left):
    with pytest.raises(ValueError, match="ask for 1 to 8"):
        schedule(8, num_left)


@settings(deadline=None, max_examples=40)
@given(num_tokens=st.integers(2, 40), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_every_token_is_counted_once_and_the_weighted_mean_stays(num_tokens, share, seed):
    tokens = drawn(2, num_tokens, 8, seed=seed).double()
    left, sizes = merge(tokens, max(1, round(share * num_tokens)), 2, is_exact=False)
    assert torch.equal(sizes.sum(dim=1), torch.full((2,), float(num_tokens), dtype=torch.float64))
    torch.testing.assert_close((left * sizes[..., None]).sum(dim=1), tokens.sum(dim=1))


@pytest.mark.parametrize(("num_tokens", "num_left"), [(2, 1), (7, 3), (24, 5), (33, 32), (64, 6)])
def test_merging_is_what_a_naive_loop_makes(num_tokens, num_left):
    tokens = drawn(3, num_tokens, 12, seed=num_tokens)
    left, sizes = merge(tokens, num_left, 3)
    for row in range(3):
        expected, counts = merged_one_by_one(tokens[row], num_left, 3)
        torch.testing.assert_close(left[row].double(), expected, rtol=1e-5, atol=1e-6)
        assert sizes[row].tolist() == counts


def test_a_row_is_merged_as_it_is_alone():
    tokens = drawn(4, 30, 16)
    together, _ = merge(tokens, 6, 4)
    alone = torch.cat([merge(tokens[row : row + 1], 6, 4)[0] for row in range(4)])
    torch.testing.assert_close(together, alone)


def test_equal_tokens_are_merged_into_the_first_of_them_and_a_different_one_is_kept():
    loud, quiet = torch.eye(4)[0], torch.eye(4)[1]
    tokens = torch.stack([loud, loud, quiet, loud, loud, loud])[None]
    left, sizes = merge(tokens, 4, 1)
    assert torch.equal(left[0, 0], quiet)
    assert sizes[0].tolist() == [1, 3, 1, 1]
    assert int((left[0] == quiet).all(dim=1).sum()) == 1


def test_counts_are_exact_in_bfloat16_where_the_working_type_loses_some():
    tokens = torch.ones(1, 3136, 4, dtype=torch.bfloat16)
    left, sizes = merge(tokens, 64, 1)
    _, coarse = merge(tokens, 64, 1, is_exact=False)
    assert left.dtype == torch.bfloat16
    assert float(sizes.sum()) == 3136
    assert float(coarse.float().sum()) != 3136


def test_gradients_reach_every_token():
    tokens = drawn(1, 20, 8).requires_grad_()
    merge(tokens, 3, 2)[0].sum().backward()
    assert bool((tokens.grad != 0).all())
