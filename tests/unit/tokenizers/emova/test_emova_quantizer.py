"""Codes of the published speech tokenizer: thresholds, order of coordinates, every code there and back."""

import math

import pytest
import torch

from dynin.tokenizers.emova.quantizer import ScalarQuantizer

FOUR = ScalarQuantizer((8, 8, 8, 8))


@pytest.mark.parametrize(
    ("level", "threshold"), [*enumerate((-1.4297, -0.7945, -0.4382, -0.1440, 0.1502, 0.5065, 1.1417))]
)
@pytest.mark.parametrize("coordinate", range(4))
def test_levels_change_at_the_published_thresholds(level, threshold, coordinate):
    latent = torch.zeros(2, 4)
    latent[:, coordinate] = torch.tensor([threshold - 1e-4, threshold + 1e-4])
    digits = FOUR.codes(latent) // 8**coordinate % 8
    assert digits.tolist() == [level, level + 1]


def test_the_shift_is_the_tangent_and_not_the_inverse_hyperbolic_one():
    middle = -math.tan(0.5 / 3.4965)
    assert abs(middle + math.atanh(0.5 / 3.4965)) > 3e-6
    latent = torch.zeros(2, 4)
    latent[:, 0] = torch.tensor([middle - 1e-6, middle + 1e-6])
    assert (FOUR.codes(latent) % 8).tolist() == [3, 4]


def test_the_first_coordinate_counts_least():
    signs = torch.tensor([[1, -1, -1, -1], [-1, 1, -1, -1], [-1, -1, -1, -1], [1, 1, 1, 1]]) * 100.0
    assert FOUR.codes(signs).tolist() == [7, 56, 0, 4095]


def test_every_code_survives():
    codes = torch.arange(4096)
    values = FOUR.values(codes)
    assert values.shape == (4096, 4)
    assert values.unique().tolist() == [-1, -0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.75]
    middles = torch.tensor([-2.0, -1.1, -0.6, -0.3, 0.0, 0.3, 0.8, 2.0])
    assert torch.equal(FOUR.codes(middles[(values * 4 + 4).long()]), codes)


def test_odd_levels_lie_around_zero():
    three = ScalarQuantizer((3, 8))
    assert three.strides == (1, 3)
    assert (three.codes(torch.tensor([[0.0, -9], [-9, -9], [9, 9]]))).tolist() == [1, 0, 23]
    assert three.values(torch.arange(3))[:, 0].tolist() == [-1, 0, 1]


def test_latents_of_any_shape_and_dtype_are_taken():
    latent = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    codes = FOUR.codes(latent)
    assert codes.dtype == torch.int64
    assert torch.equal(codes, FOUR.codes(latent.float()))
    assert FOUR.codes(torch.zeros(0, 4)).shape == (0,)
