"""Memory that learns alone: what prompted masks depend on stands still, and only what was found is followed."""

import pytest
import torch
from test_virst_training import settings

from dynin.errors import ConfigError
from dynin.testing import tiny_model
from dynin.virst.tracker import TrackerConfig
from dynin.virst.training import run
from dynin.virst.training.objective import Objective, part_of
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


def test_only_rows_whose_anchors_found_their_target_are_followed(start, tmp_path):
    def costs_of(least_found):
        config = settings(start, tmp_path, "propagation", learns=("recall",), num_anchors=1, least_found=least_found)
        objective = Objective(run.start(config, "cpu"), config)
        batch = Drawer.open(config, objective.model.sizes).step(0).batch
        found = objective.model(batch)
        costs = objective._propagated(found, batch, batch.masks, torch.Generator().manual_seed(0))
        return [each for each in costs if not each.is_propagated], [each for each in costs if each.is_propagated]

    (anchor,), all_followed = costs_of(0.0)
    least = float(anchor.overlap.sort().values[1:].unique()[-1])
    is_found = anchor.overlap >= least
    assert 0 < is_found.sum() < len(is_found)
    (again,), some_followed = costs_of(least)
    assert torch.equal(again.overlap, anchor.overlap)
    assert len(all_followed) == len(some_followed) > 0
    for whole, part in zip(all_followed, some_followed, strict=True):
        assert torch.equal(part.is_visible, whole.is_visible[is_found])
        torch.testing.assert_close(part.parts["dice"], whole.parts["dice"][is_found])


def test_an_overlap_is_a_share(start, tmp_path):
    with pytest.raises(ConfigError, match="'least_found' is 1.5; expected an IoU from 0 to 1"):
        settings(start, tmp_path, "propagation", least_found=1.5)
