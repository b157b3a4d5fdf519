"""Attention written out, while gradients are recorded, and the fused kernel: the same values and gradients."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from dynin.nn.attention import attention, usable

ROWS, PLACES, HEADS, GROUPS, DIM = 3, 7, 4, 2, 8


def masks() -> dict[str, Tensor | None]:
    generator = torch.Generator().manual_seed(1)
    by_row = torch.rand(ROWS, PLACES, generator=generator) < 0.6
    by_query = torch.rand(ROWS, PLACES, PLACES, generator=generator) < 0.6
    return {"none": None, "by row": usable(by_row), "by query": usable(by_query)}


@pytest.mark.parametrize("name", ["none", "by row", "by query"])
def test_written_out_it_is_softmax_of_scaled_products(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = ((PLACES, HEADS, DIM), (PLACES, GROUPS, DIM), (PLACES, GROUPS, DIM))
    given = [torch.randn(ROWS, *shape, generator=generator, dtype=torch.float64) for shape in shapes]
    attend = masks()[name]
    fused = attention(*given, attend)
    query, key, value = (each.clone().requires_grad_() for each in given)
    written = attention(query, key, value, attend)
    assert_close(written, fused, rtol=1e-6, atol=1e-6)  # its softmax is in float32

    wide = [each.repeat_interleave(HEADS // GROUPS, dim=2) for each in (key, value)]
    scores = torch.einsum("bqhe,bkhe->bhqk", query, wide[0]) / DIM**0.5
    if attend is not None:
        scores = scores.masked_fill(~(attend[:, None, None] if attend.ndim == 2 else attend[:, None]), float("-inf"))
    plain = torch.einsum("bhqk,bkhe->bqhe", scores.softmax(dim=-1), wide[1])
    weights = torch.randn(plain.shape, generator=generator, dtype=torch.float64)
    found = torch.autograd.grad((written * weights).sum(), (query, key, value))
    wanted = torch.autograd.grad((plain * weights).sum(), (query, key, value))
    for one, other in zip(found, wanted, strict=True):
        assert_close(one, other, rtol=1e-5, atol=1e-6)
