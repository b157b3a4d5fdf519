"""From a video and a sentence to masks: streamed as in one piece, and no more held of a longer video."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
import torch

from dynin.errors import MediaError, RequestError
from dynin.media.stream import Frame
from dynin.virst.anchors import KINDS, Dynamic, Oracle, Published, TextSimilarity, UniformFrames, policy_of
from dynin.virst.batch import make_batch
from dynin.virst.frames import Fit, choose
from dynin.virst.segment import SegmentConfig, Segmenter
from dynin.virst.tracker import TrackerConfig
from dynin.virst.twice import Twice
from tests.tiny_virst import CONFIG, example, make_virst


@pytest.fixture(scope="module")
def virst():
    return make_virst().eval().requires_grad_(False)


def segmenter(virst, anchors=UniformFrames(num_prompted=2), **more) -> Segmenter:  # noqa: B008 - frozen
    return Segmenter(virst, SegmentConfig(anchors=anchors, **more))


@dataclass
class Film:
    """Frames that are made when they are asked for, and counted."""

    num_frames: int
    height: int = 32
    width: int = 32
    rate_hz: float | None = 8.0
    declared: int = 0
    decoded: int = 0

    def __post_init__(self) -> None:
        self.there = self.num_frames
        self.num_frames = self.declared or self.num_frames

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self.there):
            self.decoded += 1
            levels = np.random.default_rng(index).integers(0, 256, (self.height, self.width, 3), dtype=np.uint8)
            yield Frame(levels=levels, time_s=index / 8)


def test_streaming_gives_the_masks_of_the_whole_clip(virst) -> None:
    clip = example("the dog", frames=4)
    streamed = list(segmenter(virst, chunk=3).predict(clip))
    with torch.no_grad():
        found = virst(make_batch([[clip]], virst.sizes))
        fit = Fit(height=32, width=32, rows=virst.branch.image_size[0], columns=virst.branch.image_size[1])
        whole = dict(virst.tracked(found, [0], [0, 3], range(4), TrackerConfig()))
    assert any(mask.any() for mask in streamed)
    for index, mask in enumerate(streamed):
        expected = (fit.lift(whole[index].mask_logits)[0] > 0) & (whole[index].object_score > 0)
        assert np.array_equal(mask, expected.numpy())


@pytest.mark.parametrize("name", [name for name in KINDS if name not in ("text", "oracle")])
@pytest.mark.parametrize(("count", "height", "width"), [(1, 32, 32), (9, 17, 51), (30, 60, 20)])
def test_every_frame_gets_a_mask_of_its_size_in_order(virst, name, count, height, width) -> None:
    film = Film(count, height, width)
    told: list[tuple[int, int]] = []
    found = list(segmenter(virst, policy_of(name)).segment(film, "the dog", progress=lambda *each: told.append(each)))
    assert [each.index for each in found] == list(range(count))
    assert all(each.mask.shape == each.levels.shape[:2] == (height, width) for each in found)
    assert [each.time_s for each in found] == [index / 8 for index in range(count)]
    assert told == [(done + 1, count) for done in range(count)]


def test_the_size_of_a_chunk_changes_nothing(virst) -> None:
    first, second = (
        [each.mask for each in segmenter(virst, Published(), chunk=chunk).segment(Film(11), "the dog")]
        for chunk in (1, 8)
    )
    assert all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))


def test_a_frame_is_encoded_once_by_the_mask_branch(virst, monkeypatch) -> None:
    encoded = []
    plain = virst.branch.encode
    monkeypatch.setattr(
        virst.branch, "encode", lambda frames, **how: encoded.append(len(frames)) or plain(frames, **how)
    )
    list(segmenter(virst).segment(Film(13), "the dog"))
    assert sum(encoded) == 13


@pytest.fixture
def without_room(monkeypatch) -> None:
    """No frame of the first pass is kept for the second."""
    monkeypatch.setattr("dynin.virst.segment.Twice", partial(Twice, room_bytes=0))


@pytest.mark.parametrize("overlaps", [False, True])
def test_frames_that_there_is_room_for_are_decoded_once_and_masks_stay(virst, monkeypatch, overlaps) -> None:
    looked_at = max(choose(13, virst.config.frames)) + 1
    masks = []
    for room, decoded in ((1 << 20, 13), (0, 13 + looked_at)):
        monkeypatch.setattr("dynin.virst.segment.Twice", partial(Twice, room_bytes=room))
        film = Film(13)
        masks.append([each.mask for each in segmenter(virst, chunk=4, overlaps=overlaps).segment(film, "the dog")])
        assert film.decoded == decoded
    assert all(np.array_equal(one, other) for one, other in zip(*masks, strict=True))


@pytest.mark.usefixtures("without_room")
@pytest.mark.parametrize("anchors", [UniformFrames(), Dynamic(), Dynamic(is_two_sided=True, window=6)])
def test_frames_in_flight_do_not_grow_with_the_video(virst, anchors) -> None:
    ahead = []
    for count in (20, 60):
        film = Film(count)
        most = 0
        looked_at = max(choose(count, virst.config.frames)) + 1  # in the first pass
        for each in segmenter(virst, anchors, chunk=4, overlaps=False).segment(film, "the dog"):
            most = max(most, film.decoded - looked_at - each.index)
        ahead.append(most)
    assert max(ahead) <= 2 * 4 + 6  # a chunk in which half of the frames have prompts, and a window


@pytest.mark.usefixtures("without_room")
def test_a_thread_reads_at_most_two_chunks_ahead(virst) -> None:
    film = Film(90)
    looked_at = max(choose(90, virst.config.frames)) + 1
    for each in segmenter(virst, chunk=4, overlaps=True).segment(film, "the dog"):
        assert film.decoded - looked_at - each.index <= 3 * 8


@pytest.mark.parametrize("anchors", [UniformFrames(), Dynamic()])
def test_a_thread_changes_no_mask(virst, anchors) -> None:
    alone, beside = (
        [each.mask for each in segmenter(virst, anchors, chunk=3, overlaps=overlaps).segment(Film(14), "the dog")]
        for overlaps in (False, True)
    )
    assert all(np.array_equal(first, second) for first, second in zip(alone, beside, strict=True))
    assert len(beside) == 14


def test_a_video_that_fails_in_a_thread_is_told_where_it_is_asked_for(virst) -> None:
    with pytest.raises(MediaError, match="the video ended after 9 of 10 frames"):
        list(segmenter(virst, chunk=2, overlaps=True).segment(Film(9, declared=10), "the dog"))


def test_no_object_is_said_where_its_probability_does_not_reach_the_threshold(virst) -> None:
    assert not any(each.mask.any() for each in segmenter(virst, threshold=1.0).segment(Film(4), "the dog"))


def test_text_similarity_asks_for_likenesses_and_oracle_for_true_masks(virst) -> None:
    seen: list[int] = []

    def likeness(frames, sentence):
        seen.append(len(frames))
        return tuple(float(at == 2) for at in range(len(frames)))

    compared = Segmenter(virst, SegmentConfig(anchors=TextSimilarity(num_prompted=1)), likeness=likeness)
    assert len(list(compared.predict(example(frames=6)))) == 6
    assert seen == [CONFIG.frames.num_frames]
    assert len(list(segmenter(virst, Oracle()).predict(example(frames=6)))) == 6
    with pytest.raises(RequestError, match="no image-text model says how like the frames are"):
        list(segmenter(virst, TextSimilarity()).predict(example()))
    with pytest.raises(RequestError, match="which need the true masks"):
        list(segmenter(virst, Oracle()).predict(replace(example(), read_mask=None)))


def test_an_empty_sentence_and_a_video_that_ends_early_are_told(virst) -> None:
    with pytest.raises(RequestError, match="the sentence is empty"):
        list(segmenter(virst).segment(Film(3), "  "))
    with pytest.raises(MediaError, match=r"ended (before frame|after \d+ of 30 frames)"):
        list(segmenter(virst).segment(Film(20, declared=30), "the dog"))
    with pytest.raises(MediaError, match="holds no frame"):
        list(segmenter(virst).segment(Film(0), "the dog"))
