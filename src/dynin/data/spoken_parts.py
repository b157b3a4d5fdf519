"""Many spoken sentences, made in parts, so that an interrupted making goes on where it was.

Enters: how many sentences of which world, in which voices. Leaves: (sentence, voice) pairs and their `SpeechCorpus`,
with the parts kept in a folder. Does not know codes or networks.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from dynin.data.emoji_world.sentences_general import general_sentence
from dynin.data.emoji_world.splits import Split, is_sentence_held_out
from dynin.data.emoji_world.voice import VOICES, find_program
from dynin.data.emoji_world.world import EmojiWorld
from dynin.data.speech_corpus import SpeechCorpus, synthesise
from dynin.errors import RequestError

PART_SENTENCES = 250
"""Sentences of a part; an interruption loses one part at most."""
MOST_REPEATS = 10_000
"""Repeated sentences in a row after which a source counts as spent."""

Items = Sequence[tuple[str, str]]
"""Sentences, each with the name of the voice that speaks it."""


def world_sentences(count: int, *, seed: int, split: Split, is_long: bool = False) -> list[str]:
    """The first different sentences of Emoji World in a split; RequestError if there are not so many.

    Args:
        is_long: Several sentences said as one; see `EmojiWorld.long_sentences`.
    """
    world = EmojiWorld(seed, split=split)
    return distinct(world.long_sentences() if is_long else world.sentences(), count)


def general_sentences(count: int, *, seed: int) -> list[str]:
    """Different plain English sentences outside the world, none of them held out; RequestError if not so many."""
    rng = np.random.default_rng(seed)

    def drawn() -> Iterator[str]:
        while True:
            text = general_sentence(rng)
            if not is_sentence_held_out(text):
                yield text

    return distinct(drawn(), count)


def distinct(texts: Iterator[str], count: int) -> list[str]:
    """The first `count` different texts in the order in which they come; RequestError if they run out."""
    seen: dict[str, None] = {}
    while len(seen) < count:
        before = len(seen)
        for text in islice(texts, MOST_REPEATS):
            seen[text] = None
            if len(seen) == count:
                break
        if len(seen) == before:
            raise RequestError(f"there are only {before} different sentences, {count} were asked for; ask for fewer")
    return list(seen)


def speak_in_parts(
    items: Items,
    folder: Path,
    *,
    with_phones: bool = False,
    report: Callable[[int], None] = lambda done: None,
) -> SpeechCorpus:
    """Speak the sentences, or read what was spoken before.

    A part's file is named after what it holds, so a folder can serve several sets and never gives another one's sound.

    Args:
        items: Sentences with their voices.
        folder: Made if it is missing; keeps one file for every 250 sentences.
        with_phones: Whether the corpus lists each sentence's phones; needs flite.
        report: Called after every part that was spoken now, with the number of sentences there are up to it.

    Raises:
        RequestError: If there are no sentences, a voice is unknown or its program is not installed; before any
            sentence is spoken.
        MediaError: If a program fails, or a part cannot be read.
    """
    if not items:
        raise RequestError("no sentence was given to speak; give at least one")
    require_programs({voice for _, voice in items} | ({"kal16"} if with_phones else set()))
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for start in range(0, len(items), PART_SENTENCES):
        part = items[start : start + PART_SENTENCES]
        path = folder / f"{_name(part, with_phones)}.npz"
        if not path.exists():
            synthesise(part, with_phones=with_phones).write(path)
            report(start + len(part))
        paths.append(path)
    return SpeechCorpus.read(paths)


def require_programs(voices: set[str]) -> None:
    """RequestError that names the first voice that is unknown or whose program is not installed."""
    for name in sorted(voices):
        if name not in VOICES:
            raise RequestError(f"unknown voice {name!r}; choose among {', '.join(VOICES)}")
        find_program(VOICES[name])


def _name(items: Items, with_phones: bool) -> str:
    """A file name that stands for these sentences, voices and phones."""
    told = json.dumps([with_phones, *([text, voice] for text, voice in items)])
    return hashlib.sha256(told.encode()).hexdigest()[:16]
