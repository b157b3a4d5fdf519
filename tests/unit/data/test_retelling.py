"""Captions back to pictures and videos that they describe."""

import numpy as np
import pytest

from dynin.data import retelling
from dynin.data.emoji_world import caption, clip_caption
from dynin.data.emoji_world.splits import is_clip_held_out
from dynin.data.emoji_world.world import EmojiWorld, video
from dynin.data.retelling import answer_of, kind_of, picture_of, video_of
from dynin.errors import RequestError
from dynin.evaluation.metrics.picture import picture_matches
from dynin.evaluation.metrics.video import video_matches


def test_a_retold_picture_shows_what_its_caption_says():
    world = EmojiWorld(1)
    for index in range(15):
        text = world.sentence("i2s", index).truth["sentence"].text
        pixels = picture_of(text, np.random.default_rng(index), is_canonical=True)
        assert picture_matches(pixels, caption.parse(text)), text


def test_a_retold_video_shows_what_its_caption_says():
    world = EmojiWorld(1)
    for index in range(10):
        text = world.sentence("v2s", index).truth["sentence"].text
        frames = video_of(text, np.random.default_rng(index), is_canonical=True).frames
        assert video_matches(frames, clip_caption.parse(text)), text


def test_a_retold_video_never_shows_what_is_held_out(monkeypatch):
    drawn = []
    monkeypatch.setattr(retelling, "video", lambda clip: drawn.append(clip) or video(clip))
    text = "a star moves down and a pizza stays still on a green background"
    for seed in range(60):
        video_of(text, np.random.default_rng(seed), is_canonical=True)
    captions = {clip_caption.canonical(clip) for clip in drawn}
    assert captions == {text}
    assert not any(is_clip_held_out(clip) for clip in drawn)


def test_retelling_varies_the_places():
    pictures = [
        picture_of("a dog on a red background", np.random.default_rng(seed), is_canonical=True) for seed in range(6)
    ]
    assert len({picture.numpy().tobytes() for picture in pictures}) > 1


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("what is two plus three", "two plus three is five"),
        ("what is twenty minus one", "twenty minus one is nineteen"),
        ("what is six times six", "six times six is thirty six"),
    ],
)
def test_a_sum_is_answered(question, answer):
    assert answer_of(question) == answer
    assert kind_of(question) == "sum"


@pytest.mark.parametrize("text", ["the dog moves left", "what do you see", "a dog above a cat"])
def test_other_sentences_tell_nothing_that_can_be_shown(text):
    assert kind_of(text) == ""
    for retell in (picture_of, video_of):
        with pytest.raises(RequestError):
            retell(text, np.random.default_rng(0), is_canonical=False)
