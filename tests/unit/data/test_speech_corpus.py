"""Corpora and shards of codes: what is written is read, and bad files are refused."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dynin.data.emoji_world.sentences_general import general_sentence
from dynin.data.emoji_world.voice import VOICES_HELD_OUT
from dynin.data.pretokenize_speech import (
    BATCH_SAMPLES,
    VariedCorpus,
    assign_voices,
    encode_corpus,
    length_batches,
    write_codes,
)
from dynin.data.speech_corpus import SpeechCorpus, duration_s, sentence_phones, synthesise
from dynin.data.utterances import Utterances
from dynin.errors import MediaError

needs_flite = pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed: apt-get install flite")


class CountingEncoder:
    """One code per 640 samples: the utterance's length modulo 7."""

    def encode_batch(self, waves: Sequence[Tensor]) -> list[Tensor]:
        return [torch.full((-(-wave.shape[0] // 640),), wave.shape[0] % 7) for wave in waves]

    def fingerprint(self) -> str:
        return "counting"


def _corpus(lengths: Sequence[int]) -> SpeechCorpus:
    return SpeechCorpus(
        texts=tuple(f"sentence {index}" for index in range(len(lengths))),
        voices=("slt",) * len(lengths),
        phones=("",) * len(lengths),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        samples=(np.arange(sum(lengths)) % 1000).astype(np.int16),
    )


def test_several_files_are_read_as_one_corpus(tmp_path: Path) -> None:
    first, second = _corpus([100, 200]), _corpus([50])
    first.write(tmp_path / "a.npz")
    second.write(tmp_path / "b.npz")
    both = SpeechCorpus.read([tmp_path / "a.npz", tmp_path / "b.npz"])
    assert len(both) == 3
    assert both.lengths().tolist() == [100, 200, 50]
    assert torch.equal(both.wave(2), second.wave(0))
    assert duration_s(both) == 350 / 16000


def test_a_foreign_file_and_no_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"no corpus")
    for paths in ([tmp_path / "a.npz"], [tmp_path / "b.npz"], []):
        with pytest.raises(MediaError, match="synthesise"):
            SpeechCorpus.read(paths)


def test_batches_hold_every_utterance_once_and_stay_small() -> None:
    lengths = np.array([1, 16000 * 100, 16000, 16000, 32000, 5])
    batches = list(length_batches(lengths))
    assert sorted(index for batch in batches for index in batch) == list(range(6))
    assert all(len(batch) == 1 or len(batch) * lengths[batch].max() <= BATCH_SAMPLES for batch in batches)


def test_a_shard_keeps_the_order_of_the_corpus(tmp_path: Path) -> None:
    corpus, encoder = _corpus([641, 6400, 1280]), CountingEncoder()
    codes = encode_corpus(corpus, encoder)
    write_codes(tmp_path / "codes.npz", corpus, codes, encoder.fingerprint())
    shard = Utterances.read(tmp_path / "codes.npz")
    assert [shard.codes(index).tolist() for index in range(3)] == [[641 % 7] * 2, [6400 % 7] * 10, [1280 % 7] * 2]
    assert list(shard.texts) == list(corpus.texts)


def test_training_sentences_never_get_a_held_out_voice() -> None:
    items = assign_voices(["a dog"] * 2000, np.random.default_rng(0))
    voices = [voice for _, voice in items]
    assert not set(voices) & set(VOICES_HELD_OUT)
    assert 0.55 < voices.count("slt") / 2000 < 0.65


def test_general_sentences_are_short_and_plain() -> None:
    rng = np.random.default_rng(0)
    sentences = [general_sentence(rng) for _ in range(500)]
    assert len(set(sentences)) > 400
    assert all(2 < len(text.split()) <= 14 for text in sentences)
    assert all(text == text.lower() and text.replace(" ", "").isalpha() for text in sentences)


@pytest.mark.voices
@needs_flite
def test_sentences_are_spoken_with_their_phones() -> None:
    corpus = synthesise([("a dog", "slt"), ("two cats", "kal16")], with_phones=True)
    assert corpus.phones == (sentence_phones("a dog"), "t uw k ae t s")
    assert corpus.voices == ("slt", "kal16")
    assert corpus.lengths().min() > 4000


def test_varied_voices_are_told_apart_and_the_target_voice_stays():
    corpus = SpeechCorpus(
        texts=("one", "two", "three"),
        voices=("slt", "awb", "kal16"),
        phones=("", "", ""),
        offsets=np.array([0, 1600, 4800, 8000]),
        samples=np.random.default_rng(0).integers(-9000, 9000, 8000).astype(np.int16),
    )
    varied = VariedCorpus.of(corpus, np.random.default_rng(5))
    assert varied.texts == ("one", "two", "three", "one")
    assert varied.voices[0] == "slt"
    assert varied.voices[3] == "slt varied"
    for index, (rate, voice, length) in enumerate(zip(varied.rates, varied.voices, varied.lengths(), strict=True)):
        assert 0.8 <= rate <= 1.25
        assert voice.endswith(" varied") == (rate != 1)
        assert abs(len(varied.wave(index)) - length) <= 1
    assert torch.equal(varied.wave(0), corpus.wave(0))
