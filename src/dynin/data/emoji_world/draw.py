"""Draw scenes, clips, edits, problems and sentences that belong to one split.

Enters: the settings of a world and a numpy generator. Leaves: values of the split, found by drawing until one fits.
Does not know: tasks, pixels, indices.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from dynin.data.emoji_world.artwork import COLOUR_FAMILIES, family
from dynin.data.emoji_world.clip import Clip, sample_clip
from dynin.data.emoji_world.clip_edit import ClipEdit, sample_clip_edit
from dynin.data.emoji_world.edit import Edit, Operation, sample_edit
from dynin.data.emoji_world.problem import (
    COUNTING_SHARE,
    Problem,
    Sum,
    sample_problem,
    sample_sum,
    spoken_answer,
    spoken_question,
)
from dynin.data.emoji_world.scene import GRID_CELLS, Kind, Scene, sample_scene
from dynin.data.emoji_world.sentence import JOINING, LONG_WORDS, WEIGHTS, Sentence, SentenceKind, sample_sentence
from dynin.data.emoji_world.splits import (
    Split,
    is_clip_held_out,
    is_problem_held_out,
    is_scene_held_out,
    is_sentence_held_out,
)
from dynin.errors import ConfigError

KIND_WEIGHTS: dict[Kind, float] = {"one": 0.25, "pair": 0.45, "count": 0.15, "trio": 0.15}
"""How often each kind of scene is drawn."""

FEWEST_THINGS: dict[str, int] = {"one": 1, "pair": 2, "count": 2, "trio": 3}

OPERATION_WEIGHTS: dict[Operation, float] = {
    "replace": 0.25, "remove": 0.15, "add": 0.2, "move": 0.15, "recolour": 0.1, "background": 0.15,
}  # fmt: skip
"""How often each edit is drawn."""

DESCRIBE_SHARE = 0.7
"""Share of questions about pictures and videos that ask for the whole description."""

THINK_SHARE = 2 / 3
"""Share of problems that ask for the worked steps."""

MOST_DRAWS = 20_000
"""Draws after which a split counts as empty."""

SPOKEN_PICTURES: tuple[SentenceKind, ...] = ("one", "pair", "count")
"""Kinds of sentences that are captions of pictures."""

Choice = TypeVar("Choice", bound=str)
Drawn = TypeVar("Drawn")


@dataclass(frozen=True, kw_only=True, slots=True)
class Draw:
    """The draws of one world."""

    names: tuple[str, ...]
    """The objects that exist."""
    split: Split
    max_things: int
    """Most things in a picture; with 1, clips show one thing only."""
    num_cells: int = GRID_CELLS
    """Cells along a side of a picture."""
    is_long: bool = False
    """Whether what is read and written down word for word is long."""
    counting_share: float = COUNTING_SHARE
    think_share: float = THINK_SHARE
    describe_share: float = DESCRIBE_SHARE

    def scene(self, generator: np.random.Generator) -> Scene:
        """A scene of any kind."""
        kind = _weighted(self._kinds(), KIND_WEIGHTS, generator)
        return self._until(lambda: self._any_scene(kind, generator), is_scene_held_out)

    def clip(self, generator: np.random.Generator, *, is_whole: bool = False) -> Clip:
        """A clip; with `is_whole` its first frame shows the whole moving thing."""
        is_alone = self.max_things == 1
        return self._until(
            lambda: sample_clip(self.names, generator, is_whole=is_whole, is_alone=is_alone), is_clip_held_out
        )

    def edit(self, generator: np.random.Generator) -> Edit:
        """An edit whose target is of the split; in training its source is, too."""
        operations = [operation for operation in OPERATION_WEIGHTS if self._can(operation)]
        operation = _weighted(operations, OPERATION_WEIGHTS, generator)
        kinds = [kind for kind in self._kinds() if _allows(operation, kind, self.max_things)]

        def draw() -> Edit | None:
            kind = _weighted(kinds, KIND_WEIGHTS, generator)
            source = self._any_scene(kind, generator)
            if operation == "recolour":
                source = _with_family(source, self._family_names(), generator)
            if self.split == "train" and is_scene_held_out(source):
                return None
            return sample_edit(operation, source, self.names, generator)

        return self._until(draw, lambda edit: is_scene_held_out(edit.target))

    def clip_edit(self, generator: np.random.Generator) -> ClipEdit:
        """An edit of a clip whose target is of the split; in training its source is, too."""

        def draw() -> ClipEdit | None:
            source = sample_clip(self.names, generator, is_alone=self.max_things == 1)
            if self.split == "train" and is_clip_held_out(source):
                return None
            return sample_clip_edit(source, self.names, generator)

        return self._until(draw, lambda edit: is_clip_held_out(edit.target))

    def problem(self, generator: np.random.Generator) -> Problem:
        """A sum, a story or a row to count."""
        return self._until(
            lambda: sample_problem(self.names, generator, self.counting_share),
            lambda drawn: is_problem_held_out(drawn.key),
        )

    def said(self, generator: np.random.Generator) -> Sentence:
        """A sentence to be read aloud or written down, of any kind."""
        return self.long_sentence(generator) if self.is_long else self.sentence(tuple(WEIGHTS), generator)

    def sentence(
        self, kinds: Sequence[SentenceKind], generator: np.random.Generator, *, is_canonical: bool = False
    ) -> Sentence:
        """A sentence of one of these kinds; of the split by what it tells or by its own words."""
        allowed = [kind for kind in kinds if FEWEST_THINGS.get(kind, 0) <= self.max_things]
        kind = _weighted(allowed, WEIGHTS, generator)
        return self._until(
            lambda: sample_sentence(
                kind,
                self.names,
                generator,
                max_things=self.max_things,
                num_cells=self.num_cells,
                is_canonical=is_canonical,
            ),
            lambda drawn: is_sentence_held_out(drawn.text) or is_content_held_out(drawn.content),
        )

    def long_sentence(self, generator: np.random.Generator) -> Sentence:
        """Sentences of all kinds said in one go; each is of the split, and in training the whole, too."""
        least, most = LONG_WORDS
        while True:
            parts: list[Sentence] = []
            while sum(part.num_words for part in parts) < least:
                parts.append(self.sentence(tuple(WEIGHTS), generator))
            whole = Sentence(kind="long", text=JOINING.join(part.text for part in parts), content=None)
            if sum(part.num_words for part in parts) > most:
                continue
            if self.split == "held_out" or not is_sentence_held_out(whole.text):
                return whole

    def spoken_sum(self, generator: np.random.Generator) -> Sum:
        """A sum of one step, by the sum and by the sentences that ask and answer it."""
        return self._until(
            lambda: sample_sum(generator, num_steps=1),
            lambda drawn: (
                is_problem_held_out(drawn.key)
                or is_sentence_held_out(spoken_question(drawn))
                or is_sentence_held_out(spoken_answer(drawn))
            ),
        )

    def _any_scene(self, kind: Kind, generator: np.random.Generator) -> Scene:
        return sample_scene(kind, self.names, generator, self.max_things, self.num_cells)

    def _kinds(self) -> list[Kind]:
        return [kind for kind in KIND_WEIGHTS if FEWEST_THINGS[kind] <= self.max_things]

    def _family_names(self) -> list[str]:
        return [name for name in self.names if family(name) is not None]

    def _can(self, operation: Operation) -> bool:
        if operation == "recolour":
            nouns = [family(name) for name in self._family_names()]
            return any(nouns.count(noun) > 1 for noun in COLOUR_FAMILIES)
        return self.max_things > 1 or operation not in ("add", "remove")

    def _until(self, draw: Callable[[], Drawn | None], is_held_out: Callable[[Drawn], bool]) -> Drawn:
        """Draw until the result belongs to the split; None stands for a draw that came to nothing."""
        wanted = self.split == "held_out"
        for _ in range(MOST_DRAWS):
            drawn = draw()
            if drawn is not None and is_held_out(drawn) == wanted:
                return drawn
        raise ConfigError(
            f"split {self.split} of a world with {len(self.names)} objects seems empty after {MOST_DRAWS} draws; "
            "give it more objects"
        )


def is_content_held_out(content: Scene | Clip | Sum | None) -> bool:
    """Whether what a sentence tells is held out."""
    match content:
        case Scene():
            return is_scene_held_out(content)
        case Clip():
            return is_clip_held_out(content)
        case Sum():
            return is_problem_held_out(content.key)
        case _:
            return False


def _weighted(choices: Sequence[Choice], weights: Mapping[Choice, float], generator: np.random.Generator) -> Choice:
    draw = generator.random() * sum(weights[choice] for choice in choices)
    for choice in choices:
        draw -= weights[choice]
        if draw < 0:
            return choice
    return choices[-1]


def _allows(operation: Operation, kind: Kind, max_things: int) -> bool:
    """Whether scenes of this kind can be edited so, within the limit of things."""
    match operation:
        case "remove":
            return kind in ("pair", "trio")
        case "add":
            return kind == "one" or (kind == "pair" and max_things > 2)
        case "move" | "recolour":
            return kind != "count"
        case _:
            return True


def _with_family(scene: Scene, family_names: Sequence[str], generator: np.random.Generator) -> Scene:
    """The scene, one of its things being exchanged for one that exists in several colours."""
    if any(thing.name in family_names for thing in scene.things):
        return scene
    chosen = int(generator.integers(len(scene.things)))
    name = family_names[int(generator.integers(len(family_names)))]
    things = tuple(replace(thing, name=name) if i == chosen else thing for i, thing in enumerate(scene.things))
    return replace(scene, things=things)
