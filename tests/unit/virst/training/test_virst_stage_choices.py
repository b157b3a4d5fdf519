"""What a stage may choose: memory that learns alone, sentences that deny several things."""

import pytest
import torch
from test_virst_training import settings

from dynin.testing import tiny_model
from dynin.virst.tracker import TrackerConfig
from dynin.virst.training import run
from dynin.virst.training.config import DataConfig
from dynin.virst.training.objective import part_of
from dynin.virst.training.source import Drawer


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("start") / "model")


def test_what_is_recalled_learns_without_a_change_of_any_prompted_mask(start, tmp_path):
    config = settings(start, tmp_path, "warm", learns=("recall",))
    model = run.start(config, "cpu")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    learned = run.train(config).model
    moved = {name for name, value in learned.state_dict().items() if not torch.equal(before[name], value)}
    assert moved
    assert all("recall" in part_of(name) for name in moved)
    batch = Drawer.open(config, model.sizes).step(0).batch
    pairs = [(0, 0), (1, 2)]
    with torch.no_grad():
        old, new = (each.own_masks(each(batch), pairs, TrackerConfig()) for each in (model, learned))
        assert torch.equal(old.mask_logits, new.mask_logits)
        followed = [list(each.tracked(each(batch), [0], [0], [0, 1], TrackerConfig())) for each in (model, learned)]
    assert not torch.equal(followed[0][1][1].mask_logits, followed[1][1][1].mask_logits)


def test_a_source_may_have_sentences_that_deny_several_things(start, tmp_path):
    data = {"world": DataConfig(num_videos=3, num_frames=12, denies_several=True)}
    config = settings(start, tmp_path, data=data)
    (source,) = Drawer.open(config, run.start(config, "cpu").sizes).sources.values()
    assert source.examples(0)[-1].sentence_id == "none-several"
