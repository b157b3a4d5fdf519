"""The arithmetic of merging, tensor by tensor or chunk by chunk: linear, SLERP, task arithmetic, TIES, DARE.

Enters: numbers of a base and of models that descend from it, in float32, and coefficients. Leaves: merged numbers in
float32. Does not know files, layers or vocabularies.

With tau_i = model_i - base, weights w_i and the strength s:

    linear             (1 - s) base + s sum w_i model_i, where sum w_i = 1
    slerp              sin((1 - s) a) / sin a base + sin(s a) / sin a model, where a is the angle between the two
    task_arithmetic    base + s sum w_i tau_i
    ties               base + s (sum of w_i tau_i that agree) / (sum of their w_i), of the largest entries of each tau_i
    dare_linear        base + s sum w_i drop(tau_i)
    dare_ties          base + s (sum of w_i drop(tau_i) that agree)

A strength of 0 is the base for every method. Numbers come in chunks, so that a table of a gigabyte needs no second one:
what a method has to know of the whole (an angle, a limit, a norm) is found in a first walk over the chunks.

Source:
    Model soups, arXiv:2203.05482; task arithmetic, arXiv:2212.04089; TIES, arXiv:2306.01708; DARE, arXiv:2311.03099;
    SLERP: Shoemake, SIGGRAPH 1985.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Method = Literal["linear", "slerp", "task_arithmetic", "ties", "dare_linear", "dare_ties"]
METHODS: tuple[Method, ...] = ("linear", "slerp", "task_arithmetic", "ties", "dare_linear", "dare_ties")
SPARSE: tuple[Method, ...] = ("ties", "dare_linear", "dare_ties")
"""Methods that look at a density."""
Rescale = Literal["density", "norm", "none"]

PARALLEL = 0.9995
"""Cosine from which SLERP is a straight line, as its own formula divides by a vanishing sine."""
TINY = 1e-8
"""A norm below this is none."""
LEAST_SUM = 1e-7
"""Absolute sums below this are not rescaled."""
HIGH_BITS, LOW_BITS = 16, 15
"""Of the 31 bits of a float32 without its sign."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Coefficients:
    """How one part of the parameters is merged."""

    method: Method
    strength: float
    """0 is the base; 1 is the other side, whole."""
    weights: tuple[float, ...]
    """One for each model beside the base."""
    density: tuple[float, ...]
    """Share of each model's differences that is kept, in (0, 1]."""
    rescale: Rescale
    """After DARE: 1 / density, as its paper has it; "norm" keeps the sum of absolute values; or "none"."""

    @property
    def taken(self) -> int | None:
        """The input that the result equals bit for bit: 0 the base, 1 the first model ..; None if it is computed."""
        if self.strength == 0:
            return 0
        if self.strength != 1:
            return None
        if self.method in ("linear", "slerp"):
            alone = [index for index, weight in enumerate(self.weights, start=1) if weight != 0]
            return alone[0] if len(alone) == 1 else None
        is_whole = len(self.weights) == 1 and (self.method not in SPARSE or self.density[0] == 1)
        return 1 if is_whole and (self.weights[0] == 1 or self.method == "ties") else None


Chunks = Callable[[], Iterator[tuple[Float[Tensor, "*n"], Sequence[Float[Tensor, "*n"]]]]]
"""The base's numbers and those of the other models, chunk by chunk, as often as they are asked for."""
Mask = Callable[[Float[Tensor, "*n"]], Bool[Tensor, "*n"]]
"""Which of the next differences are kept; chunks come in order."""
Masks = Callable[[int], Mask]
"""The masks of a model by its number from 0, from the first chunk on each time it is asked."""
Sparse = Callable[[Float[Tensor, "*n"]], Float[Tensor, "*n"]]


def merge_chunks(how: Coefficients, chunks: Chunks, masks: Masks) -> Iterator[Float[Tensor, "*n"]]:
    """Merge numbers chunk by chunk; the result does not depend on how they are cut.

    Args:
        masks: For DARE alone.
    """
    if how.method == "slerp":
        shares = slerp_shares(how.strength, *_lengths_and_dot(chunks))
        for base, (other,) in chunks():
            if shares is None:
                yield torch.lerp(base, other, how.strength)
            else:
                yield shares[0] * base + shares[1] * other
        return
    sparse = [_sparse(how, chunks, masks, index) for index in range(len(how.weights))]
    for base, others in chunks():
        if how.method == "linear" and len(others) == 1:
            yield torch.lerp(base, others[0], how.strength)
            continue
        changes = [make(other - base) for make, other in zip(sparse, others, strict=True)]
        weighted = [change * weight for change, weight in zip(changes, how.weights, strict=True)]
        if how.method in ("ties", "dare_ties"):
            change = elect(weighted, how.weights, is_mean=how.method == "ties")
        else:
            change = torch.stack(weighted).sum(dim=0)
        yield base + how.strength * change


def merge_tensors(
    how: Coefficients, base: Float[Tensor, "*n"], others: Sequence[Float[Tensor, "*n"]], masks: Masks
) -> Float[Tensor, "*n"]:
    """Merge whole tensors, computed in float32 whatever their dtype."""
    wide = (base.float(), [other.float() for other in others])
    return next(merge_chunks(how, lambda: iter([wide]), masks))


def seeded(seeds: Sequence[int], density: Sequence[float]) -> Masks:
    """DARE's masks: every difference of model i is kept with the probability `density[i]`, drawn in order."""

    def masks(index: int) -> Mask:
        generator = torch.Generator().manual_seed(seeds[index])

        def mask(change: Float[Tensor, "*n"]) -> Bool[Tensor, "*n"]:
            return torch.rand(change.shape, generator=generator) < density[index]

        return mask

    return masks


def slerp_shares(t: float, length_a: float, length_b: float, dot: float) -> tuple[float, float] | None:
    """What SLERP takes of both ends; None where they are so nearly parallel that it is a straight line.

    Args:
        t: From 0, the first end, to 1.
        dot: Of the vectors as they are, not of their directions.
    """
    cosine = dot / ((length_a if length_a > TINY else 1.0) * (length_b if length_b > TINY else 1.0))
    if abs(cosine) > PARALLEL:
        return None
    angle = math.acos(cosine)
    return math.sin((1.0 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


def elect(weighted: Sequence[Float[Tensor, "*n"]], weights: Sequence[float], *, is_mean: bool) -> Float[Tensor, "*n"]:
    """The weighted differences that have the sign of their sum, added up; plus where the sum is zero.

    Args:
        is_mean: Divide by the weights of those that agree, where there are any.
    """
    is_plus = torch.stack(list(weighted)).sum(dim=0) >= 0
    total, divisor = torch.zeros_like(weighted[0]), torch.zeros_like(weighted[0])
    for change, weight in zip(weighted, weights, strict=True):
        agrees = torch.where(is_plus, change > 0, change < 0)
        total += change * agrees
        divisor += weight * agrees
    return total / torch.where(divisor == 0, 1.0, divisor) if is_mean else total


def smallest_kept(changes: Callable[[], Iterator[Float[Tensor, "*n"]]], density: float) -> tuple[float, int]:
    """The least magnitude of the largest numbers, of which there are `density` of all, rounded down, and at least one.

    Returns:
        That magnitude, and how many numbers of just that magnitude are among them.

    Exact, in two walks and half a megabyte: the bits of a float32 without its sign are ordered as its magnitude is, so
    counting the high bits finds a narrow interval, and counting the low bits in it finds the number.
    """
    highs = torch.zeros(2**HIGH_BITS, dtype=torch.int64)
    for change in changes():
        highs += torch.bincount(_bits(change) >> LOW_BITS, minlength=2**HIGH_BITS)
    high, num_left = _place(highs, max(1, int(density * int(highs.sum()))))
    lows = torch.zeros(2**LOW_BITS, dtype=torch.int64)
    for change in changes():
        bits = _bits(change)
        lows += torch.bincount(bits[bits >> LOW_BITS == high] & (2**LOW_BITS - 1), minlength=2**LOW_BITS)
    low, num_left = _place(lows, num_left)
    limit = torch.tensor([high << LOW_BITS | low], dtype=torch.int32).view(torch.float32)
    return float(limit), num_left


class _Trim:
    """Keeps what is larger than the limit, and the first `num_equal` that equal it."""

    def __init__(self, limit: float, num_equal: int) -> None:
        self.limit = limit
        self.num_left = num_equal

    def __call__(self, change: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        size = change.abs()
        is_kept = size > self.limit
        is_equal = size == self.limit
        if self.num_left > 0:
            number = is_equal.flatten().cumsum(0).reshape(size.shape)
            is_kept |= is_equal & (number <= self.num_left)
            self.num_left -= min(self.num_left, int(is_equal.sum()))
        return change * is_kept


def _sparse(how: Coefficients, chunks: Chunks, masks: Masks, index: int) -> Sparse:
    """What becomes of the differences of one model before they are added."""
    density = how.density[index]
    if how.method not in SPARSE or density == 1:
        return lambda change: change

    def changes() -> Iterator[Tensor]:
        return (others[index] - base for base, others in chunks())

    if how.method == "ties":
        return _Trim(*smallest_kept(changes, density))
    scale = {"density": 1 / density, "none": 1.0}.get(how.rescale) or _kept_norm(changes, masks(index))
    mask = masks(index)
    return lambda change: change * mask(change) * scale


def _kept_norm(changes: Callable[[], Iterator[Tensor]], mask: Mask) -> float:
    """By how much dropping shrinks the sum of absolute values."""
    before = after = 0.0
    for change in changes():
        size = change.abs().double()
        before += float(size.sum())
        after += float((size * mask(change)).sum())
    return before / after if min(before, after) >= LEAST_SUM else 1.0


def _lengths_and_dot(chunks: Chunks) -> tuple[float, float, float]:
    """The lengths of both vectors, and their product, added up in float64."""
    aa = bb = ab = 0.0
    for base, (other,) in chunks():
        a, b = base.double(), other.double()
        aa += float((a * a).sum())
        bb += float((b * b).sum())
        ab += float((a * b).sum())
    return math.sqrt(aa), math.sqrt(bb), ab


def _bits(change: Float[Tensor, "*n"]) -> Int[Tensor, " m"]:
    """Magnitudes as integers of the same order."""
    return change.abs().flatten().view(torch.int32)


def _place(counts: Int[Tensor, " m"], num_kept: int) -> tuple[int, int]:
    """The bin of the `num_kept`-th largest, and how many of that bin are kept."""
    from_top = counts.flip(0).cumsum(0)
    at = int(torch.searchsorted(from_top, num_kept))
    above = int(from_top[at - 1]) if at else 0
    return len(counts) - 1 - at, num_kept - above
