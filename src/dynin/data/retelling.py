"""From a sentence back to something it tells: a new picture or video for a caption, the answer to a sum.

Enters: sentences of the spoken domain. Leaves: pictures, videos and answers drawn to fit. Does not know sounds.
Captions are those of training: what a caption of a picture says decides whether it is held out, but a still thing in a
video may come to lie in a held-out relation that the caption leaves open, so such videos are drawn again.
"""

import numpy as np
from jaxtyping import Float
from torch import Tensor

from dynin.data.emoji_world import caption, clip_caption, problem, wording
from dynin.data.emoji_world.clip import Clip, is_in_view
from dynin.data.emoji_world.scene import Scene, Size, Thing, overlap, places
from dynin.data.emoji_world.splits import is_clip_held_out
from dynin.data.emoji_world.world import picture, video
from dynin.errors import RequestError
from dynin.media.video import Video

MOST_DRAWS = 5000
"""Draws of places after which a caption counts as impossible."""


def picture_of(text: str, generator: np.random.Generator, *, is_canonical: bool) -> Float[Tensor, "3 64 64"]:
    """A picture that a caption describes.

    Args:
        is_canonical: Whether the caption must be the very one that describes the picture.

    Raises:
        RequestError: If the sentence is no caption of a picture.
    """
    slots = caption.parse(text)
    if slots is None or slots.background is None:
        raise RequestError(f"{text!r} is no caption of a picture with a background")
    for _ in range(MOST_DRAWS):
        things = tuple(
            Thing(name=name, size=_size(size), column=column, row=row)
            for name, size in slots.things
            for column, row in [_any_place(_size(size), generator)]
        )
        scene = Scene(things=things, background=slots.background)
        if any(overlap(one, other) for index, one in enumerate(things) for other in things[:index]):
            continue
        if not caption.is_describable(scene) or not caption.describes(slots, scene):
            continue
        if not is_canonical or caption.canonical(scene) == text:
            return picture(scene)
    raise RequestError(f"no picture fits the caption {text!r}")


def video_of(text: str, generator: np.random.Generator, *, is_canonical: bool) -> Video:
    """A video that a caption describes and that is not held out; captions of videos are always canonical.

    Raises:
        RequestError: If the sentence is no caption of a video, or what it says is held out.
    """
    del is_canonical
    slots = clip_caption.parse(text)
    if slots is None or slots.background is None:
        raise RequestError(f"{text!r} is no caption of a video with a background")
    size = _size("small" if slots.motion == "grows" else slots.size)
    for _ in range(MOST_DRAWS):
        column, row = (int(value) for value in generator.integers(-1, 5, size=2))
        still = None
        if slots.still is not None:
            name, still_size = slots.still
            still_column, still_row = _any_place(_size(still_size), generator)
            still = Thing(name=name, size=_size(still_size), column=still_column, row=still_row)
        clip = Clip(
            mover=Thing(name=slots.mover, size=size, column=column, row=row),
            motion=slots.motion,
            still=still,
            background=slots.background,
        )
        if is_in_view(clip) and not is_clip_held_out(clip):
            return video(clip)
    raise RequestError(f"no video that may be trained on fits the caption {text!r}")


def answer_of(question: str) -> str:
    """The spoken answer to a spoken sum: "what is two plus three" to "two plus three is five".

    Raises:
        RequestError: If the sentence is no sum of one step.
    """
    numbers = wording.numbers_by_words()
    signs = {"plus": "+", "minus": "-", "times": "x"}
    words = question.removeprefix("what is ").split()
    place = next((index for index, word in enumerate(words) if word in signs), 0)
    first, second = " ".join(words[:place]), " ".join(words[place + 1 :])
    if first not in numbers or second not in numbers:
        raise RequestError(f"{question!r} is no spoken sum of one step")
    operator: problem.Operator = {"plus": "+", "minus": "-", "times": "x"}[words[place]]  # type: ignore[assignment]
    return problem.spoken_answer(problem.Sum(first=numbers[first], steps=((operator, numbers[second]),)))


def kind_of(sentence: str) -> str:
    """What a sentence tells: "canonical picture", "picture", "video", "sum", or "" for anything else."""
    clip = clip_caption.parse(sentence)
    if clip is not None and clip.background is not None:
        return "video"
    slots = caption.parse(sentence)
    if slots is not None and slots.background is not None:
        return "canonical picture" if _is_upright(sentence) else "picture"
    try:
        answer_of(sentence)
    except RequestError:
        return ""
    return "sum"


def _is_upright(sentence: str) -> bool:
    """Whether a caption names the left or upper thing first, as canonical ones do."""
    return " right of " not in sentence and " below " not in sentence


def _size(word: str) -> Size:
    return "small" if word == "small" else "large"


def _any_place(size: Size, generator: np.random.Generator) -> tuple[int, int]:
    """A (column, row) at which a thing of this size lies inside the canvas."""
    choices = places(size)
    return choices[int(generator.integers(len(choices)))]
