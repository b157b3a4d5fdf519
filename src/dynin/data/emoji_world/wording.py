"""Words shared by captions, questions, edits and problems: numbers, noun phrases, ways to begin and to end.

Enters: names, sizes, numbers and a numpy generator. Leaves: phrases, and patterns that recognise them. Does not know:
scenes, tasks.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np

from dynin.data.emoji_world.artwork import ARTWORKS, NAMES, article, plural

_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = {20: "twenty", 30: "thirty", 40: "forty"}

MOST = 40
"""The greatest number that has words here."""


def number_words(number: int) -> str:
    """A number from 0 to 40 in words: "twenty three".

    Raises:
        ValueError: If the number is outside that range.
    """
    if not 0 <= number <= MOST:
        raise ValueError(f"number {number} has no words here; give one from 0 to {MOST}")
    if number < len(_UNITS):
        return _UNITS[number]
    tens, units = number // 10 * 10, number % 10
    return f"{_TENS[tens]} {_UNITS[units]}" if units else _TENS[tens]


@cache
def numbers_by_words() -> dict[str, int]:
    """The inverse of `number_words`, digits included."""
    return {**{number_words(n): n for n in range(MOST + 1)}, **{str(n): n for n in range(MOST + 1)}}


def noun(name: str, size: str) -> str:
    """A name with its size where that is worth saying: "small dog", "dog"."""
    return f"small {name}" if size == "small" else name


def one_of(name: str, size: str = "large") -> str:
    """Such as "a dog", "an owl", "a small dog"."""
    phrase = noun(name, size)
    return f"{article(phrase)} {phrase}"


def several_of(name: str, size: str, count: int) -> str:
    """Such as "three small dogs"."""
    return f"{number_words(count)} {noun(plural(name), size)}"


def on_background(colour: str) -> str:
    """Such as "on a blue background"."""
    return f"on {article(colour)} {colour} background"


def pick(choices: Sequence[str], generator: np.random.Generator) -> str:
    """One of several wordings."""
    return choices[int(generator.integers(len(choices)))]


def vary_form(text: str, generator: np.random.Generator, mark: str = ".") -> str:
    """Half of the time as it stands, else with a capital letter, and then mostly with a mark at the end."""
    draw = generator.random()
    if draw < 0.5:
        return text
    capital = text[0].upper() + text[1:]
    return capital if draw < 0.6 else capital + mark


def _alternatives(words: Sequence[str]) -> str:
    return "|".join(sorted((word.replace(" ", r"\s+") for word in words), key=len, reverse=True))


ARTICLE = r"(?:(?:an?|the|one)\s+)?"
SMALL = r"(?:(small|little|tiny|large|big)\s+)?"
NAME = f"({_alternatives(NAMES)})"
PLURAL = f"({_alternatives([artwork.plural for artwork in ARTWORKS])})"


def size_named(word: str | None) -> str:
    """The size that a word means; unmentioned is large."""
    return "small" if word in ("small", "little", "tiny") else "large"


@cache
def name_of_plural(several: str) -> str:
    """The name whose plural this is."""
    return next(artwork.name for artwork in ARTWORKS if artwork.plural == several)


def tidy(text: str) -> str:
    """Lower case, without marks at the ends of words, single spaces."""
    return " ".join(word.strip(".,;:!?\"'") for word in text.lower().split()).strip()
