"""Mask-ratio schedules: how much of a target is hidden at a point of the way from all hidden to all known.

Enters: a schedule's name and a progress in [0, 1]. Leaves: the share that is masked there, 1 at progress 0.
Does not know tokens, steps or quotas; turning a ratio into counts is the decoder's matter.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from dynin.errors import ConfigError

_FLOOR = 1e-6
_SIGMOID_START, _SIGMOID_STOP = -3.0, 3.0


def mask_ratio(name: str, progress: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Share of the target that is still masked after `progress` of the way.

    Args:
        name: "arccos", "cosine", "linear", "sigmoid", or "pow" followed by an exponent, such as "pow2" or "pow1.5".
        progress: 0 where nothing is known yet, 1 at the end.

    Raises:
        ConfigError: If there is no schedule of that name.

    Source:
        MaskGIT, arXiv:2202.04200, section 3.3; arccos: Halton scheduler, arXiv:2503.17076.
    Parity:
        All but cosine end at 1e-6 instead of 0, as the published samplers do.
    """
    return _schedule(name)(progress)


def mask_prob(name: str, t: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Probability that a target is masked at time t, where t = 1 is fully masked (training's direction)."""
    return mask_ratio(name, 1.0 - t)


def require_schedule(name: str) -> None:
    """Raise a ConfigError that lists the names when `name` is no schedule."""
    _schedule(name)


def _schedule(name: str) -> Callable[[Tensor], Tensor]:
    """The function behind a name."""
    if name in _SCHEDULES:
        return _SCHEDULES[name]
    if name.startswith("pow"):
        exponent = _positive_number(name.removeprefix("pow"))
        if exponent is not None:
            return lambda progress: (1.0 - progress**exponent).clamp(_FLOOR, 1.0)
    raise ConfigError(
        f"unknown mask schedule {name!r}; expected one of {', '.join(sorted(_SCHEDULES))}, or pow with a positive "
        "exponent such as pow2"
    )


def _positive_number(text: str) -> float | None:
    """The number that a text spells, if it is finite and above zero."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and number > 0 else None


def _sigmoid(progress: Tensor) -> Tensor:
    """A logistic curve from -3 to 3, rescaled to run from 1 to the floor."""
    start = 1.0 / (1.0 + math.exp(-_SIGMOID_START))
    stop = 1.0 / (1.0 + math.exp(-_SIGMOID_STOP))
    here = torch.sigmoid(progress * (_SIGMOID_STOP - _SIGMOID_START) + _SIGMOID_START)
    return ((stop - here) / (stop - start)).clamp(_FLOOR, 1.0)


_SCHEDULES: dict[str, Callable[[Tensor], Tensor]] = {
    "arccos": lambda progress: (torch.arccos(progress) / (math.pi / 2)).clamp(_FLOOR, 1.0),
    "cosine": lambda progress: torch.cos(progress * (math.pi / 2)),
    "linear": lambda progress: (1.0 - progress).clamp(_FLOOR, 1.0),
    "sigmoid": _sigmoid,
}
