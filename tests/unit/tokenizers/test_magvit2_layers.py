"""Layers of MAGVIT-v2 that compute in another way than they are described."""

import pytest
import torch
from torch.nn.functional import conv2d, group_norm, interpolate, silu
from torch.testing import assert_close

from dynin.tokenizers.magvit2.layers import ResidualBlock, Upsample

LAYOUTS = (torch.contiguous_format, torch.channels_last)


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize(("rows", "columns"), [(1, 2), (4, 6), (5, 3)])
def test_a_larger_map_is_the_convolution_of_repeated_places(
    rows: int, columns: int, layout: torch.memory_format
) -> None:
    upsample = Upsample(32).to(memory_format=layout)
    x = drawn(2, 32, rows, columns).contiguous(memory_format=layout).requires_grad_()
    made, expected = upsample(x), upsample.conv(interpolate(x, scale_factor=2.0, mode="nearest"))
    assert_close(made, expected, rtol=0, atol=1e-5)
    assert made.stride() == torch.empty(made.shape).contiguous(memory_format=layout).stride()
    weights = (x, *upsample.parameters())
    upstream = drawn(*made.shape)
    for got, wanted in zip(
        torch.autograd.grad(made, weights, upstream), torch.autograd.grad(expected, weights, upstream), strict=True
    ):
        assert_close(got, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("width", [32, 64])
def test_a_residual_block_leaves_its_input_and_can_be_trained(width: int) -> None:
    block = ResidualBlock(32, width)
    x = drawn(2, 32, 4, 4).requires_grad_()
    before = x.detach().clone()

    def plain(x: torch.Tensor) -> torch.Tensor:
        hidden = x
        for norm, conv in ((block.norm1, block.conv1), (block.norm2, block.conv2)):
            hidden = conv2d(
                silu(group_norm(hidden, 32, norm.weight, norm.bias, 1e-6)), conv.weight, conv.bias, padding=1
            )
        return block.nin_shortcut(x) + hidden

    made = block(x)
    assert_close(made, plain(x), rtol=0, atol=1e-5)
    assert torch.equal(x, before)
    weights = (x, *block.parameters())
    for got, wanted in zip(
        torch.autograd.grad(made.square().sum(), weights),
        torch.autograd.grad(plain(x).square().sum(), weights),
        strict=True,
    ):
        assert_close(got, wanted, rtol=1e-4, atol=1e-4)
