"""What the demo asks for: every row of the task table, with fixed prompts and held-out or recorded media.

Enters: the tasks of a model. Leaves: cases, each one request with words about it. Does not know how results are shown.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dynin.data.emoji_world.world import EmojiWorld
from dynin.media import audio
from dynin.types import Modality

TEXT, SPEECH = Modality.TEXT, Modality.SPEECH

CLIPS = Path(__file__).resolve().parents[1] / "assets" / "clips"
WORLD_SEED = 7

PROMPTS: Mapping[str, tuple[str, ...]] = {
    "t2t": ("What is 3 + 4 - 2?", "Count the red apples: star red apple dog red apple", "compute 4 + 10 /no_think"),
    "t2i": ("a dog above a red apple on a blue background", "three stars on a red background"),
    "t2v": ("a fish moves left on a blue background",),
    "t2s": ("a dog left of a cat on a white background",),
}
"""Tasks that take nothing but text."""

CLIP_OF_TASK: Mapping[str, str] = {
    "s2t": "dog-left-of-red-apple.flac",
    "s2i": "small-star.flac",
    "s2v": "cat-moves-right.flac",
    "s2s": "two-plus-three.flac",
}
"""Recorded sentences for tasks that hear."""

HELD_OUT: Mapping[str, tuple[int, ...]] = {"i2t": (0, 1), "i2i": (0, 1)}
"""Which held-out examples are shown of the other tasks; the first one where nothing is said."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One request of the demo."""

    task: str
    given: Mapping[Modality, object]
    target: tuple[Modality, ...]
    spoken: str | None = None
    """The words of a given sound."""
    expected: Mapping[Modality, object] = field(default_factory=dict)
    """What would be right, where it is known; speech as its sentence."""


def cases(tasks: Mapping[str, tuple[Modality, ...]]) -> Iterator[Case]:
    """The cases of every task, in the table's order.

    Args:
        tasks: Names of tasks and what they make.
    """
    world = EmojiWorld(WORLD_SEED, "held_out")
    sentences = {clip["file"]: clip["text"] for clip in json.loads((CLIPS / "clips.json").read_text(encoding="utf-8"))}
    for task, target in tasks.items():
        if task in PROMPTS:
            for prompt in PROMPTS[task]:
                yield Case(task=task, given={TEXT: prompt}, target=target)
        elif task in CLIP_OF_TASK:
            name = CLIP_OF_TASK[task]
            sound = audio.read(CLIPS / name)
            expected = {TEXT: sentences[name]} if task == "s2t" else {}
            yield Case(task=task, given={SPEECH: sound}, target=target, spoken=sentences[name], expected=expected)
        else:
            for index in HELD_OUT.get(task, (0,)):
                example = world.sentence(task, index)
                yield Case(task=task, given=example.condition, target=target, expected=example.target)
