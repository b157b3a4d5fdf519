"""Whether a sentence is about anything in a video at all, by all of its seen frames together."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dynin.errors import ConfigError
from dynin.virst.anchors import UniformFrames
from dynin.virst.panel import Panel
from dynin.virst.segment import SegmentConfig, Segmenter
from dynin.virst.tracker import TrackerConfig
from tests.tiny_virst import CONFIG, example, make_virst

ROWS = [example("the dog", frames=5, seed=1), example("the star that turns back", frames=5, seed=1)]


def masks_of(virst, config):
    """One sentence at a time, and all at once."""
    panel = Panel(virst)
    many = panel.masks(panel.read([ROWS], panel.watch(ROWS[:1])), config)
    alone = [np.stack(list(Segmenter(virst, config).predict(row))) for row in ROWS]
    return alone, many


def presences(virst):
    """Of each row, frame by frame."""
    panel = Panel(virst)
    looked = panel.read([ROWS], panel.watch(ROWS[:1]))
    tracker = TrackerConfig(gate="hard")
    each = [panel._prompted(looked, at, tracker)[0].object_score.sigmoid() for at in looked.pixels.candidates]
    return torch.stack(each).mean(dim=0).tolist()


@pytest.mark.parametrize("anchors", [SegmentConfig().anchors, UniformFrames(num_prompted=2)])
def test_a_row_is_empty_as_a_whole_where_its_mean_is_below_what_is_asked(anchors):
    virst = make_virst().eval().requires_grad_(False)
    low, high = sorted(range(2), key=presences(virst).__getitem__)
    between = sum(presences(virst)) / 2
    plain = SegmentConfig(anchors=anchors, threshold=0.0)
    for found, open_ in zip(
        masks_of(virst, replace(plain, least_presence=between)), masks_of(virst, plain), strict=True
    ):
        assert open_[low].any(), "the test needs a mask that is left out"
        assert not found[low].any()
        assert (found[high] == open_[high]).all()


def test_a_model_says_how_much_it_asks_and_a_request_may_say_other():
    virst = make_virst(replace(CONFIG, least_presence=1.0)).eval().requires_grad_(False)
    for found in masks_of(virst, SegmentConfig(threshold=0.0)):
        assert not any(mask.any() for mask in found)
    for found in masks_of(virst, SegmentConfig(threshold=0.0, least_presence=0.0)):
        assert all(mask.any() for mask in found)


def test_what_is_no_probability_is_refused():
    with pytest.raises(ConfigError, match=r"'least_presence' is 1.5; expected a probability"):
        replace(CONFIG, least_presence=1.5)
