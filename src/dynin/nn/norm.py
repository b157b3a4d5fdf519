"""Root-mean-square normalisation.

Enters: vectors of any float dtype. Leaves: the same shape and dtype. Does not know where in a network it stands.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn, ones


class RMSNorm(nn.Module):
    """Divide each vector by its root mean square, then scale every entry by a learned weight.

    Source:
        Zhang and Sennrich, arXiv:1910.07467.
    Parity:
        Statistics in float32; the result returns to the input's dtype before it meets the weight, as in LLaDA.
    """

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.dim, self.eps = dim, eps
        self.weight = nn.Parameter(ones(dim))

    def forward(self, x: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape D"]:
        """Normalise the last dimension."""
        return F.rms_norm(x.float(), (self.dim,), eps=self.eps).to(x.dtype) * self.weight
