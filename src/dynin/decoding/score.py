"""Proposals for hidden places and how much to trust them.

Enters: logits over the allowed ids, one row per place. Leaves: a choice per place, its probability, its score.
Does not know which places will be revealed.

    logits (K, A) of any dtype, with guidance twice --a few rows at a time, in float32--> guided
        -> largest, with noise where sampled, or by one number and sums of probabilities  -> choice
        -> largest and sum of exponentials    -> probability, margin, entropy

Nothing as large as the logits is ever made beside them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dynin.decoding.guidance import guide
from dynin.decoding.noise import PlaceNoise
from dynin.nn.precision import finest

_TINY = 1e-20
_CHUNK = 2**20  # numbers that are treated together: inside the last cache of a processor
_CHUNK_ELSEWHERE = 2**24  # on a GPU, where each piece costs its launches; 64 MB in float32
_PARTS = 256  # numbers added in float32 before the sums are added in float64
_FLAT = -200.0  # nats below the largest, where an exponential in float32 is 0

SCORE_NAMES = ("confidence", "margin", "entropy", "random")


@dataclass(frozen=True, slots=True, eq=False)
class Logits:
    """What a network said about some places, guidance not yet applied."""

    conditional: Float[Tensor, "K A"]
    unconditional: Float[Tensor, "K A"] | None = None
    """The same without condition; None where nothing is guided."""
    scale: Float[Tensor, " K"] | None = None
    """Weight of guidance at each place; 0 leaves a place as it is."""

    def __len__(self) -> int:
        """Number of places."""
        return len(self.conditional)

    def part(self, start: int, stop: int) -> "Logits":
        """Some of the places, without a copy."""
        if self.unconditional is None or self.scale is None:
            return Logits(self.conditional[start:stop])
        return Logits(self.conditional[start:stop], self.unconditional[start:stop], self.scale[start:stop])

    def chunks(self) -> Iterator[tuple[int, int, Float[Tensor, "k A"]]]:
        """First and last place, exclusive, and guided logits in float32, a few places at a time; not to be changed."""
        most = _CHUNK if self.conditional.is_cpu else _CHUNK_ELSEWHERE
        step = max(1, most // max(1, self.conditional.shape[1]))
        for start in range(0, len(self), step):
            stop = min(start + step, len(self))
            values = self.conditional[start:stop].float()
            if self.unconditional is not None and self.scale is not None:
                values = guide(values, self.unconditional[start:stop].float(), self.scale[start:stop])
            yield start, stop, values


@dataclass(frozen=True, slots=True, eq=False)
class Proposal:
    """What each place would become."""

    choice: Int[Tensor, " K"]
    """Index into the allowed ids."""
    prob: Float[Tensor, " K"]
    """Probability of the choice at temperature 1."""
    score: Float[Tensor, " K"]
    """Higher is revealed earlier."""
    is_finite: Bool[Tensor, " K"]
    """False where a logit is not a number, or is infinite."""
    entropy: Float[Tensor, " K"] | None = None
    """In nats, at temperature 1, where it was asked for."""


def propose(
    logits: Logits,
    *,
    temperature: float,
    score: str,
    noise: PlaceNoise | None = None,
    random_score: Float[Tensor, " K"] | None = None,
    sampling: str = "gumbel",
    needs_entropy: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Proposal:
    """Choose an id for each place and rate the choice.

    Args:
        temperature: 0 takes the largest logit, the lower index among equals; above 0 samples.
        noise: For sampling.
        random_score: The score, where it is to be random.
        sampling: "gumbel" draws a number for every id, "inverse" one for every place; see `policy`.
        dtype: Of probabilities and scores. Sums are kept in float64 where the device has it, so that of two places the
            surer is found although thousands of ids take part.

    Source:
        Sampling by the largest of logits plus Gumbel noise, in log form, so that large logits do not overflow.
    """
    width = logits.conditional.shape[1]
    is_sampled = temperature > 0
    if is_sampled and noise is None:
        raise ValueError("this policy draws random numbers; pass noise")
    parts = []
    for start, stop, values in logits.chunks():
        table = noise.table(start, stop, width) if noise and is_sampled and sampling == "gumbel" else None
        uniform = noise.fine(start, stop) if noise and is_sampled and sampling == "inverse" else None
        parts.append(_rate(values, temperature, score, table, uniform, needs_entropy))
    choice, prob, rated, is_finite, entropy = (torch.cat(column) for column in zip(*parts, strict=True))
    prob = prob.to(dtype)
    if score == "random":
        if random_score is None:
            raise ValueError("this policy draws random scores; pass them")
        rated = random_score
    return Proposal(choice, prob, rated.to(dtype), is_finite, entropy if needs_entropy else None)


def rate_present(logits: Logits, present: Int[Tensor, " K"]) -> tuple[Float[Tensor, " K"], Float[Tensor, " K"]]:
    """Probability of an id that is there already, and its probability relative to the likeliest id's.

    Args:
        present: Index of each place's id among the allowed ones.
    """
    probs, supports = [logits.conditional.new_zeros(0, dtype=torch.float32)] * 2
    for start, stop, values in logits.chunks():
        largest = values.amax(dim=1, keepdim=True)
        support = (values.gather(1, present[start:stop, None]) - largest).exp()[:, 0]
        probs = torch.cat([probs, (support / _total((values - largest).exp_())).float()])
        supports = torch.cat([supports, support])
    return probs, supports


def gumbel(uniform: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Standard Gumbel noise of uniform numbers in [0, 1)."""
    inner = -uniform.clamp_min(_TINY).log()
    return -inner.clamp_min(_TINY).log()


def log_score(score: Float[Tensor, " K"], name: str) -> Float[Tensor, " K"]:
    """A score on a logarithmic scale, to which noise is added; entropy is on one already."""
    return score if name == "entropy" else score.clamp_min(_TINY).log()


def _rate(
    values: Float[Tensor, "k A"],
    temperature: float,
    score: str,
    noise: Float[Tensor, "k A"] | None,
    uniform: Float[Tensor, " k"] | None,
    is_entropy: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Choice, probability, score, whether finite, and entropy of a few places."""
    if noise is None:
        choice = _argmax(values)
        largest = values.gather(1, choice[:, None])
    else:
        choice = _argmax(_gumbel_in_place(noise).mul_(temperature).add_(values))
        largest = values.amax(dim=1, keepdim=True)
    shifted = values - largest
    needs_entropy = is_entropy or score == "entropy"
    weight = shifted.exp() if needs_entropy or uniform is not None else None
    if uniform is not None and weight is not None:
        choice = _inverse(weight if temperature == 1 else (shifted / temperature).exp_(), uniform)
    chosen = shifted.gather(1, choice[:, None])[:, 0].to(finest(values.device))
    weight = shifted.exp_() if weight is None else weight
    total = _total(weight)
    prob = chosen.exp() / total
    entropy = prob
    if needs_entropy:
        entropy = total.log() - _total(weight.mul_(shifted.clamp_min_(_FLAT))) / total
    rated = {"margin": lambda: _margin(values, largest, total), "entropy": lambda: -entropy}.get(score, lambda: prob)()
    return choice, prob, rated, largest[:, 0].isfinite() & total.isfinite(), entropy


def _total(weight: Float[Tensor, "k A"]) -> Float[Tensor, " k"]:
    """The sum of each row in float64 where there is that, without a copy of the rows in it."""
    dtype = finest(weight.device)
    whole = weight.shape[1] // _PARTS * _PARTS
    total = weight[:, whole:].sum(dim=1).to(dtype)
    if whole:
        total += weight[:, :whole].unflatten(1, (-1, _PARTS)).sum(dim=2).sum(dim=1, dtype=dtype)
    return total


def _argmax(values: Float[Tensor, "k A"]) -> Int[Tensor, " k"]:
    """The index of each row's largest number, the lowest among equals; several times as fast as one pass for it."""
    whole = values.shape[1] // _PARTS * _PARTS
    if whole <= _PARTS:
        return values.argmax(dim=1)
    parts = values[:, :whole].unflatten(1, (-1, _PARTS))  # k P _PARTS
    best = parts.amax(dim=2).argmax(dim=1)
    inside = parts.gather(1, best[:, None, None].expand(-1, 1, _PARTS))[:, 0]
    largest, place = inside.max(dim=1)
    found = best * _PARTS + place
    if whole == values.shape[1]:
        return found
    last, place = values[:, whole:].max(dim=1)
    return torch.where(last > largest, whole + place, found)


def _inverse(weight: Float[Tensor, "k A"], uniform: Float[Tensor, " k"]) -> Int[Tensor, " k"]:
    """The first id of each row at which the sum of weights exceeds a number in [0, 1) times all of them.

    Args:
        uniform: As fine as the device has numbers.
    """
    whole = weight.shape[1] // _PARTS * _PARTS
    parts, rest = weight[:, :whole].unflatten(1, (-1, _PARTS)), weight[:, whole:]  # k P _PARTS
    so_far = torch.cat([parts.sum(dim=2), rest.sum(dim=1, keepdim=True)], dim=1).cumsum(dim=1, dtype=uniform.dtype)
    wanted = uniform[:, None] * so_far[:, -1:]
    part = torch.searchsorted(so_far, wanted, right=True).clamp_max_(parts.shape[1])
    before = torch.where(part > 0, so_far.gather(1, (part - 1).clamp_min(0)), torch.zeros_like(wanted))
    inside = F.pad(rest, (0, _PARTS - rest.shape[1]))
    if whole:
        at = part.clamp_max(parts.shape[1] - 1)[:, :, None].expand(-1, 1, _PARTS)
        inside = torch.where(part < parts.shape[1], parts.gather(1, at)[:, 0], inside)
    inside = inside.cumsum(dim=1, dtype=uniform.dtype)
    most = inside[:, -1:] * (1 - torch.finfo(uniform.dtype).eps)  # rounding never asks for more than there is
    place = torch.searchsorted(inside, (wanted - before).minimum(most), right=True)
    return (part * _PARTS + place.clamp_max_(_PARTS - 1))[:, 0].clamp_max_(weight.shape[1] - 1)


def _margin(values: Float[Tensor, "k A"], largest: Float[Tensor, "k 1"], total: Float[Tensor, " k"]) -> Tensor:
    """Distance of the two likeliest ids' probabilities; of the only one, its probability."""
    if values.shape[1] == 1:
        return 1.0 / total
    second = values.topk(2, dim=1).values[:, 1:]
    return (1.0 - (second - largest).to(total.dtype).exp()[:, 0]) / total


def _gumbel_in_place(uniform: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """`gumbel`, written over the numbers."""
    return uniform.clamp_min_(_TINY).log_().neg_().clamp_min_(_TINY).log_().neg_()
