"""Intervals by resampling videos: sums over videos in, values with 95% intervals out.

Enters: a statistic of how often each video counts, and a generator. Leaves: `Interval`. Does not know masks, sentences
or metrics.

Sentences about one video share its frames and its difficulty, so videos are drawn, not sentences or frames. A draw says
how often each video occurs. Every figure here is a ratio of sums over videos, or made of such ratios, so that all draws
together are one product of matrices, and the same draws serve both sides of a difference.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

NUM_RESAMPLES = 2000
LEVEL = 0.95
FEWEST_VIDEOS = 2
"""With fewer there is nothing to resample, and an interval has no ends."""

Statistic = Callable[[Float[np.ndarray, "R V"]], Float[np.ndarray, "R"]]
"""From weights of videos, a row for each draw, to the figure of each draw; NaN where a draw holds nothing to count."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A figure and what it may be."""

    value: float
    low: float
    """NaN where too few videos were given."""
    high: float
    num_videos: int

    def to_dict(self) -> dict[str, float | int | None]:
        """The interval as plain values, None for what is not known."""
        known = {"value": self.value, "low": self.low, "high": self.high}
        rounded = {name: None if math.isnan(number) else round(number, 6) for name, number in known.items()}
        return {**rounded, "num_videos": self.num_videos}


def draws(
    num_videos: int, generator: np.random.Generator, num_resamples: int = NUM_RESAMPLES
) -> Float[np.ndarray, "R V"]:
    """How often each video occurs in each resample of as many videos, drawn with replacement.

    Raises:
        ValueError: If there is no video.
    """
    if num_videos < 1:
        raise ValueError("no video to resample; give at least one scored video")
    shares = np.full(num_videos, 1 / num_videos)
    return generator.multinomial(num_videos, shares, size=num_resamples).astype(np.float64)


def ratio(
    weights: Float[np.ndarray, "R V"], numerators: Float[np.ndarray, "V"], denominators: Float[np.ndarray, "V"]
) -> Float[np.ndarray, "R"]:
    """Weighted sum of numerators over that of denominators, for each draw; NaN where there is nothing below."""
    below = weights @ denominators
    return np.divide(weights @ numerators, below, out=np.full_like(below, np.nan), where=below > 0)


def interval(statistic: Statistic, weights: Float[np.ndarray, "R V"], num_videos: int | None = None) -> Interval:
    """The figure on all videos, and the middle 95% of it over the draws.

    Draws that hold nothing to count, as happens with few videos of a rare family, are left out.

    Args:
        num_videos: How many videos have anything to count, where not all of them have.
    Source:
        Efron & Tibshirani, An Introduction to the Bootstrap (1993), chapter 13, the percentile interval.
    """
    all_videos = np.ones((1, weights.shape[1]))
    value = float(statistic(all_videos)[0])
    count = weights.shape[1] if num_videos is None else num_videos
    if count < FEWEST_VIDEOS:
        return Interval(value=value, low=math.nan, high=math.nan, num_videos=count)
    drawn = statistic(weights)
    drawn = drawn[~np.isnan(drawn)]
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail]) if len(drawn) else (math.nan, math.nan)
    return Interval(value=value, low=float(low), high=float(high), num_videos=count)
