"""Training rows of every task, drawn from Emoji World and from pre-tokenized speech.

Enters: a task's name, a step and a batch number. Leaves: rows. Equal arguments give equal rows, so that a resumed run
goes on where it stopped. Does not know networks or losses.

Pictures and videos are new at every step. Sounds come from a shard of utterances made once (`dynin data speech`); the
picture or video that belongs to a spoken caption is drawn anew each time the caption comes up.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

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

ROW_LENGTHS: Mapping[str, int] = {
    "t2t": 60, "i2t": 50, "v2t": 100, "s2t": 105, "t2i": 36, "i2i": 55, "v2i": 100, "s2i": 105, "t2v": 86, "i2v": 105,
    "v2v": 150, "s2v": 150, "t2s": 100, "i2s": 105, "v2s": 150, "s2s": 150, "ti2ti": 75,
}  # fmt: skip
"""Typical positions of a row, by which a batch of so many tokens is cut into rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixture:
    """A `training.loop.RowSource`."""

    world: EmojiWorld
    early_world: EmojiWorld
    """The world before `curriculum_steps`, with one thing in a picture."""
    maker: RowMaker
    tokens_per_batch: int
    curriculum_steps: int
    drop_prob: float
    seed: int
    utterances: Utterances | None = None
    _spoken: Mapping[str, Callable[[np.random.Generator], Example]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Bind the tasks that draw from utterances."""
        spoken = {
            "s2t": self._transcribe,
            "t2s": self._read_aloud,
            "s2i": lambda generator: self._hear(generator, "s2i", IMAGE),
            "s2v": lambda generator: self._hear(generator, "s2v", VIDEO),
            "i2s": lambda generator: self._tell(generator, "i2s", IMAGE),
            "v2s": lambda generator: self._tell(generator, "v2s", VIDEO),
            "s2s": self._answer_aloud,
        }
        object.__setattr__(self, "_spoken", spoken)

    def rows(self, task: str, *, step: int, batch: int) -> list[Sequence]:
        """A batch of rows of one task."""
        count = max(1, self.tokens_per_batch // ROW_LENGTHS[task])
        generator = np.random.default_rng((self.seed, step, batch))
        if task in self._spoken:
            examples = [self._spoken[task](generator) for _ in range(count)]
        else:
            world = self.early_world if step < self.curriculum_steps else self.world
            first = int(generator.integers(2**40))
            examples = [world.example(task, first + index) for index in range(count)]
        is_understanding = self.maker.tasks[task].targets == (TEXT,)
        return self.maker.rows(examples, generator, drop_prob=0.0 if is_understanding else self.drop_prob)

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
        while answer is None:
            index = self._voiced.draw(generator, "sum")
            answer = self._voiced.find_target(answer_of(self._voiced.texts[index]))
        return Example(
            task="s2s", condition={SPEECH: self._voiced.codes(index)}, target={SPEECH: self._voiced.codes(answer)}
        )
