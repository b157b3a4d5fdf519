"""Captions and questions: examples word for word, wrong claims refused."""

import numpy as np
import pytest

from dynin.data.emoji_world import caption, clip_caption, question, wording
from dynin.data.emoji_world.clip import Clip
from dynin.data.emoji_world.question import Question
from dynin.data.emoji_world.scene import Scene, Thing


def thing(name, column, row, size="large"):
    return Thing(name=name, size=size, column=column, row=row)


PAIR = Scene(things=(thing("red apple", 2, 1), thing("dog", 0, 0)), background="blue")
TRIO = Scene(things=(thing("dog", 0, 0), thing("cat", 2, 0), thing("star", 2, 2)), background="orange")
ONE = Scene(things=(thing("owl", 3, 0, "small"),), background="white")
COUNT = Scene(things=(thing("fish", 0, 0), thing("fish", 2, 0), thing("fish", 0, 2)), background="red")


def test_canonical_captions_word_for_word():
    assert caption.canonical(PAIR) == "a dog left of a red apple on a blue background"
    assert caption.canonical(TRIO) == "a dog left of a cat with a star below the cat on an orange background"
    assert caption.canonical(ONE) == "a small owl on a white background"
    assert caption.canonical(COUNT) == "three fish on a red background"


@pytest.mark.parametrize(
    ("text", "is_right"),
    [
        ("a dog left of a red apple on a blue background", True),
        ("The dog left of an red apple on blue.", True),
        ("a red apple right of a dog on a blue background", True),
        ("a red apple to the right of a dog on a blue background", True),
        ("a dog left of a red apple on a green background", False),
        ("a dog right of a red apple on a blue background", False),
        ("a dog above a red apple on a blue background", False),
        ("a dog left of a green apple on a blue background", False),
        ("a small dog left of a red apple on a blue background", False),
        ("a dog on a blue background", False),
        ("a dog left of a red apple", False),
        ("a dog left of a red apple with a cat below the dog on a blue background", False),
    ],
)
def test_a_claim_is_right_only_if_every_slot_is(text, is_right):
    assert caption.describes(caption.parse(text), PAIR) is is_right


def test_any_true_telling_of_three_things_is_right():
    told = "a cat above a star with a dog left of the cat on an orange background"
    assert caption.describes(caption.parse(told), TRIO)
    assert not caption.describes(caption.parse(told.replace("above", "below")), TRIO)


@pytest.mark.parametrize("text", ["", "a dgo on a blue background", "hello", "<|endoftext|>", "a dog a cat on blue"])
def test_what_is_no_caption_is_not_understood(text):
    assert caption.parse(text) is None
    assert clip_caption.parse(text) is None


def test_a_diagonal_pair_has_no_caption():
    diagonal = Scene(things=(thing("dog", 0, 0), thing("cat", 2, 2)), background="red")
    assert not caption.is_describable(diagonal)
    with pytest.raises(ValueError, match="no clear relation"):
        caption.canonical(diagonal)


def test_clip_captions_word_for_word():
    star = thing("star", 2, 2, "small")
    moving = Clip(mover=thing("dog", 0, 0), motion="right", still=star, background="blue")
    assert clip_caption.canonical(moving) == "a dog moves right and a small star stays still on a blue background"
    growing = Clip(mover=thing("owl", 0, 0, "small"), motion="grows", still=None, background="orange")
    assert clip_caption.canonical(growing) == "an owl grows on an orange background"
    assert clip_caption.describes(clip_caption.parse("The owl gets bigger on orange."), growing)
    assert not clip_caption.describes(clip_caption.parse("an owl shrinks on an orange background"), growing)


@pytest.mark.parametrize(
    ("given", "expected", "is_right"),
    [
        ("2", "two", True),
        ("A dog.", "a dog", True),
        ("dog", "a dog", True),
        ("cat", "a dog", False),
        ("", "yes", False),
    ],
)
def test_answers_are_compared_by_meaning(given, expected, is_right):
    assert question.is_right(given, Question(topic="count", text="", answer=expected)) is is_right


def test_descriptions_are_compared_by_what_they_claim():
    asked = Question(topic="scene", text="", answer=caption.canonical(PAIR))
    assert question.is_right("a red apple right of the dog on blue", asked)
    assert not question.is_right("a red apple left of the dog on blue", asked)
    assert not question.is_right("nonsense", asked)


def test_numbers_have_words_up_to_forty():
    assert [wording.number_words(number) for number in (0, 13, 20, 21, 40)] == [
        "zero", "thirteen", "twenty", "twenty one", "forty",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="0 to 40"):
        wording.number_words(41)


def test_questions_have_the_answers_of_the_picture():
    generator = np.random.default_rng(0)
    seen = {}
    for _ in range(400):
        asked = question.ask_scene(TRIO, ("dog", "cat", "star", "key"), generator)
        seen.setdefault(asked.text.lower().rstrip("?."), set()).add(asked.answer)
    assert all(len(answers) == 1 for answers in seen.values())
    expected = {
        "how many keys are there": "zero",
        "what is left of the cat": "a dog",
        "is there a dog in the picture": "yes",
        "is the star below the cat": "yes",
        "what color is the background": "orange",
        "count the objects": "three",
    }
    assert {text: seen[text] for text in expected} == {text: {answer} for text, answer in expected.items()}
