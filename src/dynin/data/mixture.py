"""Training rows of every task, drawn from Emoji World and from pre-tokenized speech.

Enters: a step. Leaves: its rows. Equal steps give equal rows, so that a resumed run goes on where it stopped. Does not
know networks or losses.

Pictures and videos are new at every step. Sounds come from a shard of utterances made once (`dynin data speech`); the
picture or video that belongs to a spoken caption is drawn anew each time the caption comes up.
"""

import hashlib
import random
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from dynin.data.emoji_world.world import EmojiWorld
from dynin.data.example import Example
from dynin.data.retelling import answer_of, picture_of, video_of
from dynin.data.rows import RowMaker
from dynin.data.utterances import Utterances
from dynin.data.variants import DRAWN
from dynin.errors import ConfigError
from dynin.sequence.layout import Sequence
from dynin.types import Modality

TEXT, IMAGE, VIDEO, SPEECH = Modality.TEXT, Modality.IMAGE, Modality.VIDEO, Modality.SPEECH


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixture:
    """A `training.prefetch.RowSource`."""

    world: EmojiWorld
    early_world: EmojiWorld
    """The world before `curriculum_steps`, with one thing in a picture."""
    maker: RowMaker
    weights: Mapping[str, float]
    """How often each name of `variants.DRAWN` is drawn."""
    rows_per_step: int
    curriculum_steps: int
    drop_prob: float
    seed: int
    utterances: Utterances | None = None
    long_utterances: Utterances | None = None
    worlds: Mapping[str, EmojiWorld] = field(default_factory=dict)
    """The worlds of those names of `variants.DRAWN` that have one of their own."""

    def rows(self, step: int) -> list[Sequence]:
        """The rows of a step, rows drawn under one name after another."""
        draw = random.Random(self.seed * 1_000_003 + step)
        drawn = draw.choices(list(self.weights), weights=list(self.weights.values()), k=self.rows_per_step)
        counts = Counter(drawn)
        return [row for name in self.weights for row in self.rows_of(name, counts[name], step=step)]

    def rows_of(self, name: str, count: int, *, step: int) -> list[Sequence]:
        """So many rows of a task, or of a part of one that `variants.DRAWN` names."""
        generator = np.random.default_rng((self.seed, step, zlib.crc32(name.encode())))
        variant = DRAWN[name]
        if variant.task in SPOKEN:
            shard = self._shard(is_long=variant.is_long)
            examples = [SPOKEN[variant.task](shard, generator) for _ in range(count)]
        else:
            usual = self.early_world if step < self.curriculum_steps else self.world
            world, first = self.worlds.get(name, usual), int(generator.integers(2**40))
            examples = [
                replace(world.example(variant.task, first + index), name=f"{variant.task} {first + index}")
                for index in range(count)
            ]
        is_understanding = self.maker.tasks[variant.task].targets == (TEXT,)
        return self.maker.rows(examples, generator, drop_prob=0.0 if is_understanding else self.drop_prob)

    def fingerprint(self) -> str:
        """SHA-256 over the spoken sentences; pictures, videos and texts follow from the seed and the code."""
        digest = hashlib.sha256(f"emoji world {self.seed}".encode())
        for shard in (self.utterances, self.long_utterances):
            if shard is not None:
                digest.update(shard.all_codes.tobytes() + shard.offsets.tobytes())
                digest.update("\n".join(shard.texts).encode())
        return digest.hexdigest()

    def _shard(self, *, is_long: bool) -> Utterances:
        shard = self.long_utterances if is_long else self.utterances
        if shard is None:
            name, more = ("long_speech_shard", " --long") if is_long else ("speech_shard", "")
            raise ConfigError(f"tasks with speech need {name!r}; make one with `dynin data speech{more}`")
        return shard


def _transcribe(shard: Utterances, generator: np.random.Generator) -> Example:
    index = shard.draw(generator)
    return Example(task="s2t", condition={SPEECH: shard.codes(index)}, target={TEXT: shard.texts[index]})


def _read_aloud(shard: Utterances, generator: np.random.Generator) -> Example:
    index = shard.draw_target(generator)
    return Example(task="t2s", condition={TEXT: shard.texts[index]}, target={SPEECH: shard.codes(index)})


def _hear(shard: Utterances, generator: np.random.Generator, task: str, modality: Modality) -> Example:
    kind = "picture" if modality == IMAGE else "video"
    index = shard.draw(generator, kind)
    retell = picture_of if modality == IMAGE else video_of
    value = retell(shard.texts[index], generator, is_canonical=False)
    return Example(task=task, condition={SPEECH: shard.codes(index)}, target={modality: value})


def _tell(shard: Utterances, generator: np.random.Generator, task: str, modality: Modality) -> Example:
    kind = "canonical picture" if modality == IMAGE else "video"
    index = shard.draw_target(generator, kind)
    retell = picture_of if modality == IMAGE else video_of
    value = retell(shard.texts[index], generator, is_canonical=True)
    return Example(task=task, condition={modality: value}, target={SPEECH: shard.codes(index)})


def _answer_aloud(shard: Utterances, generator: np.random.Generator) -> Example:
    """A spoken sum and its spoken answer; sums whose answer is not in the shard are drawn again."""
    answer = None
    if not shard.has_answered_sum:
        raise ConfigError("the shard has no spoken sum whose answer it has too; make a larger one")
    while answer is None:
        index = shard.draw(generator, "sum")
        answer = shard.find_target(answer_of(shard.texts[index]))
    return Example(task="s2s", condition={SPEECH: shard.codes(index)}, target={SPEECH: shard.codes(answer)})


SPOKEN: Mapping[str, Callable[[Utterances, np.random.Generator], Example]] = {
    "s2t": _transcribe,
    "t2s": _read_aloud,
    "s2i": partial(_hear, task="s2i", modality=IMAGE),
    "s2v": partial(_hear, task="s2v", modality=VIDEO),
    "i2s": partial(_tell, task="i2s", modality=IMAGE),
    "v2s": partial(_tell, task="v2s", modality=VIDEO),
    "s2s": _answer_aloud,
}
"""The tasks that draw from utterances, and how."""
