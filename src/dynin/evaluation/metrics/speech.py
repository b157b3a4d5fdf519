"""The judge of speech: what an independent recogniser understands, as a word error rate.

Enters: sounds at 16 kHz and the sentences they should say. Leaves: recognised words, word error rates with intervals.
Does not know codecs, models or how a sound was made. The recogniser is pocketsphinx with its own English model, under a
grammar or under its open language model; it has heard none of our voices.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from dynin.errors import ConfigError, MediaError
from dynin.media.audio import Audio

RATE_HZ = 16000
"""Rate the recogniser's acoustic model was trained at."""
NUM_RESAMPLES = 2000
"""Bootstrap resamples of an interval."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WordErrors:
    """A word error rate over sentences."""

    rate: float
    """Substituted, missing and added words, divided by the words of the references; may exceed 1."""
    ci95: tuple[float, float]
    """Interval by resampling sentences."""
    num_sentences: int
    num_words: int
    sentences_right: float
    """Share of sentences without an error."""


def recognise(audio: Audio, grammar: str | None = None) -> str:
    """Words an independent recogniser hears, in lower case.

    Args:
        audio: Mono sound at 16 kHz.
        grammar: JSGF grammar whose sentences alone may come out; None for the open language model.

    Returns:
        Words separated by single spaces; empty when nothing fits.

    Raises:
        MediaError: If the rate is not 16 kHz.
        ConfigError: If pocketsphinx is not installed, or the grammar is malformed or has words it cannot pronounce.
    """
    if audio.rate_hz != RATE_HZ:
        raise MediaError(f"the recogniser needs {RATE_HZ} Hz, received {audio.rate_hz}; resample it")
    decoder = _decoder(grammar)
    samples = (audio.samples.numpy() * 32767).clip(-32768, 32767).astype(np.int16)
    decoder.start_utt()
    decoder.process_raw(samples.tobytes(), no_search=False, full_utt=True)
    decoder.end_utt()
    found = decoder.hyp()
    return "" if found is None else normalise_words(re.sub(r"\(\d+\)", "", found.hypstr))


def word_error_rate(references: Sequence[str], hypotheses: Sequence[str], *, seed: int = 0) -> WordErrors:
    """Word error rate of all sentences together, with a bootstrap interval over sentences.

    Args:
        references: What should have been said.
        hypotheses: What was recognised, in the same order.
        seed: Of the resampling.

    Raises:
        ConfigError: If the lengths differ or there is no word to compare with.
    """
    pairs = [
        (normalise_words(reference).split(), normalise_words(hypothesis).split())
        for reference, hypothesis in zip(references, hypotheses, strict=False)
    ]
    words = np.array([len(reference) for reference, _ in pairs])
    if len(references) != len(hypotheses) or not pairs or words.sum() == 0:
        raise ConfigError(f"cannot compare {len(hypotheses)} hypotheses with {len(references)} references with words")
    errors = np.array([word_distance(reference, hypothesis) for reference, hypothesis in pairs])
    drawn = np.random.default_rng(seed).integers(len(pairs), size=(NUM_RESAMPLES, len(pairs)))
    rates = errors[drawn].sum(axis=1) / words[drawn].sum(axis=1).clip(min=1)
    low, high = np.quantile(rates, [0.025, 0.975])
    return WordErrors(
        rate=float(errors.sum() / words.sum()),
        ci95=(float(low), float(high)),
        num_sentences=len(pairs),
        num_words=int(words.sum()),
        sentences_right=float((errors == 0).mean()),
    )


def shuffled_error_rate(references: Sequence[str], hypotheses: Sequence[str], *, seed: int = 0) -> WordErrors:
    """The floor: each hypothesis is compared with another sentence's reference, as an unrelated sound would be."""
    shift = int(np.random.default_rng(seed).integers(1, max(2, len(references))))
    return word_error_rate([*references[shift:], *references[:shift]], hypotheses, seed=seed)


def word_distance(reference: Sequence[str], hypothesis: Sequence[str]) -> int:
    """Fewest substituted, missing and added words that turn one into the other.

    Source: Levenshtein, Soviet Physics Doklady 10 (1966).
    """
    row = list(range(len(hypothesis) + 1))
    for index, expected in enumerate(reference, start=1):
        before, row[0] = row[0], index
        for column, heard in enumerate(hypothesis, start=1):
            best = min(row[column] + 1, row[column - 1] + 1, before + (expected != heard))
            before, row[column] = row[column], best
    return row[-1]


def normalise_words(text: str) -> str:
    """Lower case, only letters, digits and apostrophes, single spaces."""
    return " ".join(re.sub(r"[^a-z0-9' ]+", " ", text.lower()).split())


def require_recogniser() -> Any:
    """The package pocketsphinx; ConfigError if it is not installed."""
    try:
        import pocketsphinx
    except ImportError as error:
        raise ConfigError('word error rates need pocketsphinx: pip install "dynin[eval]"') from error
    return pocketsphinx


@lru_cache(maxsize=4)
def _decoder(grammar: str | None) -> Any:
    """A pocketsphinx decoder; building one takes about a second."""
    pocketsphinx = require_recogniser()
    settings = {"loglevel": "FATAL", "cmn": "batch"}
    if grammar is None:
        return pocketsphinx.Decoder(**settings)
    decoder = pocketsphinx.Decoder(lm=None, **settings)
    unknown = sorted(word for word in _grammar_words(grammar) if decoder.lookup_word(word) is None)
    if unknown:
        raise ConfigError(f"the recogniser cannot pronounce {', '.join(unknown)}; use other words in the grammar")
    try:
        decoder.add_jsgf_string("world", grammar)
        decoder.activate_search("world")
    except (RuntimeError, ValueError) as error:
        raise ConfigError("the recogniser refused the grammar; check that it is JSGF") from error
    return decoder


def _grammar_words(grammar: str) -> set[str]:
    """Terminal words of a JSGF grammar."""
    rules = re.findall(r"<[^>]+>\s*=\s*([^;]*);", grammar)
    return {word for rule in rules for word in re.findall(r"[a-z']+", re.sub(r"<[^>]*>|/[^/]*/|\{[^}]*\}", " ", rule))}
