"""Emoji World: unlimited examples of every task, each fixed by (seed, split, task, index).

Enters: a seed, a split, how many objects and things there may be, and a way to say sentences. Leaves: `Example` values
with the scene, clip, edit, problem or sentence behind them as truth. Does not know: tokenizers, models, voices.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import count
from typing import TypedDict, Unpack

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from dynin.data.emoji_world import caption, clip_caption, problem, question, sentence
from dynin.data.emoji_world.artwork import NAMES, NUM_OBJECTS
from dynin.data.emoji_world.clip import FRAME_RATE_HZ, Clip, frames, render_clip
from dynin.data.emoji_world.clip_edit import animation, sample_frame_request
from dynin.data.emoji_world.draw import SPOKEN_PICTURES, Draw
from dynin.data.emoji_world.scene import GRID_CELLS, MOST_CELLS, MOST_THINGS, Scene, render
from dynin.data.emoji_world.splits import Split
from dynin.data.example import Example
from dynin.errors import ConfigError, RequestError
from dynin.media.audio import Audio
from dynin.media.video import Video
from dynin.types import Modality

TEXT, IMAGE, VIDEO, SPEECH = Modality.TEXT, Modality.IMAGE, Modality.VIDEO, Modality.SPEECH

FEWEST_OBJECTS = 6
"""A world with fewer objects has too few compositions to hold some out."""

Given = Mapping[Modality, object]
Truth = Mapping[str, object]
Draft = tuple[Given, Given, Truth]
"""Condition, target and truth; speech is the sentence to be said."""


def picture(scene: Scene) -> Float[Tensor, "3 Y X"]:
    """A scene as a picture in [-1, 1]."""
    return _values(render(scene)[None])[0]


def video(clip: Clip) -> Video:
    """A clip as a video."""
    return Video(frames=_values(render_clip(clip)), rate_hz=FRAME_RATE_HZ)


def _values(pixels: UInt8[np.ndarray, "T Y X 3"]) -> Float[Tensor, "T 3 Y X"]:
    channels_first = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    return torch.from_numpy(channels_first).to(torch.float32).div_(127.5).sub_(1)


class Shares(TypedDict, total=False):
    """How often some kinds of examples are drawn, each from 0 to 1; see `Draw` for what is usual."""

    counting_share: float
    """How many of all problems count; another share than the usual one trains that."""
    think_share: float
    """How many of all problems ask for the worked steps."""
    describe_share: float
    """How many of the questions about pictures and videos ask for the whole description."""


class EmojiWorld:
    """A source of examples that never ends and never changes."""

    def __init__(
        self,
        seed: int,
        split: Split = "train",
        num_objects: int = NUM_OBJECTS,
        *,
        max_things: int = MOST_THINGS,
        num_cells: int = GRID_CELLS,
        is_long: bool = False,
        speak: Callable[[str], Audio] | None = None,
        **shares: Unpack[Shares],
    ) -> None:
        """Choose the world.

        Args:
            seed: From 0; worlds with different seeds give unrelated examples.
            split: "train" never shows what is held out, "held_out" always does (see docs/emoji-world.md).
            num_objects: How many of the objects exist, from the first.
            max_things: Most things in a picture, 1 to 3; with 1, clips show one thing only.
            num_cells: Cells along a side of pictures, from 4; each is 16 px. Only with 4 are there videos.
            is_long: Whether s2t and t2s say long sentences, at least twice as long as the longest usual one.
            speak: Says a sentence; needed by `example` of tasks with speech.
            shares: How often some kinds of examples are drawn.

        Raises:
            ConfigError: If a setting is outside its range.
        """
        if seed < 0:
            raise ConfigError(f"seed is {seed}; give 0 or more")
        if split not in ("train", "held_out"):
            raise ConfigError(f"split is {split!r}; choose 'train' or 'held_out'")
        if not FEWEST_OBJECTS <= num_objects <= len(NAMES):
            raise ConfigError(f"num_objects is {num_objects}; give a number from {FEWEST_OBJECTS} to {len(NAMES)}")
        if not 1 <= max_things <= MOST_THINGS:
            raise ConfigError(f"max_things is {max_things}; give a number from 1 to {MOST_THINGS}")
        if not GRID_CELLS <= num_cells <= MOST_CELLS:
            raise ConfigError(f"num_cells is {num_cells}; give a number from {GRID_CELLS} to {MOST_CELLS}")
        for name, share in shares.items():
            if not 0 <= share <= 1:  # type: ignore[operator]
                raise ConfigError(f"{name} is {share}; give a number from 0 to 1")
        self.seed = seed
        self.split: Split = split
        self.names = NAMES[:num_objects]
        self.max_things = max_things
        self.num_cells = num_cells
        self._draw = Draw(
            names=self.names, split=split, max_things=max_things, num_cells=num_cells, is_long=is_long, **shares
        )
        self._speak = speak

    def example(self, task: str, index: int) -> Example:
        """The example of this task at this index.

        Raises:
            RequestError: If the task is unknown, the index negative, or speech is wanted and nothing can speak.
        """
        drawn = self.sentence(task, index)
        if SPEECH not in drawn.condition and SPEECH not in drawn.target:
            return drawn
        if self._speak is None:
            raise RequestError(
                f"task {task} needs speech; give EmojiWorld a `speak` function, or take `sentence` and say it elsewhere"
            )
        condition, target = _say(drawn.condition, self._speak), _say(drawn.target, self._speak)
        return Example(task=task, condition=condition, target=target, truth=drawn.truth)

    def sentence(self, task: str, index: int) -> Example:
        """The same example with the sentence to be said (a `str`) in place of every sound.

        Raises:
            RequestError: If the task is unknown, the index negative, or a video is wanted of another size than usual.
        """
        return self._drawn(self._draw, task, index)

    def _drawn(self, draw: Draw, task: str, index: int) -> Example:
        if task not in _DRAFTS:
            raise RequestError(f"task {task!r} is not part of Emoji World; choose one of {', '.join(_DRAFTS)}")
        if index < 0:
            raise RequestError(f"index is {index}; give 0 or more")
        if task in VIDEO_TASKS and self.num_cells != GRID_CELLS:
            raise RequestError(
                f"task {task} shows videos, which have {GRID_CELLS} cells a side, but num_cells is {self.num_cells}; "
                f"leave num_cells out, or choose one of {', '.join(task for task in TASKS if task not in VIDEO_TASKS)}"
            )
        key = (self.seed, zlib.crc32(f"{self.split}/{task}".encode()), index)
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))
        condition, target, truth = _DRAFTS[task](draw, generator)
        return Example(task=task, condition=condition, target=target, truth=truth)

    def sentences(self) -> Iterator[str]:
        """Sentences of all kinds of the spoken domain, without end."""
        for index in count():
            yield str(self.sentence("t2s", index).target[SPEECH])

    def long_sentences(self) -> Iterator[str]:
        """Long sentences, each several of the spoken domain with "then" between them, without end."""
        draw = replace(self._draw, is_long=True)
        for index in count():
            yield str(self._drawn(draw, "t2s", index).target[SPEECH])

    def grammar(self) -> str:
        """A JSGF grammar of all that may be said about this world's objects, for a recogniser."""
        return sentence.grammar(self.names, is_long=self._draw.is_long)


def _say(values: Given, speak: Callable[[str], Audio]) -> dict[Modality, object]:
    return {modality: speak(str(value)) if modality == SPEECH else value for modality, value in values.items()}


def _solve(draw: Draw, generator: np.random.Generator) -> Draft:
    is_thinking = generator.random() < draw.think_share
    drawn = draw.problem(generator)
    given, made = problem.prompt(drawn, is_thinking), problem.solution(drawn, is_thinking)
    return {TEXT: given}, {TEXT: made}, {"problem": drawn, "is_thinking": is_thinking}


def _ask_picture(draw: Draw, generator: np.random.Generator) -> Draft:
    scene = draw.scene(generator)
    if generator.random() < draw.describe_share:
        asked = question.describe_scene(scene, generator)
    else:
        asked = question.ask_scene(scene, draw.names, generator)
    return {IMAGE: picture(scene), TEXT: asked.text}, {TEXT: asked.answer}, {"scene": scene, "question": asked}


def _ask_video(draw: Draw, generator: np.random.Generator) -> Draft:
    clip = draw.clip(generator)
    if generator.random() < draw.describe_share:
        asked = question.describe_clip(clip, generator)
    else:
        asked = question.ask_clip(clip, draw.names, generator)
    return {VIDEO: video(clip), TEXT: asked.text}, {TEXT: asked.answer}, {"clip": clip, "question": asked}


def _draw_picture(draw: Draw, generator: np.random.Generator) -> Draft:
    scene = draw.scene(generator)
    return {TEXT: caption.prompt(scene, generator)}, {IMAGE: picture(scene)}, {"scene": scene}


def _film(draw: Draw, generator: np.random.Generator) -> Draft:
    clip = draw.clip(generator)
    return {TEXT: clip_caption.prompt(clip, generator)}, {VIDEO: video(clip)}, {"clip": clip}


def _edit_picture(draw: Draw, generator: np.random.Generator) -> Draft:
    edit = draw.edit(generator)
    condition = {IMAGE: picture(edit.source), TEXT: edit.instruction}
    return condition, {IMAGE: picture(edit.target)}, {"edit": edit, "scene": edit.target}


def _edit_and_tell(draw: Draw, generator: np.random.Generator) -> Draft:
    condition, target, truth = _edit_picture(draw, generator)
    scene = truth["scene"]
    assert isinstance(scene, Scene)
    return condition, {**target, TEXT: caption.canonical(scene)}, truth


def _animate(draw: Draw, generator: np.random.Generator) -> Draft:
    clip = draw.clip(generator, is_whole=True)
    instruction = animation(clip, generator)
    return {IMAGE: picture(frames(clip)[0]), TEXT: instruction}, {VIDEO: video(clip)}, {"clip": clip}


def _edit_video(draw: Draw, generator: np.random.Generator) -> Draft:
    edit = draw.clip_edit(generator)
    condition = {VIDEO: video(edit.source), TEXT: edit.instruction}
    return condition, {VIDEO: video(edit.target)}, {"edit": edit, "clip": edit.target}


def _pick_frame(draw: Draw, generator: np.random.Generator) -> Draft:
    clip = draw.clip(generator)
    request = sample_frame_request(generator)
    scene = frames(clip)[request.index]
    truth = {"clip": clip, "scene": scene, "frame": request.index}
    return {VIDEO: video(clip), TEXT: request.instruction}, {IMAGE: picture(scene)}, truth


def _hear(draw: Draw, generator: np.random.Generator) -> Draft:
    said = draw.said(generator)
    return {SPEECH: said.text}, {TEXT: said.text}, {"sentence": said}


def _speak(draw: Draw, generator: np.random.Generator) -> Draft:
    said = draw.said(generator)
    return {TEXT: said.text}, {SPEECH: said.text}, {"sentence": said}


def _hear_picture(draw: Draw, generator: np.random.Generator) -> Draft:
    said = draw.sentence(SPOKEN_PICTURES, generator)
    assert isinstance(said.content, Scene)
    return {SPEECH: said.text}, {IMAGE: picture(said.content)}, {"sentence": said, "scene": said.content}


def _tell_picture(draw: Draw, generator: np.random.Generator) -> Draft:
    said = draw.sentence(SPOKEN_PICTURES, generator, is_canonical=True)
    assert isinstance(said.content, Scene)
    return {IMAGE: picture(said.content)}, {SPEECH: said.text}, {"sentence": said, "scene": said.content}


def _hear_video(draw: Draw, generator: np.random.Generator) -> Draft:
    said = draw.sentence(("clip",), generator)
    assert isinstance(said.content, Clip)
    return {SPEECH: said.text}, {VIDEO: video(said.content)}, {"sentence": said, "clip": said.content}


def _tell_video(draw: Draw, generator: np.random.Generator) -> Draft:
    said = draw.sentence(("clip",), generator)
    assert isinstance(said.content, Clip)
    return {VIDEO: video(said.content)}, {SPEECH: said.text}, {"sentence": said, "clip": said.content}


def _answer_aloud(draw: Draw, generator: np.random.Generator) -> Draft:
    drawn = draw.spoken_sum(generator)
    asked, answered = problem.spoken_question(drawn), problem.spoken_answer(drawn)
    return {SPEECH: asked}, {SPEECH: answered}, {"sum": drawn, "question": asked, "answer": answered}


_DRAFTS: Mapping[str, Callable[[Draw, np.random.Generator], Draft]] = {
    "t2t": _solve,
    "i2t": _ask_picture,
    "v2t": _ask_video,
    "s2t": _hear,
    "t2i": _draw_picture,
    "i2i": _edit_picture,
    "v2i": _pick_frame,
    "s2i": _hear_picture,
    "t2v": _film,
    "i2v": _animate,
    "v2v": _edit_video,
    "s2v": _hear_video,
    "t2s": _speak,
    "i2s": _tell_picture,
    "v2s": _tell_video,
    "s2s": _answer_aloud,
    "ti2ti": _edit_and_tell,
}

TASKS: tuple[str, ...] = tuple(_DRAFTS)
"""The tasks that Emoji World has examples of."""
VIDEO_TASKS = frozenset(("v2t", "v2i", "t2v", "i2v", "v2v", "s2v", "v2s"))
"""Those that show videos."""
