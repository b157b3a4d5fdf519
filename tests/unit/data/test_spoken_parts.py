"""Sentences spoken in parts: different ones, none held out, none spoken twice, and no surprise halfway."""

import shutil
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest

from dynin.data import spoken_parts
from dynin.data.emoji_world.splits import is_sentence_held_out
from dynin.data.emoji_world.voice import VOICES_HELD_OUT
from dynin.data.pretokenize_speech import assign_voices
from dynin.data.speech_corpus import SpeechCorpus
from dynin.data.spoken_parts import distinct, general_sentences, speak_in_parts, world_sentences
from dynin.errors import RequestError

needs_flite = pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed: apt-get install flite")
ITEMS = [(f"sentence {index}", "slt") for index in range(7)]


@pytest.fixture
def spoken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stands in for the voices; lists what they were asked to say."""
    said: list[str] = []

    def synthesise(items: Sequence[tuple[str, str]], *, with_phones: bool = False) -> SpeechCorpus:
        texts, voices = (tuple(column) for column in zip(*items, strict=True))
        said.extend(texts)
        return SpeechCorpus(
            texts=texts,
            voices=voices,
            phones=tuple("d ao g" if with_phones else "" for _ in texts),
            offsets=np.arange(len(texts) + 1) * 10,
            samples=np.arange(len(texts) * 10).astype(np.int16),
        )

    monkeypatch.setattr(spoken_parts, "synthesise", synthesise)
    monkeypatch.setattr(spoken_parts, "require_programs", lambda voices: None)
    monkeypatch.setattr(spoken_parts, "PART_SENTENCES", 3)
    return said


def test_the_parts_together_are_the_corpus(tmp_path: Path, spoken: list[str]) -> None:
    done: list[int] = []
    corpus = speak_in_parts(ITEMS, tmp_path / "sounds", report=done.append)
    assert list(zip(corpus.texts, corpus.voices, strict=True)) == ITEMS
    assert done == [3, 6, 7]
    assert len(list((tmp_path / "sounds").iterdir())) == 3


def test_an_interrupted_run_speaks_only_what_is_missing(tmp_path: Path, spoken: list[str]) -> None:
    speak_in_parts(ITEMS[:6], tmp_path)
    spoken.clear()
    corpus = speak_in_parts(ITEMS, tmp_path)
    assert spoken == ["sentence 6"]
    assert len(corpus) == 7


def test_other_voices_or_phones_never_get_the_sound_of_others(tmp_path: Path, spoken: list[str]) -> None:
    speak_in_parts(ITEMS, tmp_path)
    assert set(speak_in_parts([(text, "awb") for text, _ in ITEMS], tmp_path).voices) == {"awb"}
    assert set(speak_in_parts(ITEMS, tmp_path, with_phones=True).phones) == {"d ao g"}


def test_nothing_is_spoken_where_a_program_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RequestError, match="apt-get install espeak-ng"):
        speak_in_parts([("a dog", "slt"), ("a cat", "en-us")], tmp_path / "sounds")
    with pytest.raises(RequestError, match="apt-get install flite"):
        speak_in_parts([("a dog", "slt")], tmp_path / "sounds")
    assert not (tmp_path / "sounds").exists()


def test_an_unknown_voice_and_no_sentence_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="unknown voice 'nobody'"):
        speak_in_parts([("a dog", "nobody")], tmp_path)
    with pytest.raises(RequestError, match="at least one"):
        speak_in_parts([], tmp_path)


def test_sentences_are_different_and_in_order() -> None:
    assert distinct(iter(["b", "a", "b", "c"]), 3) == ["b", "a", "c"]
    with pytest.raises(RequestError, match="only 2 different sentences, 3 were asked for"):
        distinct(cycle(["a", "b"]), 3)


def test_sentences_for_training_are_not_held_out_and_those_held_out_are_others() -> None:
    texts = world_sentences(300, seed=0, split="train")
    assert len(set(texts)) == 300
    assert texts[:50] == world_sentences(50, seed=0, split="train")
    assert not any(is_sentence_held_out(text) for text in (*texts, *general_sentences(300, seed=0)))
    assert not set(texts) & set(world_sentences(100, seed=0, split="held_out"))


def test_no_sentence_goes_to_a_held_out_voice() -> None:
    items = assign_voices([str(index) for index in range(500)], np.random.default_rng(0))
    assert not {voice for _, voice in items} & set(VOICES_HELD_OUT)


@pytest.mark.voices
@needs_flite
def test_sentences_are_spoken_and_read_again(tmp_path: Path) -> None:
    items = [("a dog", "slt"), ("two cats", "kal16")]
    first, again = (speak_in_parts(items, tmp_path, with_phones=True) for _ in range(2))
    assert first.phones == ("ax d ao g", "t uw k ae t s")
    assert np.array_equal(first.samples, again.samples)
    assert first.lengths().min() > 4000
