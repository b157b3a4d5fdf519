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
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from dynin.data.emoji_world.world import EmojiWorld
from dynin.data.example import Example
from dynin.data.retelling import answer_of, picture_of, video_of
from dynin.data.rows import RowMaker
from dynin.data.utterances import Utterances
from dynin.errors import ConfigError
from dynin.sequence.layout import Sequence
from dynin.types import Modality

TEXT, IMAGE, VIDEO, SPEECH = Modality.TEXT, Modality.IMAGE, Modality.VIDEO, Modality.SPEECH


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixture:
    """A `training.ahead.RowSource`."""

    world: EmojiWorld
    early_world: EmojiWorld
    """The world before `curriculum_steps`, with one thing in a picture."""
    maker: RowMaker
    weights: Mapping[str, float]
    """How often each task is drawn."""
    rows_per_step: int
    curriculum_steps: int
    drop_prob: float
    seed: int
    utterances: Utterances | None = None

    def rows(self, step: int) -> list[Sequence]:
        """The rows of a step, rows of one task after another."""
        draw = random.Random(self.seed * 1_000_003 + step)
        drawn = draw.choices(list(self.weights), weights=list(self.weights.values()), k=self.rows_per_step)
        counts = Counter(drawn)
        return [row for task in self.weights for row in self.rows_of(task, counts[task], step=step)]

    def rows_of(self, task: str, count: int, *, step: int) -> list[Sequence]:
        """So many rows of one task."""
        generator = np.random.default_rng((self.seed, step, zlib.crc32(task.encode())))
        if task in SPOKEN:
            examples = [SPOKEN[task](self, generator) for _ in range(count)]
        else:
            world = self.early_world if step < self.curriculum_steps else self.world
            first = int(generator.integers(2**40))
            examples = [
                replace(world.example(task, first + index), name=f"{task} {first + index}") for index in range(count)
            ]
        is_understanding = self.maker.tasks[task].targets == (TEXT,)
        return self.maker.rows(examples, generator, drop_prob=0.0 if is_understanding else self.drop_prob)

    def fingerprint(self) -> str:
        """SHA-256 over the spoken sentences; pictures, videos and texts follow from the seed and the code."""
        digest = hashlib.sha256(f"emoji world {self.seed}".encode())
        if self.utterances is not None:
            digest.update(self.utterances.all_codes.tobytes() + self.utterances.offsets.tobytes())
            digest.update("\n".join(self.utterances.texts).encode())
        return digest.hexdigest()

    @property
    def _voiced(self) -> Utterances:
        if self.utterances is None:
            raise ConfigError("tasks with speech need 'speech_shard'; make one with `dynin data speech`")
        return self.utterances

    def _transcribe(self, generator: np.random.Generator) -> Example:
        index = self._voiced.draw(generator)
        return Example(
            task="s2t", condition={SPEECH: self._voiced.codes(index)}, target={TEXT: self._voiced.texts[index]}
        )

    def _read_aloud(self, generator: np.random.Generator) -> Example:
        index = self._voiced.draw_target(generator)
        return Example(
            task="t2s", condition={TEXT: self._voiced.texts[index]}, target={SPEECH: self._voiced.codes(index)}
        )

    def _hear(self, generator: np.random.Generator, task: str, modality: Modality) -> Example:
        kind = "picture" if modality == IMAGE else "video"
        index = self._voiced.draw(generator, kind)
        retell = picture_of if modality == IMAGE else video_of
        value = retell(self._voiced.texts[index], generator, is_canonical=False)
        return Example(task=task, condition={SPEECH: self._voiced.codes(index)}, target={modality: value})

    def _tell(self, generator: np.random.Generator, task: str, modality: Modality) -> Example:
        kind = "canonical picture" if modality == IMAGE else "video"
        index = self._voiced.draw_target(generator, kind)
        retell = picture_of if modality == IMAGE else video_of
        value = retell(self._voiced.texts[index], generator, is_canonical=True)
        return Example(task=task, condition={modality: value}, target={SPEECH: self._voiced.codes(index)})

    def _answer_aloud(self, generator: np.random.Generator) -> Example:
        """A spoken sum and its spoken answer; sums whose answer is not in the shard are drawn again."""
        answer = None
        if not self._voiced.has_answered_sum:
            raise ConfigError("the shard has no spoken sum whose answer it has too; make a larger one")
        while answer is None:
            index = self._voiced.draw(generator, "sum")
            answer = self._voiced.find_target(answer_of(self._voiced.texts[index]))
        return Example(
            task="s2s", condition={SPEECH: self._voiced.codes(index)}, target={SPEECH: self._voiced.codes(answer)}
        )


SPOKEN: Mapping[str, Callable[[Mixture, np.random.Generator], Example]] = {
    "s2t": Mixture._transcribe,
    "t2s": Mixture._read_aloud,
    "s2i": partial(Mixture._hear, task="s2i", modality=IMAGE),
    "s2v": partial(Mixture._hear, task="s2v", modality=VIDEO),
    "i2s": partial(Mixture._tell, task="i2s", modality=IMAGE),
    "v2s": partial(Mixture._tell, task="v2s", modality=VIDEO),
    "s2s": Mixture._answer_aloud,
}
"""The tasks that draw from utterances, and how."""
