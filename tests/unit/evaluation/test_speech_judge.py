"""The judge of speech: distances, rates and intervals, and what pocketsphinx hears in recorded clips."""

import importlib.util
import json
from importlib.resources import files

import jiwer
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynin.data.emoji_world.world import EmojiWorld
from dynin.errors import ConfigError, MediaError
from dynin.evaluation.metrics.speech import (
    normalise_words,
    recognise,
    shuffled_error_rate,
    word_distance,
    word_error_rate,
)
from dynin.media import audio

needs_recogniser = pytest.mark.skipif(
    importlib.util.find_spec("pocketsphinx") is None, reason='pocketsphinx is not installed: pip install "dynin[eval]"'
)
words = st.lists(st.sampled_from(["a", "dog", "cat", "on"]), min_size=1, max_size=8)


@given(words, words)
@settings(max_examples=60, deadline=None)
def test_the_rate_equals_that_of_jiwer(reference: list[str], hypothesis: list[str]) -> None:
    expected = jiwer.wer(" ".join(reference), " ".join(hypothesis))
    assert word_distance(reference, hypothesis) / len(reference) == pytest.approx(expected)


def test_a_right_answer_has_rate_zero_and_case_and_marks_do_not_count() -> None:
    errors = word_error_rate(["A dog, on a star!"], ["a dog on a star"])
    assert errors.rate == 0
    assert errors.ci95 == (0, 0)
    assert errors.num_words == 5
    assert normalise_words("What's  THIS?") == "what's this"


def test_the_interval_holds_the_rate_and_shrinks_with_more_sentences() -> None:
    rng = np.random.default_rng(0)
    few = [("a b c d", "a b c d" if rng.random() < 0.7 else "a x c d") for _ in range(20)]
    many = few * 20
    narrow, wide = (word_error_rate(*zip(*pairs, strict=True)) for pairs in (many, few))
    assert wide.ci95[0] <= wide.rate <= wide.ci95[1]
    assert narrow.ci95[1] - narrow.ci95[0] < (wide.ci95[1] - wide.ci95[0]) / 2


def test_the_floor_compares_with_another_sentence() -> None:
    sentences = ["a dog", "two cats", "green books"]
    assert word_error_rate(sentences, sentences).rate == 0
    assert shuffled_error_rate(sentences, sentences).rate == 1


@pytest.mark.parametrize(("references", "hypotheses"), [([], []), ([""], ["a"]), (["a", "b"], ["a"])])
def test_nothing_to_compare_is_an_error(references: list[str], hypotheses: list[str]) -> None:
    with pytest.raises(ConfigError, match="cannot compare"):
        word_error_rate(references, hypotheses)


def test_another_rate_is_refused() -> None:
    with pytest.raises(MediaError, match="16000 Hz"):
        recognise(audio.Audio(samples=torch.zeros(800), rate_hz=8000))


@needs_recogniser
def test_a_word_without_a_pronunciation_is_named() -> None:
    with pytest.raises(ConfigError, match="qwertz"):
        recognise(
            audio.Audio(samples=torch.zeros(1600), rate_hz=16000), "#JSGF V1.0;\ngrammar g;\npublic <s> = qwertz;\n"
        )


@needs_recogniser
def test_recorded_clips_are_understood_under_the_grammar() -> None:
    folder = files("dynin") / "assets" / "clips"
    rows = json.loads((folder / "clips.json").read_text())
    grammar = EmojiWorld(seed=0, split="held_out").grammar()
    heard = [recognise(audio.decode((folder / row["file"]).read_bytes()), grammar) for row in rows]
    assert word_error_rate([row["text"] for row in rows], heard).rate < 0.1


def test_a_sentence_is_right_when_every_word_is():
    errors = word_error_rate(["a dog", "a cat sits", "a star"], ["A dog.", "a cat", "a bell"])
    assert errors.sentences_right == pytest.approx(1 / 3)
