"""The layers shared by all networks: norm, rotation, attention, feed-forward."""

import math

import pytest
import torch
from torch.testing import assert_close

from dynin.nn.attention import attention, usable
from dynin.nn.mlp import GatedMLP
from dynin.nn.norm import RMSNorm
from dynin.nn.rope import rotary_table, rotate

CPU = torch.device("cpu")


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_norm_divides_by_the_root_mean_square_and_scales():
    norm = RMSNorm(4, 1e-5)
    norm.weight.data.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    x = torch.tensor([[3.0, 4.0, 0.0, 0.0]])
    expected = x / math.sqrt(25 / 4 + 1e-5) * norm.weight
    assert_close(norm(x), expected)


def test_norm_in_half_precision_rounds_before_the_weight():
    norm = RMSNorm(64, 1e-5).to(torch.bfloat16)
    norm.weight.data.copy_(1 + 0.3 * noise(64, seed=1))
    x = noise(5, 64).to(torch.bfloat16)
    wide = x.float()
    rounded = (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-5)).to(torch.bfloat16)
    assert_close(norm(x), rounded * norm.weight, rtol=0, atol=0)


def test_rotation_pairs_entry_j_with_entry_j_plus_half():
    table = rotary_table(3, 4, 100.0, CPU)
    x = torch.zeros(1, 3, 1, 4)
    x[..., 0] = 1.0
    turned = rotate(x, table)
    assert_close(turned[0, 2, 0], torch.tensor([math.cos(2), 0.0, math.sin(2), 0.0]))


def test_scores_after_rotation_depend_only_on_the_distance():
    query, key = noise(1, 1, 1, 16), noise(1, 1, 1, 16, seed=1)
    table = rotary_table(40, 16, 500_000.0, CPU)
    turned_query, turned_key = (rotate(x.expand(1, 40, 1, 16), table)[0, :, 0] for x in (query, key))
    scores = turned_query @ turned_key.T
    for distance in (-7, 0, 5):
        assert_close(scores.diagonal(distance), scores.diagonal(distance)[:1].expand(40 - abs(distance)))


def test_rotation_of_half_precision_is_float32_then_cast():
    table, x = rotary_table(9, 8, 500_000.0, CPU), noise(2, 9, 3, 8).to(torch.bfloat16)
    assert torch.equal(rotate(x, table), rotate(x.float(), table).to(torch.bfloat16))


def test_attention_ignores_what_may_not_be_attended():
    query, key, value = (noise(2, 6, 3, 8, seed=seed) for seed in range(3))
    attend = torch.ones(2, 6, dtype=torch.bool)
    attend[1, 4:] = False
    mixed = attention(query, key, value, attend)
    assert_close(mixed[1], attention(query, key[:, :4], value[:, :4], None)[1])
    assert_close(mixed[0], attention(query, key, value, None)[0])


def test_grouped_heads_share_their_keys_and_values():
    query, key, value = noise(1, 5, 4, 8), noise(1, 5, 2, 8, seed=1), noise(1, 5, 2, 8, seed=2)
    mixed = attention(query, key, value, None)
    for head in range(4):
        group = slice(head // 2, head // 2 + 1)
        alone = attention(query[:, :, head : head + 1], key[:, :, group], value[:, :, group], None)
        assert_close(mixed[:, :, head : head + 1], alone)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_row_without_anything_to_attend_stays_finite(dtype):
    query, key, value = (noise(2, 6, 3, 8, seed=seed).to(dtype) for seed in range(3))
    attend = torch.tensor([[True] * 6, [False] * 6])
    assert attention(query, key, value, usable(attend)).isfinite().all()


def test_only_rows_without_anything_to_attend_are_changed():
    attend = torch.tensor([[True, False], [False, False]])
    result = usable(attend)
    assert result is not None
    assert result.tolist() == [[True, False], [True, True]]
    assert usable(None) is None


def test_the_gate_passes_through_silu_and_the_up_projection_does_not():
    mlp = GatedMLP(2, 1)
    for layer, values in ((mlp.gate, [[1.0, 0.0]]), (mlp.up, [[0.0, 1.0]]), (mlp.down, [[1.0], [2.0]])):
        layer.weight.data.copy_(torch.tensor(values))
    silu = 3.0 / (1 + math.exp(-3.0))
    assert_close(mlp(torch.tensor([3.0, -5.0])), torch.tensor([-5 * silu, -10 * silu]))
