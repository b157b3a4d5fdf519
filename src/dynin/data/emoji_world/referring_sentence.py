"""Sentences about referring videos and stills in varied English: one of every family of which something can be said.

Enters: a `ReferringScene` and a numpy generator. Leaves: `Sentence` values: words, and the things they mean. Does not
know: pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dynin.data.emoji_world import referring_wording as words
from dynin.data.emoji_world.artwork import plural
from dynin.data.emoji_world.referring_claim import FAMILIES, THING, Claim, Family, Noun, claims, unique
from dynin.data.emoji_world.referring_denial import deny_several
from dynin.data.emoji_world.referring_motion import HEADINGS
from dynin.data.emoji_world.referring_scene import ReferringScene
from dynin.data.emoji_world.referring_still import still_claims
from dynin.data.emoji_world.scene import RELATIONS
from dynin.data.emoji_world.wording import number_words, pick, vary_form

ABSENT_SHARE = 0.4
"""How many of the sentences that mean nothing name a thing that is not there; the others deny a deed."""


STILL_DEEDS = ("leftmost", "rightmost", "highest", "lowest", *RELATIONS, "nearest", "farthest")
VIDEO_DEEDS = tuple(deed for deed in words.CLAUSES if deed not in STILL_DEEDS and deed not in ("behind", "before"))
"""What may be said of a thing that is not there; there may be no bar either."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sentence:
    """What is said, and what it means."""

    text: str
    family: Family
    targets: frozenset[int]
    """Indices of the things meant; empty where there is nothing of the kind."""
    claim: Claim
    """What the words were made from."""
    is_of_several: bool = False
    """Whether it means nothing although it speaks of several things; such a one comes beside the family's other."""

    @property
    def name(self) -> str:
        """What it is called among those of its video."""
        return f"{self.family}-several" if self.is_of_several else self.family


def write(
    scene: ReferringScene, names: Sequence[str], generator: np.random.Generator, *, denies_several: bool = False
) -> list[Sentence]:
    """One sentence of every family of which something can be said, in the order of the families.

    A scene of one frame is spoken of as a picture: of where things are, not of what they do.

    Args:
        names: Names of things that may be spoken of although they are not there.
        denies_several: Whether one more is written, of several things, that means nothing; the others stay as they are.
    """
    is_still = scene.num_frames == 1
    medium = "picture" if is_still else "video"
    sentences = _write(scene, still_claims(scene) if is_still else claims(scene), names, generator, medium)
    if denies_several:
        claim = deny_several(scene, names, generator)
        text = _told(claim, medium, generator)
        sentences.append(Sentence(text=text, family="none", targets=frozenset(), claim=claim, is_of_several=True))
    return sentences


def _write(
    scene: ReferringScene,
    made: dict[Family, list[Claim]],
    names: Sequence[str],
    generator: np.random.Generator,
    medium: str,
) -> list[Sentence]:
    sentences = []
    for family in FAMILIES:
        if family == "none" and (generator.random() < ABSENT_SHARE or not made["none"]):
            made["none"] = [absent(scene, names, generator)]
        if made[family]:
            claim = draw_claim(made[family], generator)
            text = _told(claim, medium, generator)
            sentences.append(Sentence(text=text, family=family, targets=claim.targets, claim=claim))
    return sentences


def _told(claim: Claim, medium: str, generator: np.random.Generator) -> str:
    text = tell(claim, medium, generator)
    return vary_form(text, generator, mark="" if text.endswith("?") else ".")


def draw_claim(choices: Sequence[Claim], generator: np.random.Generator) -> Claim:
    """One of several claims, first by its form and deed, so that rare ones are said as often as frequent ones."""
    keys = sorted({(claim.form, claim.deed) for claim in choices})
    forms = sorted({form for form, _ in keys})
    form = forms[int(generator.integers(len(forms)))]
    deeds = [deed for key_form, deed in keys if key_form == form]
    deed = deeds[int(generator.integers(len(deeds)))]
    fitting = [claim for claim in choices if (claim.form, claim.deed) == (form, deed)]
    return fitting[int(generator.integers(len(fitting)))]


def absent(scene: ReferringScene, names: Sequence[str], generator: np.random.Generator) -> Claim:
    """A claim about a thing that is not there: its name, half of the time with something that it does."""
    present = {track.name for track in scene.tracks}
    missing = [name for name in names if name not in present]
    noun = Noun(name=missing[int(generator.integers(len(missing)))])
    others = list(unique(scene).values())
    if generator.random() < 0.5 or not others:
        return Claim(family="none", form="plain", noun=noun, targets=frozenset())
    deeds = STILL_DEEDS if scene.num_frames == 1 else VIDEO_DEEDS
    return Claim(
        family="none",
        form="clause",
        noun=noun,
        targets=frozenset(),
        deed=deeds[int(generator.integers(len(deeds)))],
        heading=HEADINGS[int(generator.integers(len(HEADINGS)))],
        other=others[int(generator.integers(len(others)))],
    )


def tell(claim: Claim, medium: str, generator: np.random.Generator) -> str:
    """A claim in words.

    Args:
        medium: What is looked at: "video" or "picture".
    """
    is_several = claim.family == "several" and claim.form in ("plain", "clause", "rest")
    noun = _plural_noun(claim.noun) if is_several else _noun(claim.noun, generator)
    match claim.form:
        case "plain" if is_several:
            return _all(claim, noun, generator)
        case "plain":
            return pick(words.ONE_PLAIN, generator).format(noun=noun, medium=medium)
        case "rest":
            return pick(words.REST, generator).format(noun=noun)
        case "except":
            several = plural(claim.noun.name)
            return pick(words.EXCEPT, generator).format(noun=several, one=noun, clause=_clause(claim, generator))
        case "both":
            assert claim.other is not None
            other = _noun(claim.other, generator)
            return pick(words.BOTH, generator).format(noun=noun, other=other, clause=_clause(claim, generator))
        case "clause" if is_several:
            return pick(words.SEVERAL, generator).format(noun=noun, clause=_clause(claim, generator, is_several=True))
        case "clause":
            return pick(words.ONE, generator).format(noun=noun, clause=_clause(claim, generator))


def _clause(claim: Claim, generator: np.random.Generator, *, is_several: bool = False) -> str:
    clause = pick((words.PLURAL_CLAUSES if is_several else words.CLAUSES)[claim.deed], generator)
    values = {}
    if claim.other is not None and claim.form == "clause":
        values["other"] = _noun(claim.other, generator)
    if claim.deed == "crosses":
        values["from"], values["to"] = words.SIDE[claim.heading]
    if claim.deed == "edge":
        values["edge"] = words.EDGE[claim.heading]
    return clause.format(**values)


def _noun(noun: Noun, generator: np.random.Generator) -> str:
    if noun.name in words.CATEGORY_NOUNS:
        return words.CATEGORY_NOUNS[noun.name][0]
    size = pick(("small", "little") if noun.size == "small" else ("large", "big"), generator) if noun.size else ""
    return f"{size} {noun.name}".strip()


def _plural_noun(noun: Noun) -> str:
    if noun.name == THING:
        return "things"
    if noun.name in words.CATEGORY_NOUNS:
        return words.CATEGORY_NOUNS[noun.name][1]
    return plural(noun.name)


def _all(claim: Claim, noun: str, generator: np.random.Generator) -> str:
    """Several things by what they are; half of the time with their number."""
    count = len(claim.targets) or int(generator.integers(2, 5))
    if generator.random() < 0.5:
        return pick(words.SEVERAL_PLAIN, generator).format(noun=noun)
    if count == 2 and generator.random() < 0.5:
        return f"both {noun}"
    return f"the {number_words(count)} {noun}"
