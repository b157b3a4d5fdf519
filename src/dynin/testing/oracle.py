"""The published network and what the published samplers share: plain, and slow on purpose.

Enters: tensors by published name; ids, and who may attend to whom. Leaves: logits of every position over every id.
Does not know the network and the decoder of this package, which are held against it.

    ids -> one pass over whole sequences -> logits (B, S, V) -> softmax, noise and choice at every position
                                                             -> a loop over the rows picks what is revealed

Every operation, shape and dtype is the published one, so that the time it takes is the published time: separate
products for queries, keys and values, a dense mask of floats, the whole vocabulary at every position. The samplers are
`oracle_text`, `oracle_grid` and `oracle_speech`.

Source:
    Dynin-Omni and its ancestors LLaDA (arXiv:2502.09992) and MMaDA (arXiv:2505.15809).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from dynin.model.convert import to_published
from dynin.model.transformer import Transformer

Forward = Callable[[Tensor, Tensor | None], Tensor]
"""Ids (B, S) and who may attend to whom (B, 1, S, S) or None, to logits (B, S, V)."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class OracleStep:
    """What a published sampler did at one step. Tensors are the sampler's own: copy what is to be kept."""

    index: int
    """Steps before this one."""
    ids: Int[Tensor, "B S"]
    """Before the step."""
    span: tuple[int, int]
    """First and last column, exclusive, of the places that were rated."""
    class_ids: Int[Tensor, " A"] | None
    """The id of each class that could be chosen; None where classes are ids."""
    perturbed: Float[Tensor, "B N A"]
    """Whose largest was chosen: logits, or where `is_ratio` a positive number whose logarithm counts."""
    is_ratio: bool
    choice: Int[Tensor, "B N"]
    """The class chosen at each place."""
    rank: Float[Tensor, "B N"]
    """By which places were revealed, the largest first; minus infinity where nothing could be."""
    is_log_rank: bool
    """Whether ranks are logarithms of probabilities, rather than probabilities."""
    is_committed: Bool[Tensor, "B N"]
    noise_state: UInt8[Tensor, " states"] | None
    """Of the generator before the step drew from it; None where there is none."""


Observer = Callable[[OracleStep], None]


class PublishedNetwork:
    """The published pass over whole sequences."""

    def __init__(
        self, tensors: Mapping[str, Tensor], *, num_heads: int, num_kv_heads: int, rope_theta: float, norm_eps: float
    ) -> None:
        """Keep the tensors, which go by their published names."""
        self._tensors = tensors
        self._num_heads, self._num_kv_heads = num_heads, num_kv_heads
        self._theta, self._eps = rope_theta, norm_eps
        self._num_layers = sum(name.endswith(".q_proj.weight") for name in tensors)
        self._tables: dict[int, tuple[Tensor, Tensor]] = {}

    @classmethod
    def of(cls, model: Transformer) -> "PublishedNetwork":
        """The same weights as a network of ours, in the same memory."""
        config = model.config
        return cls(
            to_published({name: value.detach() for name, value in model.state_dict().items()}, config),
            num_heads=config.num_heads,
            num_kv_heads=config.num_kv_heads,
            rope_theta=config.rope_theta,
            norm_eps=config.norm_eps,
        )

    @torch.no_grad()
    def __call__(self, ids: Int[Tensor, "B S"], may_attend: Bool[Tensor, "B 1 S S"] | None) -> Float[Tensor, "B S V"]:
        """Logits of every position over every id, in the dtype of the weights."""
        table = self._table(ids.shape[1], ids.device)
        bias = None if may_attend is None else dense_bias(may_attend)
        x = F.embedding(ids, self._weight("wte"))
        for layer in range(self._num_layers):
            x = self._layer(f"blocks.{layer}.", x, table, bias)
        return F.linear(self._norm("ln_f", x), self._weight("ff_out"))

    def _layer(self, name: str, x: Tensor, table: tuple[Tensor, Tensor], bias: Tensor | None) -> Tensor:
        """Attention and feed-forward, each beside what it is added to."""
        normed = self._norm(f"{name}attn_norm", x)
        query = self._heads(F.linear(normed, self._weight(f"{name}q_proj")), self._num_heads)  # B H S E
        key = self._heads(F.linear(normed, self._weight(f"{name}k_proj")), self._num_kv_heads)
        value = self._heads(F.linear(normed, self._weight(f"{name}v_proj")), self._num_kv_heads)
        query, key = turn(query, table), turn(key, table)
        if self._num_kv_heads != self._num_heads:
            times = self._num_heads // self._num_kv_heads
            key, value = key.repeat_interleave(times, dim=1), value.repeat_interleave(times, dim=1)
        bias = None if bias is None else bias.to(query.dtype)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        mixed = mixed.transpose(1, 2).contiguous().view(x.shape)
        x = x + F.linear(mixed, self._weight(f"{name}attn_out"))
        normed = self._norm(f"{name}ff_norm", x)
        gate, up = F.linear(normed, self._weight(f"{name}ff_proj")), F.linear(normed, self._weight(f"{name}up_proj"))
        return x + F.linear(F.silu(gate) * up, self._weight(f"{name}ff_out"))

    def _heads(self, x: Tensor, num_heads: int) -> Tensor:
        """Vectors to one vector per head, heads before positions."""
        return x.view(*x.shape[:2], num_heads, -1).transpose(1, 2)

    def _norm(self, name: str, x: Tensor) -> Tensor:
        """Root-mean-square normalisation in float32, back in the input's dtype before the weight."""
        full = x.to(torch.float32)
        full = full * torch.rsqrt(full.pow(2).mean(-1, keepdim=True) + self._eps)
        return self._weight(name) * full.to(x.dtype)

    def _weight(self, name: str) -> Tensor:
        return self._tensors[f"model.transformer.{name}.weight"]

    def _table(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Sines and cosines (1, 1, S, E), made once for a length."""
        if length not in self._tables:
            width = self._weight("blocks.0.q_proj").shape[0] // self._num_heads
            exponents = torch.arange(0, width, 2, device=device, dtype=torch.float) / width
            angles = torch.outer(torch.arange(length, device=device, dtype=torch.float), 1.0 / self._theta**exponents)
            angles = torch.cat((angles, angles), dim=-1)[None, None]
            self._tables[length] = (angles.sin(), angles.cos())
        return self._tables[length]


def turn(x: Float[Tensor, "B H S E"], table: tuple[Tensor, Tensor]) -> Float[Tensor, "B H S E"]:
    """Rotary positions in float32: entry j turns with entry j + E/2."""
    sin, cos = table
    full = x.float()
    first, second = full.chunk(2, dim=-1)
    return (full * cos + torch.cat((-second, first), dim=-1) * sin).to(x.dtype)


def pairs(attend: Bool[Tensor, "B S"]) -> Bool[Tensor, "B 1 S S"]:
    """Who may attend to whom, where only real columns see each other."""
    return (attend[:, :, None] & attend[:, None, :]).unsqueeze(1)


def dense_bias(may_attend: Bool[Tensor, "B 1 S S"]) -> Float[Tensor, "B 1 S S"]:
    """The mask as numbers that are added to attention scores.

    Parity:
        One where attention is allowed, which a softmax does not feel but its rounding does, and the lowest float32
        elsewhere, so that a row which sees nothing averages over everything.
    """
    bias = may_attend.to(torch.float)
    return bias.masked_fill(bias == 0.0, torch.finfo(torch.float).min)


def transfer_counts(is_masked: Bool[Tensor, "B N"], num_steps: int) -> Int[Tensor, "B steps"]:
    """How many places each row reveals at each step: equal shares, what is left over to the earliest steps."""
    num_masked = is_masked.sum(dim=1, keepdim=True)
    share, rest = num_masked // num_steps, num_masked % num_steps
    counts = torch.zeros(len(is_masked), num_steps, dtype=torch.int64, device=is_masked.device) + share
    for row in range(len(is_masked)):
        counts[row, : int(rest[row])] += 1
    return counts


def reveal(rank: Float[Tensor, "B N"], counts: Int[Tensor, " B"]) -> Bool[Tensor, "B N"]:
    """The highest ranks, row by row."""
    is_chosen = torch.zeros_like(rank, dtype=torch.bool)
    for row in range(len(rank)):
        best = torch.topk(rank[row], k=int(counts[row])).indices
        is_chosen[row, best] = True
    return is_chosen


def noise_state(generator: torch.Generator | None) -> Tensor | None:
    """The generator's state, for an observer that wants to draw the same numbers."""
    return None if generator is None else generator.get_state()
