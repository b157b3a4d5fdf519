"""What holds of the fusions for every input: shifts and orders of time, batches, gradients, equal sizes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from dynin.errors import ConfigError
from dynin.virst.cells import SeenFrames
from dynin.virst.config import FusionConfig
from dynin.virst.fusion import InitialFusion, SecondFusion, drop, second_of
from dynin.virst.rotary import angles, axis_dim, rotate_pairs

ST_DIM, DIM, NUM_ST, SIDE = 24, 16, 3, 8
CONFIG = FusionConfig(num_downs=1, initial_heads=2, heads=2, dropout=0.0)
quick = settings(max_examples=8, deadline=None)
seeds = st.integers(0, 2**31 - 1)


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randomised(module: torch.nn.Module, seed: int) -> torch.nn.Module:
    generator = draw(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3 + float(parameter.ndim == 1))
    return module


def seen_frames(seed: int, counts: tuple[int, ...], rows: int = SIDE, columns: int = SIDE) -> SeenFrames:
    features = torch.randn(len(counts), max(counts), DIM, rows, columns, generator=draw(seed))
    times = torch.arange(max(counts), dtype=torch.float32).expand(len(counts), -1)
    return SeenFrames(features=features, is_frame=times < torch.tensor(counts)[:, None], times=times)


def ordered(seen: SeenFrames, order: torch.Tensor, *, with_times: bool) -> SeenFrames:
    times = seen.times[:, order] if with_times else seen.times
    return SeenFrames(features=seen.features[:, order], is_frame=seen.is_frame, times=times)


@quick
@given(seed=seeds, shift=st.floats(-50, 50), head_dim=st.sampled_from([6, 8, 16, 32]))
def test_products_of_turned_vectors_depend_on_the_difference_of_their_places(seed, shift, head_dim):
    query, key = torch.randn(2, 1, 5, 2, head_dim, generator=draw(seed))
    places = torch.randn(2, 1, 5, 3, generator=draw(seed + 1)) * 3

    def products(by: float) -> torch.Tensor:
        width = axis_dim(head_dim)
        turned = [angles(place + by, width, 100.0).flatten(-2) for place in places]
        return torch.einsum("bqhe,bkhe->bhqk", rotate_pairs(query, turned[0]), rotate_pairs(key, turned[1]))

    assert_close(products(shift), products(0.0), atol=1e-3, rtol=1e-3)


def test_a_head_of_32_splits_as_published():
    assert [axis_dim(width) for width in (32, 8, 6, 4)] == [10, 2, 2, 0]


@quick
@given(seed=seeds, shift=st.floats(-20, 20))
@torch.no_grad()
def test_prompts_do_not_change_when_all_times_are_shifted(seed, shift):
    fusion = randomised(SecondFusion(ST_DIM, DIM, CONFIG), seed)
    seen, states = seen_frames(seed + 1, (4,)), torch.randn(1, NUM_ST, ST_DIM, generator=draw(seed))
    later = SeenFrames(features=seen.features, is_frame=seen.is_frame, times=seen.times + shift)
    videos = torch.zeros(1, dtype=torch.long)
    assert_close(fusion(states, seen, videos).tokens, fusion(states, later, videos).tokens, atol=1e-4, rtol=1e-3)


@quick
@given(seed=seeds, order=st.permutations(range(4)))
@torch.no_grad()
def test_frames_in_another_order_with_their_times_give_the_prompts_in_that_order(seed, order):
    at = torch.tensor(order)
    fusion = randomised(SecondFusion(ST_DIM, DIM, CONFIG), seed)
    seen, states = seen_frames(seed + 1, (4,)), torch.randn(1, NUM_ST, ST_DIM, generator=draw(seed))
    videos = torch.zeros(1, dtype=torch.long)
    straight = fusion(states, seen, videos).tokens
    assert_close(fusion(states, ordered(seen, at, with_times=True), videos).tokens, straight[:, :, at])


@quick
@given(seed=seeds, order=st.permutations(range(4)))
@torch.no_grad()
def test_the_initial_fusion_does_not_see_the_order_of_frames(seed, order):
    fusion = randomised(InitialFusion(ST_DIM, DIM, CONFIG), seed)
    seen, st_in = seen_frames(seed + 1, (4,)), torch.randn(1, NUM_ST, ST_DIM, generator=draw(seed))
    videos = torch.zeros(1, dtype=torch.long)
    other = ordered(seen, torch.tensor(order), with_times=False)
    assert_close(fusion(st_in, other, videos), fusion(st_in, seen, videos))


@torch.no_grad()
def test_the_second_fusion_sees_the_order_of_frames_by_rotary_and_learned_positions_alone():
    seen, states = seen_frames(1, (4,)), torch.randn(1, NUM_ST, ST_DIM, generator=draw(2))
    videos, back = torch.zeros(1, dtype=torch.long), torch.tensor([3, 2, 1, 0])
    for positions, is_seen in (("rotary", True), ("learned", True), ("none", False)):
        config = FusionConfig(num_downs=1, heads=2, dropout=0.0, positions=positions)
        fusion = randomised(SecondFusion(ST_DIM, DIM, config), 3)
        first = fusion(states, seen, videos).tokens
        second = fusion(states, ordered(seen, back, with_times=False), videos).tokens
        assert torch.allclose(first, second, atol=1e-5) != is_seen, positions


@quick
@given(seed=seeds, counts=st.lists(st.integers(1, 4), min_size=1, max_size=3), rows=st.integers(3, 9))
@torch.no_grad()
def test_a_batch_of_sentences_and_videos_gives_what_each_gives_alone(seed, counts, rows):
    initial = randomised(InitialFusion(ST_DIM, DIM, CONFIG), seed)
    second = randomised(SecondFusion(ST_DIM, DIM, CONFIG), seed + 1)
    seen = seen_frames(seed + 2, tuple(counts), rows=rows, columns=SIDE)
    generator = draw(seed)
    videos = torch.randint(len(counts), (5,), generator=generator)
    st_in = torch.randn(5, NUM_ST, ST_DIM, generator=generator)
    fused = initial(st_in, seen, videos)
    prompts = second(fused, seen, videos, wants_scores=True)
    for row, video in enumerate(videos.tolist()):
        count = counts[video]
        own = SeenFrames(
            features=seen.features[video : video + 1, :count],
            is_frame=seen.is_frame[video : video + 1, :count],
            times=seen.times[video : video + 1, :count],
        )
        alone = torch.zeros(1, dtype=torch.long)
        one = initial(st_in[row : row + 1], own, alone)
        assert_close(one[0], fused[row], atol=1e-4, rtol=1e-4)
        told = second(one, own, alone, wants_scores=True)
        assert_close(told.tokens[0], prompts.tokens[row, :, :count], atol=1e-4, rtol=1e-4)
        assert_close(told.frame_scores[0], prompts.frame_scores[row, :count], atol=1e-5, rtol=1e-4)
        cells = -(-rows // 2) * SIDE // 2
        assert_close(prompts.frame_scores[row].sum(), torch.tensor(1 / cells), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("second", ["fusion", "linear", "mlp"])
@pytest.mark.parametrize("positions", ["rotary", "learned", "none"])
def test_gradients_reach_every_tensor_of_the_fusions(second, positions):
    config = FusionConfig(num_downs=1, initial_heads=2, heads=2, positions=positions, second=second, max_frames=3)
    initial, prompter = InitialFusion(ST_DIM, DIM, config), second_of(ST_DIM, DIM, config)
    seen = seen_frames(0, (3, 2))
    videos = torch.tensor([0, 1])
    fused = initial(torch.randn(2, NUM_ST, ST_DIM, generator=draw(1)), seen, videos)
    prompter(fused, seen, videos, draw(2)).tokens.square().sum().backward()
    unmoved = [
        name
        for module in (initial, prompter)
        for name, value in module.named_parameters()
        if value.grad is None or not value.grad.any()
    ]
    assert not unmoved


@pytest.mark.parametrize("st_dim", [24, 256, 3584])
def test_the_feed_forward_network_in_place_of_the_second_fusion_is_of_its_size(st_dim):
    with torch.device("meta"):
        sizes = [
            sum(value.numel() for value in second_of(st_dim, 256, FusionConfig(second=kind)).parameters())
            for kind in ("fusion", "mlp")
        ]
    assert abs(sizes[0] - sizes[1]) <= (st_dim + 257) / 2 + 1


@quick
@given(seed=seeds, share=st.floats(0.0, 0.9))
def test_what_is_dropped_follows_from_the_generator_and_nothing_is_dropped_without(seed, share):
    x = torch.ones(50, 40)
    assert torch.equal(drop(x, share, draw(seed)), drop(x, share, draw(seed)))
    assert drop(x, share, None) is x
    kept = drop(x, share, draw(seed))
    assert_close(kept[kept > 0].mean(), torch.tensor(1 / (1 - share)))
    assert abs(float((kept > 0).float().mean()) - (1 - share)) < 0.08


def test_more_frames_than_learned_vectors_are_refused_with_what_to_do():
    config = FusionConfig(num_downs=1, heads=2, positions="learned", max_frames=2)
    fusion = SecondFusion(ST_DIM, DIM, config)
    with pytest.raises(ConfigError, match=r"3 frames.*max_frames' is 2.*rotary"):
        fusion(torch.zeros(1, NUM_ST, ST_DIM), seen_frames(0, (3,)), torch.zeros(1, dtype=torch.long))


def test_heads_that_do_not_split_a_width_are_refused():
    with pytest.raises(ConfigError, match=r"fusion\.heads' is 3"):
        SecondFusion(ST_DIM, DIM, FusionConfig(heads=3))
    with pytest.raises(ConfigError, match=r"fusion\.initial_heads' is 5"):
        InitialFusion(ST_DIM, DIM, FusionConfig(initial_heads=5))
