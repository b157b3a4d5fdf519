"""The judges alone, and what tokenizers lose: a perfect one keeps all that is true, a poor one loses it."""

import pytest

from dynin import testing
from dynin.evaluation import round_trip
from dynin.evaluation.round_trip import ROUND_TRIPS

COUNT = 12


@pytest.fixture(scope="module")
def tiny():
    return testing.tiny().tokenizers


@pytest.fixture
def lossless(monkeypatch):
    """Tokenizers that lose nothing."""
    monkeypatch.setattr(round_trip, "_again", lambda tokenizers, modality, value: value)


@pytest.mark.parametrize("name", ["pictures_true", "pictures_large_true", "videos_true"])
def test_what_is_true_is_accepted(name, tiny):
    score = ROUND_TRIPS[name](tiny, 2, COUNT)
    assert score.n == COUNT
    assert score.score > 0.9


@pytest.mark.parametrize("name", ["pictures_altered", "pictures_large_altered", "videos_altered"])
def test_what_is_false_in_one_slot_is_refused(name, tiny):
    score = ROUND_TRIPS[name](tiny, 2, COUNT)
    assert (score.n, score.score) == (COUNT, 0)
    assert len(score.beside) >= 3
    assert score == ROUND_TRIPS[name](tiny, 2, COUNT)


@pytest.mark.parametrize("name", ["pictures_altered", "videos_altered"])
def test_a_judge_that_accepts_everything_is_seen(name, tiny, monkeypatch):
    for judge in ("picture_matches", "video_matches"):
        monkeypatch.setattr(round_trip, judge, lambda shown, claim: True)
    score = ROUND_TRIPS[name](tiny, 2, COUNT)
    assert score.score == 1
    assert set(score.beside.values()) == {1}


@pytest.mark.parametrize("name", ["pictures", "videos", "edits"])
def test_random_tokenizers_lose_everything(name, tiny):
    score = ROUND_TRIPS[name](tiny, 2, 3)
    assert (score.n, score.score) == (3, 0)


@pytest.mark.parametrize("name", ["pictures", "pictures_large", "videos", "edits"])
def test_perfect_tokenizers_lose_nothing(name, tiny, lossless):
    assert ROUND_TRIPS[name](tiny, 2, 3).score == 1


def test_large_pictures_go_through_the_tokenizer_at_their_own_size(tiny, monkeypatch):
    sizes = []
    monkeypatch.setattr(round_trip, "picture_matches", lambda made, claim: sizes.append(made.shape[-1]) or True)
    for name in ("pictures", "pictures_large"):
        ROUND_TRIPS[name](tiny, 2, 2)
    assert sizes == [64, 64, 128, 128]


def test_fidelity_of_the_round_trip_leaves_the_edit_out(tiny, monkeypatch, lossless):
    assert round_trip.edits(tiny, 2, 5).beside["psnr_outside_db"] > 90
    monkeypatch.setattr(round_trip, "_again", lambda tokenizers, modality, value: value * 0.8)
    assert 15 < round_trip.edits(tiny, 2, 5).beside["psnr_outside_db"] < 30
