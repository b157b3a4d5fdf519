import math

import pytest
import torch
from torch import nn

from dynin.errors import ConfigError
from dynin.virst.backbone.videochat.config import TowerConfig
from dynin.virst.backbone.videochat.umt import Block, Tower, normalised, positions, sines

SMALL = TowerConfig(width=16, num_layers=2, num_heads=4, mlp_dim=32, patch_px=4, frame_px=16, clip_frames=2)


@torch.no_grad()
def with_weights(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for value in module.parameters():
        value.normal_(0, 0.3, generator=generator)
    return module.eval()


def drawn(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(3)) * 2 - 1


def test_sines_are_those_of_the_formula():
    table = sines(50, 12)
    for place in (0, 1, 17, 49):
        for column in range(12):
            angle = place / 10_000 ** (2 * (column // 2) / 12)
            expected = math.cos(angle) if column % 2 else math.sin(angle)
            assert float(table[place, column]) == pytest.approx(expected, abs=1e-6)


def test_positions_at_the_side_they_were_made_for_are_the_sines():
    config = TowerConfig(frame_px=224)
    assert torch.equal(positions(4, config), sines(4 * 14 * 14, 1024))
    assert torch.equal(positions(1, config), sines(14 * 14, 1024))


def test_the_published_positions_have_one_row_for_each_patch():
    assert positions(4, TowerConfig()).shape == (3136, 1024)
    assert positions(1, TowerConfig()).shape == (784, 1024)


def test_a_picture_has_the_positions_of_a_clips_first_frame():
    torch.testing.assert_close(positions(1, TowerConfig()), positions(4, TowerConfig())[:784])


def test_interpolated_positions_keep_the_mean_of_each_frame():
    of_frames = positions(4, TowerConfig()).view(4, 784, 1024).mean(dim=1)
    made_for = sines(784, 1024).view(4, 196, 1024).mean(dim=1)
    torch.testing.assert_close(of_frames, made_for, atol=0.02, rtol=0)


def test_positions_of_more_frames_lie_between_those_of_fewer():
    config = TowerConfig(frame_px=224, clip_frames=8)
    few, many = positions(4, config).view(4, 196, 1024), positions(8, config).view(8, 196, 1024)
    torch.testing.assert_close(many[0], few[0])
    torch.testing.assert_close(many[1], 0.75 * few[0] + 0.25 * few[1])
    torch.testing.assert_close(many[7], few[3])


def test_a_block_is_a_pre_norm_layer_of_torch_whose_keys_have_no_bias():
    block = with_weights(Block(SMALL))
    other = nn.TransformerEncoderLayer(
        16,
        4,
        dim_feedforward=32,
        dropout=0.0,
        activation="gelu",
        layer_norm_eps=1e-6,
        batch_first=True,
        norm_first=True,
    )
    attention = block.attention
    bias = torch.cat([attention.query_bias, torch.zeros(16), attention.value_bias])
    pairs = {
        "self_attn.in_proj_weight": attention.qkv.weight,
        "self_attn.in_proj_bias": bias,
        "self_attn.out_proj.weight": attention.output.weight,
        "self_attn.out_proj.bias": attention.output.bias,
        "linear1.weight": block.up.weight,
        "linear1.bias": block.up.bias,
        "linear2.weight": block.down.weight,
        "linear2.bias": block.down.bias,
        "norm1.weight": block.attention_norm.weight,
        "norm1.bias": block.attention_norm.bias,
        "norm2.weight": block.mlp_norm.weight,
        "norm2.bias": block.mlp_norm.bias,
    }
    other.load_state_dict(pairs)
    x = drawn(2, 9, 16)
    with torch.no_grad():
        torch.testing.assert_close(block(x), other.train()(x), rtol=1e-5, atol=1e-5)


def test_clips_in_a_batch_are_seen_as_they_are_alone():
    tower = with_weights(Tower(SMALL))
    frames = drawn(3, 2, 3, 16, 16)
    with torch.no_grad():
        together = tower(frames)
        alone = torch.cat([tower(frames[row : row + 1]) for row in range(3)])
    assert together.shape == (3, 2 * 4 * 4, 16)
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_frames_of_a_clip_see_each_other():
    tower = with_weights(Tower(SMALL))
    frames = drawn(1, 2, 3, 16, 16)
    other = torch.cat([frames[:, :1], -frames[:, 1:]], dim=1)
    with torch.no_grad():
        change = (tower(frames) - tower(other))[:, :16].abs().amax()
    assert float(change) > 1e-3


def test_pixels_are_normalised_by_imagenet():
    white, black = normalised(torch.ones(1, 1, 3, 1, 1)), normalised(-torch.ones(1, 1, 3, 1, 1))
    assert white.flatten().tolist() == pytest.approx([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225])
    assert black.flatten().tolist() == pytest.approx([-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225])


@pytest.mark.parametrize("wrong", [{"frame_px": 450}, {"num_heads": 5}, {"num_layers": 0}])
def test_sizes_that_do_not_fit_together_are_refused(wrong):
    with pytest.raises(ConfigError):
        TowerConfig(**wrong)
