"""Many videos asked in many ways at once are answered as each sentence is by itself."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dynin.errors import ConfigError, DataError, RequestError
from dynin.virst import panel as panels
from dynin.virst.anchors import KINDS, policy_of
from dynin.virst.panel import Panel, drawn_for
from dynin.virst.segment import SegmentConfig, Segmenter
from dynin.virst.similarity import TextLikeness
from dynin.virst.tracker import TrackerConfig
from tests.tiny_virst import CONFIG, example, make_virst


@pytest.fixture(scope="module")
def virst():
    return make_virst().eval().requires_grad_(False)


def videos():
    sentences = (("the dog", "the cat that turns back"), ("a star",))
    return [
        [example(text, frames=9, height=30, width=44, seed=seed) for text in texts]
        for seed, texts in enumerate(sentences)
    ]


def ways():
    named = [(name, None, 3) for name in KINDS if name != "text"]
    return [*named, ("uniform", 3, 1), ("uniform", 3, 2), ("uniform", 1, 1), ("uniform", 4, None)]


def config_of(name, count, attended) -> SegmentConfig:
    return SegmentConfig(anchors=policy_of(name, count), tracker=TrackerConfig(num_attended=attended), threshold=0.4)


@pytest.fixture(scope="module")
def looked(virst):
    panel = Panel(virst)
    asked = videos()
    return panel, panel.read(asked, panel.watch([examples[0] for examples in asked]))


@pytest.mark.parametrize(("name", "count", "attended"), ways())
def test_masks_are_those_of_one_sentence_at_a_time(virst, looked, name, count, attended) -> None:
    panel, seen = looked
    config = config_of(name, count, attended)
    found = panel.masks(seen, config, seed=5)
    rows = [each for examples in videos() for each in examples]
    assert len(found) == len(rows) == 3
    for masks, row in zip(found, rows, strict=True):
        alone = np.stack(list(Segmenter(virst, config, seed=drawn_for(row, 5)).predict(row)))
        assert masks.shape == (9, 30, 44)
        assert np.mean(masks != alone) < 1e-3
    assert any(masks.any() for masks in found)


def test_ways_that_choose_alike_are_computed_once(virst, monkeypatch) -> None:
    panel, asked = Panel(virst), videos()
    seen = panel.read(asked, panel.watch([examples[0] for examples in asked]))
    first = panel.masks(seen, config_of("uniform", 3, 3))
    decoded = []
    monkeypatch.setattr(type(virst.branch), "decode", lambda *_, **__: decoded.append(1))
    again = panel.masks(seen, config_of("uniform", 3, 7))
    assert not decoded
    assert all(one is other for one, other in zip(first, again, strict=True))


def test_frames_are_encoded_once_for_all_sentences_and_ways(virst, monkeypatch) -> None:
    encoded = []
    encode = type(virst.branch).encode
    monkeypatch.setattr(
        type(virst.branch), "encode", lambda self, frames, **more: encoded.append(len(frames)) or encode(self, frames)
    )
    panel, asked = Panel(virst), videos()
    pixels = panel.watch([examples[0] for examples in asked])
    others = [[replace(each, sentence="something else") for each in examples] for examples in asked]
    for sentences in (asked, others):
        seen = panel.read(sentences, pixels)
        for name in ("first", "uniform", "random"):
            panel.masks(seen, config_of(name, None, 3))
    assert encoded == [18]


def test_likeness_is_asked_for_each_sentence(virst) -> None:
    class LastFrame(TextLikeness):
        """Likes the last frame best, whatever is said."""

        def __init__(self) -> None:
            """Knows no network."""

        def of_frames(self, frames):
            return torch.arange(float(len(frames)))[:, None]

        def of_sentence(self, sentence):
            return torch.ones(1)

    panel, asked = Panel(virst, likeness=LastFrame()), videos()
    seen = panel.read(asked, panel.watch([examples[0] for examples in asked]))
    last = seen.pixels.candidates[-2:]
    assert panel._candidates(seen, 0, policy_of("text", 2)).likeness == (0.0, 1.0, 2.0, 3.0)
    panel.masks(seen, config_of("text", 2, 3))
    assert {key[1] for key in seen.answers} == {last}
    with pytest.raises(RequestError, match="no image-text model says"):
        Panel(virst).masks(seen, config_of("text", 2, 3))


def test_videos_that_differ_and_models_that_draw_are_refused(virst) -> None:
    with pytest.raises(DataError, match="expected all alike"):
        Panel(virst).watch([example(frames=4), example(frames=5)])
    assert panels.alike([[example(frames=4)], [], [example(frames=5)], [example(frames=4, seed=1)]]) == [[0, 3], [2]]
    drawing = make_virst(replace(CONFIG, frames=replace(CONFIG.frames, sampling="jitter")))
    with pytest.raises(ConfigError, match="nothing can be shared; ask one sentence at a time"):
        Panel(drawing)
