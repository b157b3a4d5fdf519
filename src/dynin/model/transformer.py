"""The backbone: ids to logits, every position seeing every other.

Enters: ids of the unified vocabulary, and which columns are real. Leaves: hidden states, and logits over all or some
ids. Does not know which ids are text, picture or sound, which are hidden, or how they will be revealed.

    ids --embed--> x --[ x + attention(norm x) ; x + mlp(norm x) ] x num_layers--> norm --output--> logits

Notable:
    bidirectional; no time input; logits at a position are about the id at that same position
    rotary positions by column, half-rotation; no biases; separate embedding and output tables
    `hidden` and `head` are apart, so that the large output table meets only the rows and ids that matter

Source:
    LLaDA, arXiv:2502.09992 (architecture); Dynin-Omni (vocabulary rows).
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from dynin.model.config import ModelConfig
from dynin.nn.attention import attention, usable, within
from dynin.nn.mlp import GatedMLP
from dynin.nn.norm import RMSNorm
from dynin.nn.rope import rotary_table, rotate, table_at

Mix = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Queries, keys and values of the positions at hand to one vector per query, in place of attention among themselves;
see `model.cached`."""


class SelfAttention(nn.Module):
    """Multi-head attention of a sequence to itself."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        kv_dim = config.num_kv_heads * config.head_dim
        self.head_dim = config.head_dim
        self.query = nn.Linear(config.d_model, config.d_model, bias=False)
        self.key = nn.Linear(config.d_model, kv_dim, bias=False)
        self.value = nn.Linear(config.d_model, kv_dim, bias=False)
        self.output = nn.Linear(config.d_model, config.d_model, bias=False)

    def forward(
        self,
        x: Float[Tensor, "B S D"],
        table: Float[Tensor, "2 *P half"],
        attend: Bool[Tensor, "B *Q S"] | None,
        mix: Mix | None = None,
    ) -> Float[Tensor, "B S D"]:
        """Mix information between positions."""
        query = rotate(self.query(x).unflatten(-1, (-1, self.head_dim)), table)  # B S H E
        key = rotate(self.key(x).unflatten(-1, (-1, self.head_dim)), table)  # B S G E
        value = self.value(x).unflatten(-1, (-1, self.head_dim))  # B S G E
        mixed = attention(query, key, value, attend) if mix is None else mix(query, key, value)
        return self.output(mixed.flatten(-2))


class Block(nn.Module):
    """Attention, then feed-forward, each normalised before and added after."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.d_model, config.norm_eps)
        self.attention = SelfAttention(config)
        self.mlp_norm = RMSNorm(config.d_model, config.norm_eps)
        self.mlp = GatedMLP(config.d_model, config.mlp_dim)

    def forward(
        self,
        x: Float[Tensor, "B S D"],
        table: Float[Tensor, "2 *P half"],
        attend: Bool[Tensor, "B *Q S"] | None,
        mix: Mix | None = None,
    ) -> Float[Tensor, "B S D"]:
        """One layer of the network; `mix` replaces attention among the positions of `x` alone."""
        x = x + self.attention(self.attention_norm(x), table, attend, mix)
        return x + self.mlp(self.mlp_norm(x))


class Transformer(nn.Module):
    """The whole network. Values come from `initialise` or from a checkpoint; dtype and device follow the parameters.

    Large models are built under `torch.device("meta")` and filled with `load_state_dict(..., assign=True)`.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.num_rows, config.d_model)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.d_model, config.norm_eps)
        self.output = nn.Linear(config.d_model, config.num_rows, bias=False)

    def hidden(
        self,
        ids: Int[Tensor, "B S"],
        attend: Bool[Tensor, "B S"] | None = None,
        documents: Int[Tensor, "B S"] | None = None,
        positions: Int[Tensor, "B S"] | None = None,
    ) -> Float[Tensor, "B S D"]:
        """The normalised state of every position, ready for `head`.

        Args:
            ids: Positions are columns, counted from 0, padding included, unless `positions` says otherwise.
            attend: True at real columns. Padding is never read; what comes out at padding means nothing but is
                finite. None means that every column is real.
            documents: Which of several documents in its row a column belongs to; it sees that one alone. None for
                one document in a row. See `sequence.packing`.
            positions: For the rotary table, where they do not follow the columns.

        Parity:
            The published code turns causal when its padding mask has a zero and no bias is given; this stays
            bidirectional, as its generation code does through the bias.
        """
        seen = usable(attend if documents is None else within(documents, attend))
        return self._through([self.embed(ids)], seen, positions)

    def states(
        self,
        x: Float[Tensor, "B S D"],
        seen: Bool[Tensor, "B *Q S"] | None,
        positions: Int[Tensor, "B S"] | None = None,
    ) -> Float[Tensor, "B S D"]:
        """The same from embeddings, some of which may come from elsewhere than the table.

        Args:
            seen: Which columns each row, or each query, may attend to, one at least; see `nn.attention.usable`.
        """
        return self._through([x], seen, positions)

    def _through(
        self, held: list[Tensor], seen: Bool[Tensor, "B *Q S"] | None, positions: Int[Tensor, "B S"] | None
    ) -> Float[Tensor, "B S D"]:
        """All blocks; the embeddings are taken out of `held`, so that no caller keeps them alive meanwhile."""
        x = held.pop()
        head_dim, theta = self.config.head_dim, self.config.rope_theta
        if positions is None:
            table = rotary_table(x.shape[1], head_dim, theta, x.device)
        else:
            table = table_at(positions, head_dim, theta)
        for block in self.blocks:
            x = block(x, table, seen)
        return self.norm(x)

    def head(
        self, hidden: Float[Tensor, "*rows D"], allowed_ids: Int[Tensor, " A"] | None = None
    ) -> Float[Tensor, "*rows A"]:
        """Logits of the chosen rows over the allowed ids, in the order of `allowed_ids`; None means all ids."""
        weight = self.output.weight
        return F.linear(hidden, weight if allowed_ids is None else F.embedding(allowed_ids, weight))

    def forward(self, ids: Int[Tensor, "B S"], attend: Bool[Tensor, "B S"] | None = None) -> Float[Tensor, "B S V"]:
        """Logits of every position over all ids."""
        return self.head(self.hidden(ids, attend))


@torch.no_grad()
def initialise(model: Transformer, generator: torch.Generator) -> None:
    """Fill a new model.

    | parameters                                    | values                                   |
    | --------------------------------------------- | ---------------------------------------- |
    | embed, output                                 | normal, std 0.02                         |
    | attention query, key, value; mlp gate, up     | normal, std 0.02                         |
    | attention output, mlp down (end on residual)  | normal, std 0.02 / sqrt(2 * num_layers)  |
    | norms                                         | 1                                        |

    Args:
        generator: On the device of the parameters.
    """
    residual_std = 0.02 / math.sqrt(2 * model.config.num_layers)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            parameter.fill_(1.0)
        else:
            is_residual = name.endswith(("attention.output.weight", "mlp.down.weight"))
            parameter.normal_(0.0, residual_std if is_residual else 0.02, generator=generator)
