"""Optimizers and the average: quicker ways to the numbers of PyTorch's own."""

import copy

import pytest
import torch

from dynin.training import optim
from dynin.training.config import OptimizerConfig
from tests.unit.training.test_loop import small_model


def with_gradients(model, seed):
    draw = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=draw) * 1e-3


def matrices(model):
    return [value for name, value in model.named_parameters() if name.startswith("blocks.") and value.ndim == 2]


@pytest.mark.parametrize("room", [1, 10_000, 2**26], ids=["one by one", "a few", "all"])
def test_muon_of_many_matrices_moves_each_as_pytorch_moves_one(monkeypatch, room):
    monkeypatch.setattr(optim, "TURNED_BYTES", room)
    model, other = small_model(), small_model()
    config = OptimizerConfig(matrix_rate=2e-2, weight_decay=0.1)
    ours = optim.build(model, config)[1]
    theirs = torch.optim.Muon(matrices(other), lr=2e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for step in range(3):
        with_gradients(model, step)
        with_gradients(other, step)
        matrices(model)[2].grad = matrices(other)[2].grad = None  # as where a part is frozen
        ours.step()
        theirs.step()
    for one, another, start in zip(matrices(model), matrices(other), matrices(small_model()), strict=True):
        assert (one - another).norm() <= 1e-3 * (another - start).norm()
    assert torch.equal(matrices(model)[2], matrices(small_model())[2])


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 24, 8), (2, 8, 24)])
def test_turning_brings_every_singular_value_near_one(shape):
    draw = torch.Generator().manual_seed(0)
    turned = optim.turned(torch.randn(shape, generator=draw) * 1e-3, (3.4445, -4.7750, 2.0315), 5, 1e-7)
    assert turned.shape == shape
    values = torch.linalg.svdvals(turned.float())
    assert values.min() > 0.3
    assert values.max() < 1.3


def test_the_average_follows_as_its_formula_says():
    model = small_model()
    average = optim.Average(model, 0.9)
    model.norm.weight.requires_grad_(False)
    wanted = {name: value.clone() for name, value in average.tensors.items()}
    for step in (0, 5, 500):
        for parameter in model.parameters():
            parameter.data += 1
        average.update(model, step)
        decay = min(0.9, (1 + step) / (10 + step))
        for name, parameter in model.named_parameters():
            wanted[name] = decay * wanted[name] + (1 - decay) * parameter.detach()
    for name, value in average.tensors.items():
        assert torch.allclose(value, wanted[name], atol=1e-6), name


def test_parameters_that_do_not_learn_have_no_average():
    model = copy.deepcopy(small_model())
    model.embed.weight.requires_grad_(False)
    average = optim.Average(model, 0.9)
    assert "embed.weight" not in average.tensors
    average.update(model, 0)
