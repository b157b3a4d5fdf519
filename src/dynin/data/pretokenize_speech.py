"""Spoken sentences to shards of codes, so that training the language model needs neither voices nor the codec.

Enters: a `SpeechCorpus` and a speech tokenizer. Leaves: one npz file with `text`, `voice`, `codes` (uint16, all
utterances one after another), `offsets` and the tokenizer's `fingerprint`. Does not know ids or tasks.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dynin.data.emoji_world.voice import VOICE_TARGET, VOICES_TRAIN
from dynin.data.speech_corpus import SpeechCorpus
from dynin.media.files import replace_whole

BATCH_SAMPLES = 16000 * 60
"""Samples encoded at once, padding included."""
TARGET_SHARE = 0.6
"""Share of the sentences of a corpus that the target voice speaks."""


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
    corpus: SpeechCorpus, tokenizer: BatchEncoder, report: Callable[[int], None] = lambda _: None
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


def write_codes(path: Path, corpus: SpeechCorpus, codes: Sequence[Int[Tensor, " _"]], fingerprint: str) -> None:
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
