"""The published order of work, held against the streaming segmenter: other calls, the same masks."""

from dataclasses import replace

import numpy as np
import pytest

from dynin.testing import oracle_virst
from dynin.virst.anchors import FirstFrame, Published, UniformFrames
from dynin.virst.segment import ExampleVideo, SegmentConfig, Segmenter
from dynin.virst.tracker import TrackerConfig
from tests.tiny_virst import CONFIG, example, make_virst

WITHOUT = replace(CONFIG, fusion=replace(CONFIG.fusion, initial=False))


@pytest.mark.parametrize("config", [CONFIG, WITHOUT])
@pytest.mark.parametrize("anchors", [Published(), UniformFrames(num_prompted=3), FirstFrame()])
@pytest.mark.parametrize("frames", [1, 9])
def test_the_masks_are_the_same(config, anchors, frames) -> None:
    model = make_virst(config).eval().requires_grad_(False)
    clip = example(frames=frames, height=24, width=40)
    ours = list(Segmenter(model, SegmentConfig(anchors=anchors)).predict(clip))
    theirs = oracle_virst.segment(model, ExampleVideo(clip), clip.sentence, anchors=anchors, tracker=TrackerConfig())
    assert any(mask.any() for mask in ours)
    assert all(np.array_equal(first, second) for first, second in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(("config", "fusions"), [(CONFIG, 2), (WITHOUT, 1)])
def test_frames_are_encoded_for_each_fusion_again_for_prompts_for_memories_and_as_they_come(
    config, fusions, monkeypatch
) -> None:
    model = make_virst(config).eval().requires_grad_(False)
    counts: list[int] = []
    plain = model.branch.encode
    monkeypatch.setattr(
        model.branch, "encode", lambda frames, **how: counts.append(len(frames)) or plain(frames, **how)
    )
    clip = example(frames=9)
    policy = UniformFrames(num_prompted=2)
    oracle_virst.segment(model, ExampleVideo(clip), clip.sentence, anchors=policy, tracker=TrackerConfig())
    first_cached = 1  # the middle of the first quarter of 9 frames is frame 0, which was encoded at the start
    assert counts == [4] * fusions + [1] * (1 + (2 - first_cached) + 2 + 7)
