"""Denoisers without a network: a table of answers, a function of context, and the exact posterior of a chain."""

import torch
from torch import Tensor


class TableDenoiser:
    """Predicts `answers[b, s]` at position s of the sequence that begins with `answers[b, 0]`, whatever the context.

    It is surer where `sureness[b, s]` is larger. A sequence that begins otherwise gets the first row's answers.
    """

    def __init__(self, answers: Tensor, num_ids: int, sureness: Tensor | None = None) -> None:
        sureness = torch.full(answers.shape, 5.0) if sureness is None else sureness
        self.keys = answers[:, 0]
        batch, length = answers.shape
        self.table = torch.zeros(batch, length, num_ids).scatter(2, answers[..., None], sureness[..., None])
        self.calls: list[Tensor] = []
        """The flat positions asked for, call by call."""
        self.seen: list[Tensor] = []
        """The ids given, call by call."""

    def __call__(self, ids: Tensor, attend: Tensor | None, rows: Tensor, allowed: Tensor | None) -> Tensor:
        self.calls.append(rows.clone())
        self.seen.append(ids.clone())
        length = ids.shape[1]
        which = (ids[:, :1] == self.keys).to(torch.int64).argmax(dim=1)
        logits = self.table[which[rows // length], rows % length]
        return logits if allowed is None else logits[:, allowed]


class ContextDenoiser:
    """A linear function of attended neighbours by relative distance, in float64, so that padding changes nothing."""

    def __init__(self, num_ids: int, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.embed = torch.randn(num_ids, 8, generator=generator, dtype=torch.float64)
        self.output = torch.randn(num_ids, 8, generator=generator, dtype=torch.float64)
        self.num_calls = 0

    def __call__(self, ids: Tensor, attend: Tensor | None, rows: Tensor, allowed: Tensor | None) -> Tensor:
        self.num_calls += 1
        position = torch.arange(ids.shape[1])
        distance = (position[:, None] - position[None, :]).double()
        weight = torch.cos(0.7 * distance) / (1.0 + distance.abs())
        states = self.embed[ids]
        if attend is not None:
            states = states * attend[..., None]
        hidden = torch.einsum("sj,bjd->bsd", weight, states).flatten(0, 1)[rows]
        output = self.output if allowed is None else self.output[allowed]
        return 0.5 * hidden @ output.T


class ChainDenoiser:
    """The exact posterior of each place of a Markov chain given all others; the mask id is `num_states`."""

    def __init__(self, num_states: int, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        peaked = torch.rand(num_states, num_states, generator=generator).pow(6)
        self.transition = peaked / peaked.sum(dim=1, keepdim=True)
        self.mask_id = num_states

    def __call__(self, ids: Tensor, attend: Tensor | None, rows: Tensor, allowed: Tensor | None) -> Tensor:
        batch, length = ids.shape
        evidence = torch.eye(self.mask_id + 1)[ids][..., : self.mask_id]
        evidence[ids == self.mask_id] = 1.0
        before = [torch.full((batch, self.mask_id), 1.0 / self.mask_id)]
        after = [torch.ones(batch, self.mask_id)]
        for step in range(length - 1):
            before.append((before[-1] * evidence[:, step] + 1e-12) @ self.transition)
            before[-1] = before[-1] / before[-1].sum(dim=1, keepdim=True)
            after.append((after[-1] * evidence[:, length - 1 - step] + 1e-12) @ self.transition.T)
            after[-1] = after[-1] / after[-1].sum(dim=1, keepdim=True)
        posterior = torch.stack(before, dim=1) * torch.stack(after[::-1], dim=1)
        return posterior.clamp_min(1e-12).log().flatten(0, 1)[rows][:, allowed]

    def log_likelihood(self, ids: Tensor) -> float:
        """Mean over the sequences, in nats, transitions counted as possible to 1e-9 at least."""
        return float(self.transition[ids[:, :-1], ids[:, 1:]].clamp_min(1e-9).log().sum(dim=1).mean())
