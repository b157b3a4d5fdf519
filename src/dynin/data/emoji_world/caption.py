"""Captions of still scenes: said in one canonical way, asked for in many, and read back.

Enters: `Scene` values, text. Leaves: text, `SceneSlots`. Does not know: pixels, splits, tasks.

Canonical captions follow from the picture alone: of a pair, the left or upper thing is named first.

    a small dog on a white background
    a dog left of a red apple on a blue background
    three stars on a red background
    a dog left of a cat with a star below the cat on a green background
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from dynin.data.emoji_world import wording
from dynin.data.emoji_world.scene import BACKGROUNDS, OPPOSITE, Relation, Scene, Thing, relation

RelationSlot = tuple[str, Relation, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneSlots:
    """What a caption claims."""

    things: tuple[tuple[str, str], ...]
    """Name and size of every thing, sorted."""
    relations: frozenset[RelationSlot]
    """Relations that are stated, said with "left of" and "above" only."""
    background: str | None
    """None where the caption does not say."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Telling:
    """The order in which a scene is told: things, and the relation by which each later one is placed."""

    things: tuple[Thing, ...]
    relations: tuple[tuple[int, Relation, int], ...]
    """(index of a thing, its relation, index of the other thing)."""


def upright(one: str, stated: Relation, other: str) -> RelationSlot:
    """A relation said with "left of" or "above"."""
    return (other, OPPOSITE[stated], one) if stated in ("right of", "below") else (one, stated, other)


def _tellings(scene: Scene) -> list[_Telling]:
    """Every way to tell a pair or trio, the canonical one first."""
    ordered = sorted(scene.things, key=lambda thing: (thing.row, thing.column))
    found: list[tuple[int, _Telling]] = []
    for things in permutations(ordered):
        first = relation(things[0], things[1])
        if first is None:
            continue
        opening = (0, first, 1)
        turned = int(first in ("right of", "below"))
        if len(things) == 2:
            found.append((turned, _Telling(things=things, relations=(opening,))))
            continue
        for anchor in (1, 0):
            second = relation(things[2], things[anchor])
            if second is not None:
                found.append((turned, _Telling(things=things, relations=(opening, (2, second, anchor)))))
    return [telling for _, telling in sorted(found, key=lambda item: item[0])]


def is_describable(scene: Scene) -> bool:
    """Whether the scene has a caption: pairs and trios need relations that hold beyond doubt."""
    return scene.kind in ("one", "count") or bool(_tellings(scene))


def _told(telling: _Telling, words: dict[str, str] | None = None) -> str:
    words = words or {}
    things = telling.things
    (_, first, _), *rest = telling.relations
    text = f"{_one(things[0])} {words.get(first, first)} {_one(things[1])}"
    for _, second, anchor in rest:
        text += f" with {_one(things[2])} {words.get(second, second)} the {things[anchor].name}"
    return text


def _one(thing: Thing) -> str:
    return wording.one_of(thing.name, thing.size)


def _content(scene: Scene) -> str:
    """The canonical caption without the background."""
    first = scene.things[0]
    if scene.kind == "one":
        return _one(first)
    if scene.kind == "count":
        return wording.several_of(first.name, first.size, len(scene.things))
    tellings = _tellings(scene)
    if not tellings:
        raise ValueError("the scene has no caption: its things are in no clear relation; ask is_describable first")
    return _told(tellings[0])


def canonical(scene: Scene) -> str:
    """The caption that answers "What is in the picture?".

    Raises:
        ValueError: If the scene is not describable.
    """
    return f"{_content(scene)} {wording.on_background(scene.background)}"


def slots(scene: Scene) -> SceneSlots:
    """What the canonical caption claims."""
    things = tuple(sorted((thing.name, thing.size) for thing in scene.things))
    stated: frozenset[RelationSlot] = frozenset()
    if scene.kind in ("pair", "trio"):
        telling = _tellings(scene)[0]
        stated = frozenset(
            upright(telling.things[i].name, held, telling.things[j].name) for i, held, j in telling.relations
        )
    return SceneSlots(things=things, relations=stated, background=scene.background)


def describes(claim: SceneSlots | None, scene: Scene) -> bool:
    """Whether a claim is exactly right: all things and no others, the background, and every relation it states.

    A pair needs one stated relation and a trio two; any that hold will do.
    """
    if claim is None or claim.background != scene.background:
        return False
    if Counter(claim.things) != Counter((thing.name, thing.size) for thing in scene.things):
        return False
    if scene.kind in ("one", "count"):
        return not claim.relations
    holding = {
        upright(one.name, held, other.name)
        for one, other in permutations(scene.things, 2)
        if (held := relation(one, other)) is not None
    }
    return len(claim.relations) == len(scene.things) - 1 and claim.relations <= holding


_LONGER: tuple[dict[str, str], ...] = (
    {"left of": "to the left of", "right of": "to the right of", "above": "over", "below": "under"},
    {"left of": "on the left of", "right of": "on the right of", "above": "above", "below": "beneath"},
)
_OPENINGS = (
    "draw {}", "please draw {}", "paint {}", "a picture of {}", "make a picture of {}", "show me {}", "show {}",
    "create an image of {}", "generate a picture with {}", "i want to see {}", "an image of {}", "can you draw {}",
)  # fmt: skip
_GROUNDS = (
    "{content} {ground}", "{content} {ground}", "{content} on {colour}", "{content} with {a} {colour} background",
    "{content} in front of {a} {colour} background", "{ground}, {content}", "{content}, {colour} background",
)  # fmt: skip
PLAIN_SHARE = 0.4
"""Share of prompts in the plain form of a caption."""


def plain(scene: Scene, generator: np.random.Generator) -> str:
    """A caption in plain words that may name the things in any order."""
    if scene.kind in ("one", "count"):
        return canonical(scene)
    tellings = _tellings(scene)
    told = _told(tellings[int(generator.integers(len(tellings)))])
    return f"{told} {wording.on_background(scene.background)}"


def prompt(scene: Scene, generator: np.random.Generator) -> str:
    """A request for the scene, in varied wording.

    Raises:
        ValueError: If the scene is not describable.
    """
    if generator.random() < PLAIN_SHARE:
        return plain(scene, generator)
    if scene.kind in ("one", "count"):
        content = _content(scene)
    else:
        tellings = _tellings(scene)
        telling = tellings[int(generator.integers(len(tellings)))]
        words = _LONGER[int(generator.integers(len(_LONGER)))] if generator.random() < 0.5 else None
        content = _told(telling, words)
    colour = scene.background
    text = wording.pick(_GROUNDS, generator).format(
        content=content, ground=wording.on_background(colour), colour=colour, a=wording.article(colour)
    )
    if generator.random() < 0.6 and not text.startswith("on "):
        text = wording.pick(_OPENINGS, generator).format(text)
    return wording.vary_form(text, generator, "?" if text.startswith("can ") else ".")


_RELATION = r"(?:(?:to|on)\s+the\s+)?(left\s+of|right\s+of|above|over|below|under|beneath|underneath)"
_RELATION_WORDS: dict[str, Relation] = {
    "over": "above", "above": "above", "under": "below", "beneath": "below", "underneath": "below", "below": "below",
    "left of": "left of", "right of": "right of",
}  # fmt: skip
_THING = wording.ARTICLE + wording.SMALL + wording.NAME
_COLOURS = "|".join(BACKGROUNDS)
_GROUND = rf"(?:(?:on|with|in\s+front\s+of|against)\s+{wording.ARTICLE})?({_COLOURS})(?:\s+background)?"
_LEAD = (
    r"(?:(?:please\s+)?(?:draw|paint|show\s+me|show|create|make|generate|i\s+want\s+to\s+see|can\s+you\s+draw|there\s+is"
    r"|there\s+are|i\s+see|this\s+is|(?:the|this)\s+(?:picture|image)\s+shows)\s+)?"
    r"(?:an?\s+(?:picture|image)\s+(?:of|with)\s+)?"
)
_PATTERN = re.compile(
    rf"{_LEAD}(?:{_GROUND}\s+)?"
    rf"(?:(two|three|2|3)\s+{wording.SMALL}{wording.PLURAL}"
    rf"|{_THING}(?:\s+{_RELATION}\s+{_THING}(?:\s+(?:with|and)\s+{_THING}\s+{_RELATION}\s+{_THING})?)?)"
    rf"(?:\s+{_GROUND})?"
)
_COUNTS = {"two": 2, "2": 2, "three": 3, "3": 3}


def parse(text: str) -> SceneSlots | None:
    """Read a caption or a request; articles, capitals and marks do not matter. None where it is not understood."""
    match = _PATTERN.fullmatch(wording.tidy(text))
    if match is None:
        return None
    groups = [None if group is None else " ".join(group.split()) for group in match.groups()]
    before, count, several_size, several, *things, after = groups
    if before is not None and after is not None:
        return None
    background = after if before is None else before
    if count is not None:
        assert several is not None
        thing = (wording.name_of_plural(several), wording.size_named(several_size))
        return SceneSlots(things=(thing,) * _COUNTS[count], relations=frozenset(), background=background)
    return _parse_things(things, background)


def _parse_things(groups: Sequence[str | None], background: str | None) -> SceneSlots | None:
    """Slots of (size, name), relation, (size, name), (size, name), relation, (anchor's size, anchor's name)."""
    first_size, first, held, second_size, second, third_size, third, third_held, _, anchor = groups
    assert first is not None
    things = [(first, wording.size_named(first_size))]
    stated: set[RelationSlot] = set()
    if second is not None and held is not None:
        things.append((second, wording.size_named(second_size)))
        stated.add(upright(first, _RELATION_WORDS[held], second))
    if third is not None and third_held is not None and anchor is not None:
        if anchor not in (first, second):
            return None
        things.append((third, wording.size_named(third_size)))
        stated.add(upright(third, _RELATION_WORDS[third_held], anchor))
    return SceneSlots(things=tuple(sorted(things)), relations=frozenset(stated), background=background)
