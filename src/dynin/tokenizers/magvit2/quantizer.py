"""Signs as codes: nothing is learnt and nothing is looked up.

Enters: a latent with one channel a bit, or codes. Leaves: codes in raster order, or maps of -1 and 1. Does not know
pixels.

    channel   0     1     2    ...   12
    weight   4096  2048  1024  ...    1        code = sum of the weights of the channels above 0
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class Quantizer(nn.Module):
    """The order of bits in a code, both ways.

    Source:
        Lookup-free quantisation, MAGVIT-v2, arXiv:2310.05737, section 3.1.
    Parity:
        Both tables are part of the published state, though they follow from the number of bits.
    """

    embedding: Tensor
    power_vals: Tensor

    def __init__(self, num_bits: int) -> None:
        super().__init__()
        powers = 2 ** torch.arange(num_bits - 1, -1, -1)
        is_set = (torch.arange(2**num_bits)[:, None] & powers) != 0
        self.register_buffer("power_vals", powers)
        self.register_buffer("embedding", is_set.float() * 2 - 1)

    def codes(self, latent: Float[Tensor, "B K Y X"]) -> Int[Tensor, "B N"]:
        """The codes of a latent in raster order; exactly 0 counts as -1."""
        is_set = (latent > 0).flatten(2).transpose(1, 2)  # B N K
        return (is_set * self.power_vals).sum(-1)

    def signs(self, codes: Int[Tensor, "B N"], grid: tuple[int, int]) -> Float[Tensor, "B K Y X"]:
        """A map of -1 and 1 for codes that fill the grid's rows and columns."""
        return self.embedding[codes].transpose(1, 2).unflatten(2, grid)
