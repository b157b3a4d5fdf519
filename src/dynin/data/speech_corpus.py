"""Spoken sentences on disk: made once by the voices, read many times by training and pre-tokenizing.

Enters: sentences with the names of voices, or corpus files. Leaves: `SpeechCorpus`. Does not know codes or networks.
"""

import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, Int16
from torch import Tensor

from dynin.data.emoji_world.voice import RATE_HZ, speak
from dynin.errors import MediaError, RequestError
from dynin.media.files import replace_whole

PAUSE = "pau"
"""flite's name of silence, which is no phone of a sentence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SpeechCorpus:
    """Utterances at 16 kHz, their sentences and voices."""

    texts: tuple[str, ...]
    voices: tuple[str, ...]
    phones: tuple[str, ...]
    """Phones of each sentence, separated by spaces; empty strings where they were not asked for."""
    offsets: Int[np.ndarray, " N1"]
    """Start of each utterance in `samples`, and the end of the last."""
    samples: Int16[np.ndarray, " T"]

    def __len__(self) -> int:
        """Number of utterances."""
        return len(self.texts)

    def wave(self, index: int) -> Float[Tensor, " T"]:
        """Samples of one utterance in [-1, 1]."""
        row = self.samples[self.offsets[index] : self.offsets[index + 1]]
        return torch.from_numpy(row.astype(np.float32) / 32768)

    def lengths(self) -> Int[np.ndarray, " N"]:
        """Samples of each utterance."""
        return np.diff(self.offsets)

    def write(self, path: Path) -> None:
        """One npz file, whole or not at all."""
        with replace_whole(path) as temporary, temporary.open("wb") as stream:
            np.savez(
                stream,
                text=np.array(self.texts),
                voice=np.array(self.voices),
                phones=np.array(self.phones),
                offsets=self.offsets,
                samples=self.samples,
            )

    @classmethod
    def read(cls, paths: Sequence[Path]) -> "SpeechCorpus":
        """Several files as one corpus; MediaError when a file is missing or no corpus."""
        if not paths:
            raise MediaError("no corpus file was given; make one with `synthesise`")
        texts: list[str] = []
        voices: list[str] = []
        phones: list[str] = []
        waves: list[np.ndarray] = []
        counts: list[np.ndarray] = []
        for path in paths:
            try:
                with np.load(path, allow_pickle=False) as part:
                    texts += part["text"].tolist()
                    voices += part["voice"].tolist()
                    phones += part["phones"].tolist()
                    waves.append(part["samples"])
                    counts.append(np.diff(part["offsets"]))
            except (OSError, KeyError, ValueError) as error:
                raise MediaError(f"{path} is no speech corpus ({error}); make one with `synthesise`") from error
        offsets = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
        return cls(
            texts=tuple(texts),
            voices=tuple(voices),
            phones=tuple(phones),
            offsets=offsets,
            samples=np.concatenate(waves),
        )


def synthesise(items: Iterable[tuple[str, str]], *, with_phones: bool = False) -> SpeechCorpus:
    """Speak (sentence, voice) pairs; see `voice.speak` for the errors."""
    texts, voices, phones, waves = [], [], [], []
    for text, voice in items:
        samples = speak(text, voice).samples.numpy()
        texts.append(text)
        voices.append(voice)
        phones.append(sentence_phones(text) if with_phones else "")
        waves.append((samples * 32768).round().clip(-32768, 32767).astype(np.int16))
    offsets = np.concatenate([[0], np.cumsum([len(wave) for wave in waves])]).astype(np.int64)
    samples_all = np.concatenate(waves) if waves else np.zeros(0, dtype=np.int16)
    return SpeechCorpus(
        texts=tuple(texts), voices=tuple(voices), phones=tuple(phones), offsets=offsets, samples=samples_all
    )


def sentence_phones(text: str) -> str:
    """The phones flite speaks for a sentence, separated by spaces, without pauses; RequestError without flite."""
    command = ["flite", "-voice", "kal16", "-ps", "-t", " ".join(text.split()), "-o", "none"]
    try:
        finished = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except FileNotFoundError as error:
        raise RequestError("the program 'flite' is not installed, which phones need: apt-get install flite") from error
    return " ".join(phone for phone in finished.stdout.split() if phone != PAUSE)


def duration_s(corpus: SpeechCorpus) -> float:
    """Seconds of all utterances together."""
    return float(corpus.offsets[-1]) / RATE_HZ
