"""What the processor that runs the tests is known to do its own way."""

from functools import cache

import torch
from torch import nn


@cache
def has_tiles() -> bool:
    """Whether products in 16 bits go through matrix tiles (AMX), for which the library takes room of its own."""
    ask = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(ask and ask())


@cache
@torch.no_grad()
def convolves_wrongly() -> bool:
    """Whether long strided convolutions of few channels come out wrong in bfloat16.

    Seen with torch 2.13 on processors with AMX: eight channels, 16 taps, a stride of 8, off by four times the mean.
    """
    generator = torch.Generator().manual_seed(0)
    layer = nn.Conv1d(8, 8, 16, stride=8, padding=4)
    for value in layer.parameters():
        value.copy_(torch.randn(value.shape, generator=generator))
    layer, x = layer.bfloat16(), torch.randn(1, 8, 100, generator=generator).bfloat16()
    found = layer(x).float()
    right = layer.float()(x.float())
    return bool((found - right).abs().max() > right.abs().mean())
