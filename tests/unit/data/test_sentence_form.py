"""Forms of sentences: every sentence that is drawn has the form it was drawn with, and forms keep their shares."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynin.data.emoji_world.artwork import NAMES
from dynin.data.emoji_world.sentence import WEIGHTS, sample_sentence
from dynin.data.emoji_world.sentence_form import form_of, weights_of
from dynin.data.emoji_world.voice import VOICE_TARGET
from dynin.data.pretokenize_speech import SCARCE, with_scarce_in_target


@settings(max_examples=200, deadline=None)
@given(kind=st.sampled_from(sorted(WEIGHTS)), seed=st.integers(0, 2**32 - 1))
def test_a_drawn_sentence_has_the_kind_that_it_was_drawn_with(kind, seed):
    text = sample_sentence(kind, NAMES, np.random.default_rng(seed)).text
    form = form_of(text)
    assert form is not None, text
    assert form[0] == kind, text


@pytest.mark.parametrize(
    "text", ["", "the quick brown fox", "a dog on a blue background then a cat on a red background"]
)
def test_what_the_domain_does_not_say_has_no_form(text):
    assert form_of(text) is None


def test_forms_keep_the_shares_that_they_have_in_the_domain_however_few_their_sentences_are():
    captions = [f"a {name} left of a {other} on a blue background" for name in NAMES[:20] for other in NAMES[20:40]]
    rare = ["the background is red", "two plus two is four"]
    texts = [*captions, *rare]
    weights = weights_of(texts)
    assert weights.sum() == pytest.approx(1)
    by_kind = Counter()
    for text, weight in zip(texts, weights, strict=True):
        by_kind[form_of(text)[0]] += weight
    assert by_kind["sum_answer"] / by_kind["pair"] == pytest.approx(WEIGHTS["sum_answer"] / WEIGHTS["pair"])
    assert by_kind["answer"] / by_kind["pair"] == pytest.approx(WEIGHTS["answer"] / 6 / WEIGHTS["pair"])


def test_texts_of_no_form_keep_their_share():
    weights = weights_of(["own words", "other words", "two plus two is four", "one plus two is three"])
    assert weights == pytest.approx([0.25] * 4)


def test_the_target_voice_says_all_of_a_scarce_form_and_nothing_twice():
    common = [(f"a {one} left of a {other} on a red background", "awb") for one in NAMES[:40] for other in NAMES[:40]]
    assert len(common) >= SCARCE
    scarce = [("the background is red", "awb"), ("the background is blue", VOICE_TARGET)]
    items = with_scarce_in_target([*common, *scarce, ("own words", "awb")])
    assert items[len(common) + 3 :] == [("the background is red", VOICE_TARGET)]
