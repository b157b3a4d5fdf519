"""Spoken sentences to shards of codes, so that training the language model needs neither voices nor the codec.

Enters: a `SpeechCorpus` and a speech tokenizer. Leaves: one npz file with `text`, `voice`, `codes` (uint16, all
utterances one after another), `offsets` and the tokenizer's `fingerprint`. Does not know ids or tasks.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dynin.data.emoji_world.sentence_form import form_of
from dynin.data.emoji_world.voice import RATE_HZ, VOICE_TARGET, VOICES_TRAIN
from dynin.data.speech_corpus import SpeechCorpus
from dynin.media.audio import Audio, resample
from dynin.media.files import replace_whole

BATCH_SAMPLES = 16000 * 60
"""Samples encoded at once, padding included."""
TARGET_SHARE = 0.6
"""Share of the sentences of a corpus that the target voice speaks."""


SCARCE = 1000
"""A form of sentence with fewer sentences than this is said by the target voice as a whole."""
RATES = (0.8, 1.25)
"""Slowest and fastest playing of a varied utterance; its pitch goes with it."""
PLAIN_SHARE = 0.25
"""Share of the utterances of other voices that stay as they are."""
VARIED = "varied"
"""Added to the name of the voice of a varied utterance."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VariedCorpus:
    """A corpus in more voices than were spoken, by speed perturbation: played faster or slower, pitch and pace differ.

    The target voice stays, and is heard once more varied; of the other voices a share stays.

    Source:
        Ko et al., "Audio augmentation for speech recognition", Interspeech 2015.
    """

    corpus: SpeechCorpus
    sources: Int[np.ndarray, " N"]
    """The utterance of the corpus that each of these comes from."""
    rates: Float[np.ndarray, " N"]
    """How fast each is played; 1 leaves it as it is."""

    @classmethod
    def of(cls, corpus: SpeechCorpus, generator: np.random.Generator) -> "VariedCorpus":
        """Draw the rates."""
        is_target = np.array([voice == VOICE_TARGET for voice in corpus.voices])
        copies = np.flatnonzero(is_target)
        slowest, fastest = np.log(RATES)
        drawn = np.exp(generator.uniform(slowest, fastest, size=len(corpus) + len(copies)))
        is_plain = is_target | (generator.random(len(corpus)) < PLAIN_SHARE)
        rates = np.where(np.concatenate([is_plain, np.zeros(len(copies), dtype=bool)]), 1.0, drawn)
        return cls(corpus=corpus, sources=np.concatenate([np.arange(len(corpus)), copies]), rates=rates)

    def __len__(self) -> int:
        """Number of utterances."""
        return len(self.sources)

    @property
    def texts(self) -> tuple[str, ...]:
        """What is said."""
        return tuple(self.corpus.texts[source] for source in self.sources)

    @property
    def voices(self) -> tuple[str, ...]:
        """Who says it; a varied voice is no longer the voice it was."""
        return tuple(
            self.corpus.voices[source] + (f" {VARIED}" if rate != 1 else "")
            for source, rate in zip(self.sources, self.rates, strict=True)
        )

    def wave(self, index: int) -> Float[Tensor, " T"]:
        """Samples of one utterance in [-1, 1]."""
        wave = self.corpus.wave(int(self.sources[index]))
        if self.rates[index] == 1:
            return wave
        return resample(Audio(samples=wave, rate_hz=RATE_HZ), round(RATE_HZ / self.rates[index])).samples

    def lengths(self) -> Int[np.ndarray, " N"]:
        """Samples of each utterance, to within one."""
        return np.ceil(self.corpus.lengths()[self.sources] / self.rates).astype(np.int64)


@runtime_checkable
class BatchEncoder(Protocol):
    """What pre-tokenizing asks of a speech tokenizer."""

    def encode_batch(self, waves: Sequence[Float[Tensor, " _"]]) -> list[Int[Tensor, " _"]]:
        """Waveforms to codes."""
        ...

    def fingerprint(self) -> str:
        """A hash of configuration and weights."""
        ...


def encode_corpus(
    corpus: SpeechCorpus | VariedCorpus, tokenizer: BatchEncoder, report: Callable[[int], None] = lambda _: None
) -> list[Int[Tensor, " _"]]:
    """Codes of every utterance in the corpus's order; utterances of similar length share a batch.

    Args:
        corpus: Utterances at the tokenizer's rate.
        tokenizer: Encodes batches; each utterance gets the codes it gets alone.
        report: Called with the number of utterances done.
    """
    codes: dict[int, Tensor] = {}
    for chosen in length_batches(corpus.lengths()):
        encoded = tokenizer.encode_batch([corpus.wave(index) for index in chosen])
        codes.update(zip(chosen, encoded, strict=True))
        report(len(codes))
    return [codes[index] for index in range(len(corpus))]


def write_codes(
    path: Path, corpus: SpeechCorpus | VariedCorpus, codes: Sequence[Int[Tensor, " _"]], fingerprint: str
) -> None:
    """The shard of a corpus; the file appears whole or not at all."""
    offsets = np.concatenate([[0], np.cumsum([row.shape[0] for row in codes])]).astype(np.int64)
    with replace_whole(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(
            stream,
            text=np.array(corpus.texts),
            voice=np.array(corpus.voices),
            codes=torch.cat(list(codes)).numpy().astype(np.uint16),
            offsets=offsets,
            fingerprint=np.array(fingerprint),
        )


def length_batches(lengths: Int[np.ndarray, " N"]) -> Iterator[list[int]]:
    """Indices in groups of similar length, longest first, each at most `BATCH_SAMPLES` with padding."""
    order = np.argsort(-lengths, kind="stable").tolist()
    start = 0
    while start < len(order):
        size = max(1, int(BATCH_SAMPLES // max(1, lengths[order[start]])))
        yield order[start : start + size]
        start += size


def assign_voices(
    sentences: Sequence[str], generator: np.random.Generator, target_share: float = TARGET_SHARE
) -> list[tuple[str, str]]:
    """Each sentence with a training voice: the target voice for a share of them, the others evenly for the rest."""
    others = [name for name in VOICES_TRAIN if name != VOICE_TARGET]
    return [
        (text, VOICE_TARGET if generator.random() < target_share else others[int(generator.integers(len(others)))])
        for text in sentences
    ]


def with_scarce_in_target(items: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The same, and after them in the target voice what only others say of forms that have few sentences.

    Of eight sentences that tell the background, the target voice would else say five and never learn the others.
    """
    forms = [form_of(text) for text, _ in items]
    found = Counter(forms)
    spoken = {text for text, voice in items if voice == VOICE_TARGET}
    missing = [
        (text, VOICE_TARGET)
        for (text, _), form in zip(items, forms, strict=True)
        if form is not None and found[form] < SCARCE and text not in spoken
    ]
    return [*items, *dict.fromkeys(missing)]
