"""Training rows from several sources by weight, Emoji World among them.

Enters: a step. Leaves: its rows. Equal steps give equal rows, so that a resumed run goes on where it stopped, and in
an epoch every row of a source is drawn once. Does not know networks, losses or files.
"""

import hashlib
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from jaxtyping import Int64

from dynin.config import suggest
from dynin.data.example import Example
from dynin.data.mixture import Mixture
from dynin.data.records.sources import ExampleSource
from dynin.data.rows import RowMaker
from dynin.errors import ConfigError, DataError
from dynin.sequence.layout import Sequence
from dynin.types import Modality

WORLD = "emoji-world"
"""The name of Emoji World among the weights."""
STEPS_TOGETHER = 1024
"""Steps whose shares are drawn at once, so that those of a late step are known without a long way to it."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Blend:
    """A `training.prefetch.RowSource`."""

    sources: Mapping[str, ExampleSource]
    weights: Mapping[str, float]
    """How often each source is drawn from, `WORLD` included; those without a weight are not."""
    maker: RowMaker
    rows_per_step: int
    drop_prob: float
    """Share of rows whose condition is emptied, for guidance; rows that make text alone keep theirs."""
    seed: int
    world: Mixture | None = None
    """Where rows of Emoji World come from, with tasks and weights of its own."""
    names: tuple[str, ...] = field(init=False)
    shares: tuple[float, ...] = field(init=False)

    def __post_init__(self) -> None:
        """ConfigError if nothing can be drawn: no weight above 0, or one of a source that is not there."""
        known = [*self.sources, *([WORLD] if self.world is not None else [])]
        for name, weight in self.weights.items():
            if name not in known:
                raise ConfigError(f"the mixture weighs {name!r}, which is no source of it{suggest(name, known)}")
            if not (math.isfinite(weight) and weight >= 0):
                raise ConfigError(f"the weight of {name!r} is {weight}; give a number from 0")
        names = tuple(name for name, weight in self.weights.items() if weight > 0)
        if not names:
            raise ConfigError("the mixture is empty; give at least one source with a weight above 0")
        total = math.fsum(self.weights.values())
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "shares", tuple(self.weights[name] / total for name in names))

    def rows(self, step: int) -> list[Sequence]:
        """The rows of a step, rows of one source after another.

        Raises:
            DataError: If a source fails, or all rows of the step are faulty and left out.
        """
        rows: list[Sequence] = []
        for name, start, count in self._shares_of(step):
            if name == WORLD and self.world is not None:
                rows += replace(self.world, rows_per_step=count).rows(step)
                continue
            generator = np.random.default_rng((self.seed, step, zlib.crc32(name.encode())))
            for examples, is_understanding in self._sorted(self.sources[name].take(start, start + count)):
                rows += self.maker.rows(examples, generator, drop_prob=0.0 if is_understanding else self.drop_prob)
        if not rows:
            raise DataError(f"all {self.rows_per_step} rows of step {step} are faulty; run `dynin data check`")
        return rows

    def fingerprint(self) -> str:
        """A hash of what is drawn from and how; equal ones give equal rows for equal steps."""
        digest = hashlib.sha256(f"blend {self.seed} {self.rows_per_step} {self.drop_prob}".encode())
        for name, share in zip(self.names, self.shares, strict=True):
            source = self.world if name == WORLD and self.world is not None else self.sources[name]
            digest.update(f"{name} {share} {source.fingerprint()}".encode())
        return digest.hexdigest()

    def _shares_of(self, step: int) -> Iterator[tuple[str, int, int]]:
        """The sources of a step, each with its first draw and how many there are."""
        counts = _counts(self.seed, self.shares, self.rows_per_step, step // STEPS_TOGETHER)[step % STEPS_TOGETHER]
        starts = drawn_before(self.seed, self.shares, self.rows_per_step, step)
        for name, start, count in zip(self.names, starts.tolist(), counts.tolist(), strict=True):
            if count:
                yield name, start, count

    def _sorted(self, examples: list[Example]) -> Iterator[tuple[list[Example], bool]]:
        """Those that make more than text, which may lose their condition, then those that make text alone."""
        for is_understanding in (False, True):
            chosen = [
                example
                for example in examples
                if (self.maker.tasks[example.task].targets == (Modality.TEXT,)) == is_understanding
            ]
            if chosen:
                yield chosen, is_understanding


def drawn_before(seed: int, shares: tuple[float, ...], rows_per_step: int, step: int) -> Int64[np.ndarray, " K"]:
    """How many rows of each source the steps before this one draw."""
    block, inside = divmod(step, STEPS_TOGETHER)
    before = sum(_total(seed, shares, rows_per_step, earlier) for earlier in range(block))
    return before + _counts(seed, shares, rows_per_step, block)[:inside].sum(axis=0)


@lru_cache(maxsize=1 << 14)
def _total(seed: int, shares: tuple[float, ...], rows_per_step: int, block: int) -> Int64[np.ndarray, " K"]:
    return _counts(seed, shares, rows_per_step, block).sum(axis=0)


@lru_cache(maxsize=4)
def _counts(seed: int, shares: tuple[float, ...], rows_per_step: int, block: int) -> Int64[np.ndarray, "1024 K"]:
    """How many rows of each source each step of a block of steps draws."""
    generator = np.random.default_rng((seed, block, zlib.crc32(b"shares")))
    return generator.multinomial(rows_per_step, shares, size=STEPS_TOGETHER)
