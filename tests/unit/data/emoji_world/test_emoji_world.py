"""The world: every task has examples, fixed by seed, split, task and index."""

import re
from itertools import islice

import pytest
import torch

from dynin.data.emoji_world import caption, clip_caption, question
from dynin.data.emoji_world.problem import solution
from dynin.data.emoji_world.sentence import JOINING, LONG_WORDS, MOST_WORDS, grammar
from dynin.data.emoji_world.splits import is_scene_held_out, is_sentence_held_out
from dynin.data.emoji_world.world import TASKS, VIDEO_TASKS, EmojiWorld
from dynin.data.example import Example
from dynin.errors import ConfigError, RequestError
from dynin.media.audio import Audio
from dynin.media.video import Video
from dynin.sequence.task import EMBEDDED_TASKS
from dynin.types import Modality

TEXT, IMAGE, VIDEO, SPEECH = Modality.TEXT, Modality.IMAGE, Modality.VIDEO, Modality.SPEECH


def values(example):
    return [*example.condition.items(), *example.target.items()]


def same(one, other):
    if isinstance(one, Video):
        return torch.equal(one.frames, other.frames)
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def test_the_tasks_are_those_of_the_task_table():
    assert set(TASKS) == set(EMBEDDED_TASKS)


@pytest.mark.parametrize("task", TASKS)
def test_an_example_has_the_modalities_of_its_task(task):
    for split in ("train", "held_out"):
        drawn = EmojiWorld(0, split).sentence(task, 5)
        assert set(drawn.condition) == set(EMBEDDED_TASKS[task].conditions)
        assert set(drawn.target) == set(EMBEDDED_TASKS[task].targets)
        for modality, value in values(drawn):
            if modality == IMAGE:
                assert value.shape == (3, 64, 64)
                assert value.dtype == torch.float32
                assert -1 <= value.min() < value.max() <= 1
            elif modality == VIDEO:
                assert value.frames.shape == (4, 3, 64, 64)
                assert value.rate_hz == 4
            else:
                assert value.strip()


@pytest.mark.parametrize("task", TASKS)
def test_examples_repeat_themselves_and_differ_between_indices_and_seeds(task):
    first, again, other, elsewhere = (
        EmojiWorld(seed).sentence(task, index) for seed, index in ((3, 7), (3, 7), (3, 8), (4, 7))
    )
    assert all(same(one, two) for (_, one), (_, two) in zip(values(first), values(again), strict=True))
    assert repr(first.truth) == repr(again.truth)
    assert len({repr(example.truth) for example in (first, other, elsewhere)}) == 3


def test_speech_is_said_by_the_given_voice():
    said = []

    def speak(text: str) -> Audio:
        said.append(text)
        return Audio(samples=torch.zeros(160), rate_hz=16000)

    drawn = EmojiWorld(0, speak=speak).example("s2s", 0)
    assert isinstance(drawn.condition[SPEECH], Audio)
    assert said == [drawn.truth["question"], drawn.truth["answer"]]


def test_without_a_voice_speech_is_refused():
    with pytest.raises(RequestError, match="speak"):
        EmojiWorld(0).example("t2s", 0)
    assert isinstance(EmojiWorld(0).example("t2i", 0), Example)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"seed": -1}, "seed is -1"),
        ({"seed": 0, "num_objects": 101}, "to 100"),
        ({"seed": 0, "max_things": 4}, "1 to 3"),
        ({"seed": 0, "num_cells": 3}, "num_cells is 3; give a number from 4 to 16"),
    ],
)
def test_settings_out_of_range_are_named(settings, words):
    with pytest.raises(ConfigError, match=words):
        EmojiWorld(**settings)


def test_unknown_tasks_and_indices_are_named():
    with pytest.raises(RequestError, match="'t2x'"):
        EmojiWorld(0).example("t2x", 0)
    with pytest.raises(RequestError, match="index is -1"):
        EmojiWorld(0).example("t2i", -1)


def test_a_world_of_one_thing_shows_one_thing():
    world = EmojiWorld(0, max_things=1)
    for task in ("t2i", "i2t", "i2i", "ti2ti", "s2i", "i2s"):
        for index in range(20):
            assert len(world.sentence(task, index).truth["scene"].things) == 1
    assert all(world.example("t2v", index).truth["clip"].still is None for index in range(20))


def test_the_answers_are_those_of_the_truth():
    world = EmojiWorld(1, "held_out")
    for index in range(15):
        asked = world.example("i2t", index)
        assert question.is_right(asked.target[TEXT], asked.truth["question"])
        told = world.example("ti2ti", index)
        assert caption.describes(caption.parse(told.target[TEXT]), told.truth["edit"].target)
        asked_for = world.example("t2i", index)
        assert caption.describes(caption.parse(asked_for.condition[TEXT]), asked_for.truth["scene"])
        filmed = world.example("t2v", index)
        assert clip_caption.describes(clip_caption.parse(filmed.condition[TEXT]), filmed.truth["clip"])
        solved = world.example("t2t", index)
        assert solved.target[TEXT] == solution(solved.truth["problem"], solved.truth["is_thinking"])
        assert solved.condition[TEXT].endswith(" /think" if solved.truth["is_thinking"] else " /no_think")


def test_an_animated_picture_is_the_first_frame_and_a_picked_frame_is_one_of_the_video():
    world = EmojiWorld(2)
    for index in range(10):
        animated = world.example("i2v", index)
        assert torch.equal(animated.condition[IMAGE], animated.target[VIDEO].frames[0])
        picked = world.example("v2i", index)
        assert torch.equal(picked.target[IMAGE], picked.condition[VIDEO].frames[picked.truth["frame"]])


def test_shares_are_as_documented():
    world = EmojiWorld(0)
    thinking = [world.example("t2t", index).truth["is_thinking"] for index in range(300)]
    assert 0.58 < sum(thinking) / 300 < 0.75
    topics = [world.example("i2t", index).truth["question"].topic for index in range(300)]
    assert 0.62 < topics.count("scene") / 300 < 0.78


@pytest.mark.parametrize("split", ["train", "held_out"])
@pytest.mark.parametrize("task", sorted(set(TASKS) - VIDEO_TASKS))
def test_a_larger_world_has_larger_pictures_of_the_same_split(task, split):
    world = EmojiWorld(0, split, num_cells=8)
    for index in range(10):
        drawn = world.sentence(task, index)
        assert all(value.shape == (3, 128, 128) for modality, value in values(drawn) if modality == IMAGE)
        if "scene" in drawn.truth and "sentence" not in drawn.truth:
            assert is_scene_held_out(drawn.truth["scene"]) == (split == "held_out")


@pytest.mark.parametrize("task", sorted(VIDEO_TASKS))
def test_videos_of_another_size_are_refused(task):
    with pytest.raises(RequestError, match=f"task {task} shows videos.* num_cells is 8; .* choose one of t2t"):
        EmojiWorld(0, num_cells=8).sentence(task, 0)
    assert VIDEO in {modality for modality, _ in values(EmojiWorld(0).sentence(task, 0))}


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_long_sentences_are_made_of_sentences_of_the_split_and_at_least_twice_as_long(split):
    usual = grammar_pattern(EmojiWorld(0).grammar())
    for text in islice(EmojiWorld(3, split).long_sentences(), 20):
        parts = text.split(JOINING)
        num_words = sum(len(part.split()) for part in parts)
        assert LONG_WORDS[0] <= num_words <= LONG_WORDS[1]
        assert all(usual.fullmatch(part + " ") for part in parts)
        assert split == "held_out" or not is_sentence_held_out(text)


def test_the_grammar_of_long_sentences_joins_the_usual_ones():
    usual, joined = (EmojiWorld(0, is_long=is_long).grammar().splitlines() for is_long in (False, True))
    assert [line.removeprefix("public ") for line in usual] == [line for line in joined if "public" not in line]
    assert [line for line in joined if "public" in line] == ["public <sentences> = <sentence> (then <sentence>)*;"]


def test_a_world_of_long_sentences_says_them_word_for_word_and_leaves_the_rest():
    world, usual = EmojiWorld(0, is_long=True), EmojiWorld(0)
    assert [world.sentence("t2s", index).target[SPEECH] for index in range(3)] == list(
        islice(usual.long_sentences(), 3)
    )
    assert JOINING in world.sentence("s2t", 0).condition[SPEECH]
    assert repr(world.sentence("s2i", 0).truth) == repr(usual.sentence("s2i", 0).truth)


def grammar_pattern(text):
    """The grammar as one regular expression over words that each end in a space."""
    rules = {}
    for line in text.splitlines()[2:]:
        name, body = line.removeprefix("public ").rstrip(";").split(" = ", 1)
        rules[name] = body

    def expand(body):
        tokens = re.findall(r"<\w+>|\[|\]|\||\w+", body)
        places = {"[": "(?:", "]": ")?", "|": "|"}
        parts = [places.get(token) or (expand(rules[token]) if token in rules else token + " ") for token in tokens]
        return f"(?:{''.join(parts)})"

    return re.compile(expand(rules["<sentence>"]))


def test_the_grammar_knows_all_that_is_said_and_not_everything():
    world = EmojiWorld(0)
    pattern = grammar_pattern(world.grammar())
    for index in range(100):
        for task in ("t2s", "i2s", "v2s", "s2s", "s2i"):
            drawn = world.sentence(task, index)
            for text in (values[SPEECH] for values in (drawn.condition, drawn.target) if SPEECH in values):
                assert pattern.fullmatch(text + " "), text
                assert re.fullmatch("[a-z ]+", text)
                assert len(text.split()) <= MOST_WORDS
    assert not pattern.fullmatch("a dog likes a cat ")
    assert not pattern.fullmatch("a unicorn on a red background ")


def test_the_grammar_follows_the_objects():
    assert "lion" not in grammar(("dog", "cat", "star"))
    assert "lion" in grammar(("dog", "cat", "lion"))


def test_sentences_go_on_and_vary():
    sentences = EmojiWorld(0).sentences()
    assert len({next(sentences) for _ in range(100)}) > 80
