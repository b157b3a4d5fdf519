"""Floors: what knows nothing of the sentence, and questions that cannot be answered."""

from collections import Counter

import numpy as np
import pytest
from referring_films import Source, film, nothing, small_source, track

from dynin.data.referring.source import walk
from dynin.errors import DataError
from dynin.evaluation.segmentation.floors import AnotherObject, shuffle_frames, shuffle_sentences, truth
from dynin.evaluation.segmentation.pair import score_pair


def many(count=12):
    return Source([[film(f"v{n}", name, family=name) for name in ("static", "motion")] for n in range(count)])


def test_another_object_is_perfect_for_another_sentence():
    source = small_source()
    floor = AnotherObject.of(source, seed=0)
    for example in walk(source):
        if example.family == "none":
            assert not floor.has(example)
            continue
        other = next(
            other
            for other in walk(source)
            if other.video == example.video and other.family not in (example.family, "none")
        )
        shown = list(floor(example))
        assert all((mask == other.read_mask(t)).all() for t, mask in enumerate(shown))
        assert score_pair(example, shown).region == 0


def test_equal_tracks_are_no_other_object():
    source = Source([[film("v", "0"), film("v", "1")]])
    floor = AnotherObject.of(source, seed=0)
    assert floor.others == {}
    with pytest.raises(DataError, match="nothing else is to be seen in this video"):
        floor(film("v", "0"))


def test_another_object_is_drawn_among_all_things_where_they_are_known():
    things = np.stack([np.stack(masks) for masks in (track((4, 4), (0, 3)), track((24, 30), (0, 0)), nothing())])
    source = Source([[film(f"v{n}", "0", list(things[0]))] for n in range(4)])
    floor = AnotherObject.of(source, seed=1, tracks=lambda index: things)
    for example in walk(source):
        assert all((mask == things[1][t]).all() for t, mask in enumerate(floor(example)))


def test_which_object_is_drawn_depends_on_the_seed_and_not_on_the_other_videos():
    tracks = [track((2, 2), (0, step)) for step in range(5)]
    videos = [[film(f"v{n}", str(k), masks) for k, masks in enumerate(tracks)] for n in range(6)]

    def drawn(source, seed):
        floor = AnotherObject.of(source, seed)
        return [np.stack(list(floor(example))).tobytes() for example in walk(source)]

    whole = drawn(Source(videos), 0)
    assert whole[:15] == drawn(Source(videos[:3]), 0)
    assert whole != drawn(Source(videos), 1)


def test_shuffled_sentences_come_from_other_videos_of_the_family_each_once():
    source = many()
    changed = shuffle_sentences(source, seed=3)
    pairs = list(zip(walk(source), walk(changed), strict=True))
    for before, after in pairs:
        assert before.video not in after.sentence.split()
        assert before.family in after.sentence.split()
        assert (after.video, after.family, after.read_mask) == (before.video, before.family, before.read_mask)
    assert Counter(after.sentence for _, after in pairs) == Counter(before.sentence for before, _ in pairs)
    assert [after.sentence for _, after in pairs] != [e.sentence for e in walk(shuffle_sentences(source, seed=4))]


def test_sentences_of_one_video_alone_cannot_be_shuffled():
    source = Source([[film("v0", "0"), film("v0", "1")], [film("v1", "0")]])
    with pytest.raises(DataError, match="2 of 3 sentences of family 'static' are about one video"):
        shuffle_sentences(source, seed=0)


def test_shuffled_frames_keep_their_truth_and_one_order_for_a_video():
    source = small_source()
    orders = []
    for before, after in zip(walk(source), walk(shuffle_frames(source, seed=2)), strict=True):
        order = [int(after.read_frame(t)[0, 0, 0]) for t in range(len(after))]
        assert sorted(order) == list(range(5))
        assert all((after.read_mask(t) == before.read_mask(frame)).all() for t, frame in enumerate(order))
        assert after.frame_names == before.frame_names
        orders.append((before.video, tuple(order)))
    assert len(set(orders)) == 3
    assert any(order != (0, 1, 2, 3, 4) for _, order in orders)


def test_the_truth_needs_masks():
    with pytest.raises(DataError, match="its masks are not public"):
        truth(film(read_mask=None))
