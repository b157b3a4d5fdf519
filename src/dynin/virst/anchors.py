"""Which frames are prompted: policies as small frozen objects.

Enters: the frames that have prompts, a generator, likenesses between frames and the sentence. Leaves: which of them
become anchors. Does not know tensors of any network, masks, or how memory is used: `tracker.nearest_anchors` says which
anchors a frame attends to, and that number is `TrackerConfig.num_attended`, a setting of its own.

A policy chooses before any mask is made. `Dynamic` is none: it only holds the settings of `virst.updater`, which
chooses while the video advances.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from dynin.config import suggest
from dynin.errors import ConfigError, RequestError

PUBLISHED_SHARE = 4
"""The published code prompts one in so many frames that have prompts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidates:
    """The frames of a video that could be prompted, in time order."""

    frames: tuple[int, ...]
    """Their indices in the video; each once."""
    likeness: tuple[float, ...] | None = None
    """How like the sentence each of them is; only `TextSimilarity` asks."""
    areas: tuple[float, ...] | None = None
    """How much of the true target each of them shows; only `Oracle` asks."""

    def __post_init__(self) -> None:
        """ValueError for no frame, frames out of order, or a list that does not fit."""
        is_ascending = all(first < second for first, second in zip(self.frames, self.frames[1:], strict=False))
        lists = [values for values in (self.likeness, self.areas) if values is not None]
        if not self.frames or not is_ascending or any(len(values) != len(self.frames) for values in lists):
            raise ValueError(
                f"candidates {self.frames} with {[len(values) for values in lists]} values were given, expected at "
                "least one frame, ascending, and a value for each"
            )


@runtime_checkable
class AnchorPolicy(Protocol):
    """Chooses anchors before any mask is made."""

    def choose(self, candidates: Candidates, generator: torch.Generator | None = None) -> tuple[int, ...]:
        """Frames of the video to prompt, ascending, at least one; fewer than wanted where there are not as many.

        Raises:
            RequestError: If the policy needs a generator or values that are not there.
        """
        ...


def spread(count: int, wanted: int) -> list[int]:
    """Places of `wanted` of `count` things, evenly from the first to the last; of one, the first.

    Parity:
        Places between two integers go to the even one, as in the published code.
    """
    return [int(place) for place in np.round(np.linspace(0, count - 1, min(wanted, count)))]


@dataclass(frozen=True, kw_only=True, slots=True)
class FirstFrame:
    """The first frame that has a prompt, alone."""

    def choose(self, candidates: Candidates, generator: torch.Generator | None = None) -> tuple[int, ...]:
        """As in `AnchorPolicy`."""
        return candidates.frames[:1]


@dataclass(frozen=True, kw_only=True, slots=True)
class TextSimilarity:
    """The frames that are most like the sentence by an image-text model; of equals, the earlier."""

    num_prompted: int = 3

    def __post_init__(self) -> None:
        """ConfigError for no anchor."""
        _require_some(self.num_prompted)

    def choose(self, candidates: Candidates, generator: torch.Generator | None = None) -> tuple[int, ...]:
        """As in `AnchorPolicy`; RequestError without likenesses."""
        if candidates.likeness is None:
            raise RequestError(
                "anchors by likeness to the sentence were asked for, but no image-text model says how like the frames "
                "are; name one (--likeness FOLDER), or choose other anchors"
            )
        return _highest(candidates.frames, candidates.likeness, self.num_prompted)


@dataclass(frozen=True, kw_only=True, slots=True)
class Oracle:
    """The frames where most of the true target is to be seen: a ceiling, not a way to segment."""

    num_prompted: int = 3

    def __post_init__(self) -> None:
        """ConfigError for no anchor."""
        _require_some(self.num_prompted)

    def choose(self, candidates: Candidates, generator: torch.Generator | None = None) -> tuple[int, ...]:
        """As in `AnchorPolicy`; RequestError without true masks."""
        if candidates.areas is None:
            raise RequestError(
                "oracle anchors were asked for, which need the true masks; choose other anchors where there are none"
            )
        return _highest(candidates.frames, candidates.areas, self.num_prompted)


@dataclass(frozen=True, kw_only=True, slots=True)
class RandomFrames:
    """Frames drawn without repetition."""

    num_prompted: int = 3

    def __post_init__(self) -> None:
        """ConfigError for no anchor."""
        _require_some(self.num_prompted)

    def choose(self, candidates: Candidates, generator: torch.Generator | None = None) -> tuple[int, ...]:
        """As in `AnchorPolicy`; RequestError without a generator."""
        if generator is None:
            raise RequestError("random anchors were asked for, which are drawn; give a seeded generator")
        count = len(candidates.frames)
        places = torch.randperm(count, generator=generator, device=generator.device)[: self.num_prompted]
        return tuple(candidates.frames[place] for place in sorted(places.tolist()))


@dataclass(frozen=True, kw_only=True, slots=True)
class UniformFrames:
    """Frames evenly spread from the first to the last."""

    num_prompted: int = 3

    def __post_init__(self) -> None:
        """ConfigError for no anchor."""
        _require_some(self.num_prompted)

    def choose(self, candidates: Candidates, generator: torch.Generator | None = None) -> tuple[int, ...]:
        """As in `AnchorPolicy`."""
        return tuple(candidates.frames[place] for place in spread(len(candidates.frames), self.num_prompted))


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """One in four frames that have prompts, evenly spread, of which each frame attends to the nearest.

    Parity:
        The published code calls this a dynamic update; what moves is which anchors are near. It computes scores of
        frames and never uses them, and so do its arguments for choosing frames have no effect.
    """

    share: int = PUBLISHED_SHARE

    def __post_init__(self) -> None:
        """ConfigError for a share below one."""
        if self.share < 1:
            raise ConfigError(f"share is {self.share}, expected one anchor in at least 1 frame; raise it")

    def choose(self, candidates: Candidates, generator: torch.Generator | None = None) -> tuple[int, ...]:
        """As in `AnchorPolicy`."""
        count = len(candidates.frames)
        return tuple(candidates.frames[place] for place in spread(count, max(1, count // self.share)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Dynamic:
    """Settings of anchors that come and go by confidence while the video advances; see `virst.updater`."""

    num_prompted: int = 3
    """Most anchors at one time."""
    is_two_sided: bool = False
    """Anchors may lie ahead, and masks spread backward too; otherwise nothing later than a frame has a say in it."""
    least_confidence: float = 0.5
    """Probability of being visible times predicted IoU that a frame must reach to become an anchor."""
    least_agreement: float = 0.5
    """IoU of the prompted and the propagated mask of a frame below which the less trusted of the two is dropped."""
    reprompt_below: float = 0.5
    """A propagated mask that is trusted less is compared with one from the nearest prompt."""
    half_life: float = 4.0
    """Distance at which an anchor counts half as much, in distances between neighbouring candidates."""
    window: int = 32
    """Frames that are held at a time where masks spread backward."""

    def __post_init__(self) -> None:
        """ConfigError for numbers outside of what they mean."""
        _require_some(self.num_prompted)
        for name in ("least_confidence", "least_agreement", "reprompt_below"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected 0 to 1; correct it")
        if not (self.half_life > 0 and self.window >= 1):
            raise ConfigError(
                f"half_life {self.half_life} and window {self.window} were given, expected a distance above 0 and at "
                "least 1 frame; correct them"
            )


KINDS: Mapping[str, Callable[[int | None], AnchorPolicy | Dynamic]] = {
    "first": lambda count: FirstFrame(),
    "text": lambda count: TextSimilarity(num_prompted=count or 3),
    "random": lambda count: RandomFrames(num_prompted=count or 3),
    "uniform": lambda count: UniformFrames(num_prompted=count or 3),
    "published": lambda count: Published() if count is None else UniformFrames(num_prompted=count),
    "oracle": lambda count: Oracle(num_prompted=count or 3),
    "dynamic": lambda count: Dynamic(num_prompted=count or 3),
    "two-sided": lambda count: Dynamic(num_prompted=count or 3, is_two_sided=True),
}
"""Policies by the name that tables and the command line have for them, for a number of anchors or None for its own."""


def policy_of(name: str, num_prompted: int | None = None) -> AnchorPolicy | Dynamic:
    """A policy by name.

    Raises:
        ConfigError: If the name is unknown, or the number is below 1.
    """
    if name not in KINDS:
        raise ConfigError(f"unknown anchors {name!r}, expected one of {', '.join(KINDS)}{suggest(name, KINDS)}")
    if num_prompted is not None:
        _require_some(num_prompted)
    return KINDS[name](num_prompted)


def _require_some(num_prompted: int) -> None:
    if num_prompted < 1:
        raise ConfigError(f"{num_prompted} anchors were asked for, expected at least 1; raise the number")


def _highest(frames: Sequence[int], values: Sequence[float], wanted: int) -> tuple[int, ...]:
    places = sorted(range(len(frames)), key=lambda place: -values[place])[:wanted]
    return tuple(frames[place] for place in sorted(places))
