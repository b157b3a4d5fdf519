"""Losses on held-out rows are those of a plain loop, and the same at every call."""

import math

import pytest
import torch

import dynin
from dynin import testing
from dynin.errors import ConfigError, VocabularyError
from dynin.training.held_out import losses


@pytest.fixture(scope="module")
def shipped():
    return dynin.load()


def test_a_model_that_knows_nothing_loses_the_logarithm_of_the_choices():
    model = dynin.load()
    torch.nn.init.zeros_(model.model.output.weight)
    found = losses(model, ["t2i", "i2t_captions"], rows=8, seed=3)
    assert found["t2i"].loss == pytest.approx(math.log(len(model.vocabulary.image)), rel=1e-4)
    assert found["i2t_captions"].loss == pytest.approx(math.log(len(model.vocabulary.text) + 1), rel=1e-4)  # and eos
    assert 0 < found["t2i"].places <= 8 * 16


def test_calls_repeat_themselves_and_seeds_differ(shipped):
    one, same, other = (losses(shipped, ["t2i"], rows=6, seed=seed)["t2i"] for seed in (1, 1, 2))
    assert one == same
    assert one.loss != other.loss


def test_an_unknown_name_or_a_missing_shard_is_named(shipped):
    with pytest.raises(ConfigError, match="t2x"):
        losses(shipped, ["t2x"], rows=1, seed=0)
    with pytest.raises(ConfigError, match="speech_shard"):
        losses(shipped, ["s2t"], rows=1, seed=0)


def test_a_model_of_other_ids_is_refused():
    with pytest.raises(VocabularyError):
        losses(testing.tiny(), ["t2i"], rows=1, seed=0)
