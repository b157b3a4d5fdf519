"""The gated feed-forward layer.

Enters and leaves: vectors of the model's width. Does not know about positions: each vector is treated alone.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class GatedMLP(nn.Module):
    """`down(silu(gate(x)) * up(x))`, without biases.

    Source:
        Shazeer, arXiv:2002.05202 (SwiGLU).
    """

    def __init__(self, d_model: int, mlp_dim: int) -> None:
        super().__init__()
        self.gate = nn.Linear(d_model, mlp_dim, bias=False)
        self.up = nn.Linear(d_model, mlp_dim, bias=False)
        self.down = nn.Linear(mlp_dim, d_model, bias=False)

    def forward(self, x: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape D"]:
        """Apply the layer to every vector."""
        return self.down(F.silu(self.gate(x), inplace=True).mul_(self.up(x)))
