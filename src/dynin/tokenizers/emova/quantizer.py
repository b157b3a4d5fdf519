"""Latents as codes: every coordinate is bounded and rounded to one of a few levels; nothing is learnt.

Enters: latents with one number a coordinate, or codes. Leaves: codes, or the values that the coordinates were rounded
to. Does not know sounds.

    coordinate   0   1   2    3
    weight       1   8  64  512        code = sum of weight times level, levels from 0 to 7
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

_EPS = 1e-3


@dataclass(frozen=True, slots=True)
class ScalarQuantizer:
    """Finite scalar quantization with the published bound.

    Source:
        Mentzer et al., "Finite Scalar Quantization: VQ-VAE Made Simple", arXiv:2309.15505.
    Parity:
        The bound shrinks by 1 - eps and is shifted by a tangent, where the paper has an inverse hyperbolic tangent:
        one vector in some sixty gets another code with the paper's.
    """

    levels: tuple[int, ...]

    @property
    def strides(self) -> tuple[int, ...]:
        """What one level of each coordinate adds to a code."""
        return tuple(math.prod(self.levels[:index]) for index in range(len(self.levels)))

    def codes(self, latent: Float[Tensor, "*B L"]) -> Int[Tensor, "*B"]:
        """The codes of latents, worked out in float32."""
        halves = torch.tensor([(level - 1) * (1 - _EPS) / 2 for level in self.levels], device=latent.device)
        offsets = torch.tensor([0.0 if level % 2 else 0.5 for level in self.levels], device=latent.device)
        shifted = latent.float() + torch.tan(offsets / halves)
        steps = (torch.tanh(shifted) * halves - offsets).round().long()
        return ((steps + self._centres(latent)) * torch.tensor(self.strides, device=latent.device)).sum(-1)

    def values(self, codes: Int[Tensor, "*B"]) -> Float[Tensor, "*B L"]:
        """What codes stand for: -1 up to less than 1 in each coordinate."""
        strides = torch.tensor(self.strides, device=codes.device)
        digits = codes[..., None] // strides % torch.tensor(self.levels, device=codes.device)
        centres = self._centres(codes)
        return (digits - centres) / centres

    def _centres(self, like: Tensor) -> Int[Tensor, " L"]:
        """The level that 0 is, for each coordinate."""
        return torch.tensor([level // 2 for level in self.levels], device=like.device)
