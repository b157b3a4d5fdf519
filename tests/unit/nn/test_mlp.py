"""The gated layer, in place and not."""

import torch
import torch.nn.functional as F
from torch.testing import assert_close

from dynin.nn.mlp import GatedMLP


def test_the_layer_is_its_formula_and_its_gradients_are_those_of_the_formula() -> None:
    layer = GatedMLP(8, 12)
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    plain = layer.down(F.silu(layer.gate(x)) * layer.up(x))
    wanted = torch.autograd.grad(plain.square().sum(), [x, *layer.parameters()])
    found = torch.autograd.grad(layer(x).square().sum(), [x, *layer.parameters()])
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one, other)
    kept = x.detach().clone()
    with torch.no_grad():  # here it works in place, and leaves what it was given
        assert torch.equal(layer(x), plain)
        assert_close(x, kept)
    frozen = layer.requires_grad_(False)
    assert_close(torch.autograd.grad(frozen(x).square().sum(), [x])[0], wanted[0])
