"""Questions about pictures and videos, with their answers, and whether an answer is right.

Enters: `Scene` and `Clip` values, a numpy generator, text. Leaves: `Question` values. Does not know: pixels, splits,
tasks.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dynin.data.emoji_world import caption, clip_caption, wording
from dynin.data.emoji_world.artwork import plural
from dynin.data.emoji_world.clip import STEP_CELLS, Clip
from dynin.data.emoji_world.scene import OPPOSITE, RELATIONS, Relation, Scene, Thing, relation

Topic = Literal["scene", "count", "number", "beside", "where", "background", "is_there", "holds", "size", "motion"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """A question and its one right answer."""

    topic: Topic
    """What it asks for; "scene" asks for the whole description."""
    text: str
    answer: str


DESCRIBE_PICTURE = (
    "what is in the picture", "what do you see", "describe the picture", "what does the picture show",
    "describe this image", "what is in the image", "what can you see here", "tell me what is in the picture",
    "caption this picture", "what is this", "say what the picture shows", "give a description of the image",
)  # fmt: skip
DESCRIBE_VIDEO = (
    "what happens in the video", "what is in the video", "describe the video", "what do you see in the video",
    "what does the video show", "describe this clip", "tell me what happens", "caption this video",
    "what is going on in the video", "say what the video shows",
)  # fmt: skip
_COUNT = ("how many {plural} are there", "how many {plural} do you see", "count the {plural}")
_NUMBER = ("how many things are in the picture", "how many objects are there", "count the objects")
_BESIDE = ("what is {held} the {name}", "which thing is {held} the {name}", "what do you see {held} the {name}")
_WHERE = ("where is the {name}", "where do you see the {name}")
_BACKGROUND = (
    "what color is the background", "what colour is the background", "which color does the background have",
    "on what color is it",
)  # fmt: skip
_IS_THERE = ("is there {one} in the picture", "do you see {one}", "can you see {one} here")
_HOLDS = ("is the {name} {held} the {other}", "do you see the {name} {held} the {other}")
_SIZE = ("is the {name} large or small", "how big is the {name}", "what size is the {name}")
_DIRECTION = ("which way does the {name} move", "where does the {name} go", "in which direction does the {name} move")
_CHANGE = ("what does the {name} do", "what happens to the {name}")
_WHO = ("what moves", "which thing moves", "what is moving")
_WHO_STAYS = ("what stays still", "which thing does not move")


def _asked(text: str, generator: np.random.Generator) -> str:
    mark = "?" if text.split(maxsplit=1)[0] in _ASKING else "."
    return wording.vary_form(text, generator, mark)


_ASKING = {"what", "how", "which", "where", "is", "do", "does", "can", "on", "in"}


def describe_scene(scene: Scene, generator: np.random.Generator) -> Question:
    """Any way to ask for the whole picture; the answer is the canonical caption."""
    text = _asked(wording.pick(DESCRIBE_PICTURE, generator), generator)
    return Question(topic="scene", text=text, answer=caption.canonical(scene))


def describe_clip(clip: Clip, generator: np.random.Generator) -> Question:
    """Any way to ask for the whole video; the answer is the canonical caption."""
    text = _asked(wording.pick(DESCRIBE_VIDEO, generator), generator)
    return Question(topic="scene", text=text, answer=clip_caption.canonical(clip))


def ask_scene(scene: Scene, names: Sequence[str], generator: np.random.Generator) -> Question:
    """A question about one property of a picture.

    Args:
        names: Objects that may be asked for although the picture does not show them.
    """
    topics: list[Topic] = ["count", "number", "background", "is_there"]
    if scene.kind in ("pair", "trio"):
        topics += ["beside", "beside", "holds", "holds", "size"]
    if scene.kind == "one":
        topics.append("size")
    if scene.kind == "pair":
        topics.append("where")
    topic = topics[int(generator.integers(len(topics)))]
    thing = scene.things[int(generator.integers(len(scene.things)))]
    text, answer = _scene_question(topic, thing, scene, names, generator)
    return Question(topic=topic, text=_asked(text, generator), answer=answer)


def _scene_question(
    topic: Topic, thing: Thing, scene: Scene, names: Sequence[str], generator: np.random.Generator
) -> tuple[str, str]:
    counts = Counter(other.name for other in scene.things)
    match topic:
        case "count":
            name = thing.name if generator.random() < 0.75 else names[int(generator.integers(len(names)))]
            text = wording.pick(_COUNT, generator).format(plural=plural(name))
            return text, wording.number_words(counts[name])
        case "number":
            return wording.pick(_NUMBER, generator), wording.number_words(len(scene.things))
        case "is_there":
            name = thing.name if generator.random() < 0.5 else names[int(generator.integers(len(names)))]
            text = wording.pick(_IS_THERE, generator).format(one=wording.one_of(name))
            return text, _yes_or_no(counts[name] > 0)
        case "size":
            return wording.pick(_SIZE, generator).format(name=thing.name), thing.size
        case "beside" | "where" | "holds":
            return _relation_question(topic, scene, generator)
        case _:
            return wording.pick(_BACKGROUND, generator), scene.background


def _relation_question(topic: Topic, scene: Scene, generator: np.random.Generator) -> tuple[str, str]:
    """Questions whose answer is unique: each relation names one thing only, or is beyond doubt."""
    held = [
        (one, found, other)
        for one in scene.things
        for other in scene.things
        if one is not other and (found := relation(one, other)) is not None
    ]
    if topic == "beside":
        asked = Counter((found, other.name) for _, found, other in held)
        unique = [entry for entry in held if asked[entry[1], entry[2].name] == 1]
        one, found, other = unique[int(generator.integers(len(unique)))]
        text = wording.pick(_BESIDE, generator).format(held=found, name=other.name)
        return text, wording.one_of(one.name, one.size)
    one, found, other = held[int(generator.integers(len(held)))]
    if topic == "where":
        return wording.pick(_WHERE, generator).format(name=one.name), f"{found} the {other.name}"
    claimed: Relation = found
    if generator.random() < 0.5:
        claimed = OPPOSITE[found] if generator.random() < 0.5 else RELATIONS[int(generator.integers(len(RELATIONS)))]
    text = wording.pick(_HOLDS, generator).format(name=one.name, held=claimed, other=other.name)
    return text, _yes_or_no(claimed == found)


def ask_clip(clip: Clip, names: Sequence[str], generator: np.random.Generator) -> Question:
    """A question about one property of a video, motion most of all."""
    topics: list[Topic] = ["background", "is_there", "motion", "motion", "motion"]
    if clip.still is not None:
        topics.append("number")
    topic = topics[int(generator.integers(len(topics)))]
    text, answer = _clip_question(topic, clip, names, generator)
    return Question(topic=topic, text=_asked(text, generator), answer=answer)


def _clip_question(topic: Topic, clip: Clip, names: Sequence[str], generator: np.random.Generator) -> tuple[str, str]:
    shown = [clip.mover] if clip.still is None else [clip.mover, clip.still]
    if topic == "background":
        return wording.pick(_BACKGROUND, generator), clip.background
    if topic == "number":
        return "how many things are in the video", wording.number_words(len(shown))
    if topic == "is_there":
        thing = shown[int(generator.integers(len(shown)))]
        name = thing.name if generator.random() < 0.5 else names[int(generator.integers(len(names)))]
        answer = _yes_or_no(any(other.name == name for other in shown))
        return f"is there {wording.one_of(name)} in the video", answer
    return _motion_question(clip, generator)


def _motion_question(clip: Clip, generator: np.random.Generator) -> tuple[str, str]:
    name = clip.mover.name
    who = wording.one_of(name, clip_caption.slots(clip).size)
    draw = generator.random()
    if clip.motion in STEP_CELLS:
        if clip.still is not None and draw < 0.2:
            return wording.pick(_WHO_STAYS, generator), wording.one_of(clip.still.name, clip.still.size)
        if draw < 0.4:
            return wording.pick(_WHO, generator), who
        return wording.pick(_DIRECTION, generator).format(name=name), clip.motion
    if clip.motion == "still" and draw < 0.4:
        return f"does the {name} move", "no"
    return wording.pick(_CHANGE, generator).format(name=name), clip_caption.VERBS[clip.motion]


def _yes_or_no(is_true: bool) -> str:
    return "yes" if is_true else "no"


def is_right(given: str, question: Question) -> bool:
    """Whether an answer says the same as the expected one.

    Descriptions are compared by what they claim; elsewhere articles, capitals, marks and the spelling of numbers do not
    matter.
    """
    if question.topic == "scene":
        scene_claim = caption.parse(question.answer)
        if scene_claim is not None:
            return caption.parse(given) == scene_claim
        return clip_caption.parse(given) == clip_caption.parse(question.answer)
    return _reduced(given) == _reduced(question.answer)


def _reduced(text: str) -> list[str]:
    numbers = wording.numbers_by_words()
    words = [word for word in wording.tidy(text).split() if word not in ("a", "an", "the")]
    return [str(numbers.get(word, word)) for word in words]
