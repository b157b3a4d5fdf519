"""The spoken domain: which sentences are said, and the grammar of exactly these for a recogniser.

Enters: object names and a numpy generator. Leaves: `Sentence` values and a JSGF grammar. Does not know: voices, tasks.

All words are in lower case, numbers are words, there are no marks, and no sentence has more than `MOST_WORDS` words.
Long sentences are several of these, said in one go with "then" between them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dynin.data.emoji_world import caption, clip_caption, problem, wording
from dynin.data.emoji_world.artwork import article, plural
from dynin.data.emoji_world.clip import Clip, sample_clip
from dynin.data.emoji_world.scene import (
    BACKGROUNDS,
    GRID_CELLS,
    MOST_THINGS,
    RELATIONS,
    Kind,
    Scene,
    draw_names,
    sample_scene,
)

SentenceKind = Literal["one", "pair", "count", "clip", "question", "answer", "sum_question", "sum_answer", "long"]
WEIGHTS: dict[SentenceKind, float] = {
    "one": 0.16, "pair": 0.28, "count": 0.1, "clip": 0.18, "question": 0.08, "answer": 0.08, "sum_question": 0.06,
    "sum_answer": 0.06,
}  # fmt: skip
"""How often each kind of sentence is said; long ones are made of these."""

_SCENES: dict[str, Kind] = {"one": "one", "pair": "pair", "count": "count"}
"""The scenes that captions of these kinds tell."""

MOST_WORDS = 14
JOINING = " then "
"""What is said between the parts of a long sentence."""
LONG_WORDS = (2 * MOST_WORDS, 2 * MOST_WORDS + 2)
"""Least and most words of the parts of a long sentence together: at least twice the longest other sentence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sentence:
    """What is said, and what it says."""

    kind: SentenceKind
    text: str
    content: Scene | Clip | problem.Sum | None
    """The scene, clip or sum that the sentence tells; None for questions and answers about pictures, and long ones."""

    @property
    def num_words(self) -> int:
        """How many words are said."""
        return len(self.text.split())


DIRECTIONS = ("left", "right", "up", "down")
QUESTIONS = (
    "what is in the picture", "what do you see", "what happens in the video", "what color is the background",
    "how many {several} are there", "what is {held} the {name}", "where is the {name}", "is there {one} in the picture",
    "which way does the {name} move", "is the {name} {held} the {other}",
)  # fmt: skip
ANSWERS = (
    "the background is {colour}", "there are {count} {several}", "there is {one} in the picture",
    "the {name} is {held} the {other}", "the {name} moves {direction}", "{one} is {held} the {other}",
)  # fmt: skip


def sample_sentence(
    kind: SentenceKind,
    names: Sequence[str],
    generator: np.random.Generator,
    *,
    max_things: int = MOST_THINGS,
    num_cells: int = GRID_CELLS,
    is_canonical: bool = False,
) -> Sentence:
    """Draw a sentence of this kind.

    Args:
        kind: Any but "long".
        max_things: Most things in a caption; must suffice for the kind.
        num_cells: Cells along a side of the picture that a caption tells.
        is_canonical: Whether captions of pictures must be canonical; else the things may come in any order.
    """
    if kind in _SCENES:
        scene = sample_scene(_SCENES[kind], names, generator, max_things, num_cells)
        text = caption.canonical(scene) if is_canonical else caption.plain(scene, generator)
        return Sentence(kind=kind, text=text, content=scene)
    if kind == "clip":
        clip = _sample_short_clip(names, generator, is_alone=max_things == 1)
        return Sentence(kind=kind, text=clip_caption.canonical(clip), content=clip)
    if kind in ("sum_question", "sum_answer"):
        drawn = problem.sample_sum(generator, num_steps=1)
        said = problem.spoken_question if kind == "sum_question" else problem.spoken_answer
        return Sentence(kind=kind, text=said(drawn), content=drawn)
    name, other = draw_names(names, 2, generator)
    text = wording.pick(QUESTIONS if kind == "question" else ANSWERS, generator).format(
        name=name,
        other=other,
        one=wording.one_of(name),
        several=plural(name),
        held=wording.pick(RELATIONS, generator),
        colour=wording.pick(tuple(BACKGROUNDS), generator),
        count=wording.pick(("two", "three"), generator),
        direction=wording.pick(DIRECTIONS, generator),
    )
    return Sentence(kind=kind, text=text, content=None)


def _sample_short_clip(names: Sequence[str], generator: np.random.Generator, is_alone: bool) -> Clip:
    """A clip whose caption is short enough to be said."""
    while True:
        clip = sample_clip(names, generator, is_alone=is_alone)
        if len(clip_caption.canonical(clip).split()) <= MOST_WORDS:
            return clip


def grammar(names: Sequence[str], *, is_long: bool = False) -> str:
    """A JSGF grammar of every sentence above about these objects.

    Args:
        is_long: Whether several sentences may be said with "then" between them.
    """
    an_names = [name for name in names if article(name) == "an"]
    a_names = [name for name in names if article(name) == "a"]
    one = ["a small <name>", "a <a_name>", *(["an <an_name>"] if an_names else [])]
    colours = [f"{article(colour)} {colour}" for colour in BACKGROUNDS]
    slots = {
        "name": "<name>", "other": "<name>", "one": "<one>", "several": "<several>", "held": "<relation>",
        "colour": "<colour>", "count": "<few>", "direction": "<direction>",
    }  # fmt: skip
    rules: dict[str, list[str]] = {
        "name": list(names),
        "a_name": a_names,
        "an_name": an_names,
        "several": [plural(name) for name in names],
        "one": one,
        "few": ["two", "three"],
        "relation": list(RELATIONS),
        "colour": list(BACKGROUNDS),
        "direction": list(DIRECTIONS),
        "ground": [f"on {colour} background" for colour in colours],
        "number": [wording.number_words(number) for number in range(wording.MOST + 1)],
        "operation": list(problem.SPOKEN_OPERATORS.values()),
        "content": ["<one>", "<one> <relation> <one>", "<few> [small] <several>"],
        "verb": list(clip_caption.VERBS.values()),
        "caption": ["<content> <ground>"],
        "clip": ["<one> <verb> [and <one> stays still] <ground>"],
        "question": [form.format(**slots) for form in QUESTIONS],
        "answer": [form.format(**slots) for form in ANSWERS],
        "sum_question": ["what is <number> <operation> <number>"],
        "sum_answer": ["<number> <operation> <number> is <number>"],
    }
    lines = ["#JSGF V1.0;", "grammar emoji_world;"]
    if is_long:
        lines.append(f"public <sentences> = <sentence> ({JOINING.strip()} <sentence>)*;")
    publicity = "" if is_long else "public "
    kinds = "<caption> | <clip> | <question> | <answer> | <sum_question> | <sum_answer>"
    lines.append(f"{publicity}<sentence> = {kinds};")
    lines += [f"<{rule}> = {' | '.join(forms)};" for rule, forms in rules.items() if forms]
    return "\n".join(lines) + "\n"
