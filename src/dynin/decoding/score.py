"""Proposals for hidden places and how much to trust them.

Enters: logits over the allowed ids, one row per place. Leaves: a choice per place, its probability, its score.
Does not know which places will be revealed. Everything is computed in float32; only the published sampler asks for
float64.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

_TINY = 1e-20


class Noise:
    """Uniform numbers from one generator for the batch, or from one per row of it.

    With one generator per row, what a row draws does not depend on its neighbours.
    """

    def __init__(self, generator: torch.Generator | Sequence[torch.Generator] | None) -> None:
        """Keep the generator; None is fine as long as nothing random is asked for."""
        self._generator = generator

    def rows(self, live: Sequence[int]) -> "Noise":
        """The noise of a part of the batch."""
        if self._generator is None or isinstance(self._generator, torch.Generator):
            return self
        return Noise([self._generator[row] for row in live])

    def uniform(self, row: Int[Tensor, " K"], width: int, dtype: torch.dtype) -> Float[Tensor, "K W"]:
        """Numbers in [0, 1), `width` for each place.

        Args:
            row: Row of the batch that each place belongs to, ascending.

        Raises:
            ValueError: If there is no generator.
        """
        if self._generator is None:
            raise ValueError("this policy draws random numbers; pass a torch.Generator")
        if isinstance(self._generator, torch.Generator):
            source = self._generator
            drawn = torch.rand(len(row), width, generator=source, device=source.device, dtype=dtype)
            return drawn.to(row.device)
        counts = torch.bincount(row, minlength=len(self._generator)).tolist()
        parts = [
            torch.rand(count, width, generator=source, device=source.device, dtype=dtype).to(row.device)
            for source, count in zip(self._generator, counts, strict=True)
        ]
        return torch.cat(parts)


@dataclass(frozen=True, slots=True, eq=False)
class Proposal:
    """What each place would become."""

    choice: Int[Tensor, " K"]
    """Index into the allowed ids."""
    prob: Float[Tensor, " K"]
    """Probability of the choice at temperature 1."""
    score: Float[Tensor, " K"]
    """Higher is revealed earlier."""


def propose(
    logits: Float[Tensor, "K A"],
    row: Int[Tensor, " K"],
    *,
    temperature: float,
    score: str,
    noise: Noise,
    dtype: torch.dtype = torch.float32,
) -> Proposal:
    """Choose an id for each place and rate the choice.

    Args:
        row: Row of the batch that each place belongs to.
        temperature: 0 takes the largest logit, the lower index among equals; above 0 samples.

    Source:
        Sampling by the largest of logits plus Gumbel noise, in log form, so that large logits do not overflow.
    """
    logits = logits.to(dtype)
    if temperature > 0:
        uniform = noise.uniform(row, logits.shape[1], dtype)
        choice = (logits + temperature * gumbel(uniform)).argmax(dim=1)
    else:
        choice = logits.argmax(dim=1)
    prob = chosen_prob(logits, choice)
    if score == "random":
        return Proposal(choice, prob, noise.uniform(row, 1, dtype).squeeze(1))
    return Proposal(choice, prob, _SCORES[score](logits, prob))


def chosen_prob(logits: Float[Tensor, "K A"], choice: Int[Tensor, " K"]) -> Float[Tensor, " K"]:
    """Probability that the logits give to one id per place."""
    chosen = logits.gather(1, choice[:, None]).squeeze(1)
    return (chosen - logits.logsumexp(dim=1)).exp()


def gumbel(uniform: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Standard Gumbel noise of uniform numbers in [0, 1)."""
    inner = -uniform.clamp_min(_TINY).log()
    return -inner.clamp_min(_TINY).log()


def log_score(score: Float[Tensor, " K"], name: str) -> Float[Tensor, " K"]:
    """A score on a logarithmic scale, to which noise is added; entropy is on one already."""
    return score if name == "entropy" else score.clamp_min(_TINY).log()


def _margin(logits: Tensor, prob: Tensor) -> Tensor:
    """Distance of the two likeliest ids' probabilities."""
    best = logits.softmax(dim=1).topk(min(2, logits.shape[1]), dim=1).values
    return best[:, 0] - best[:, -1] if best.shape[1] > 1 else prob


def _negative_entropy(logits: Tensor, prob: Tensor) -> Tensor:
    """Minus the entropy in nats."""
    del prob
    log_prob = logits.log_softmax(dim=1)
    return (log_prob.exp() * log_prob).nan_to_num(0.0).sum(dim=1)


_SCORES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "confidence": lambda logits, prob: prob,
    "margin": _margin,
    "entropy": _negative_entropy,
}

SCORE_NAMES = (*_SCORES, "random")
