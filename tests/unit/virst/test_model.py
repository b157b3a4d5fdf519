"""VIRST as a whole: batches, gradients, each frame encoded once."""

import re

import pytest
import torch
from torch.testing import assert_close

from dynin.errors import DataError
from dynin.virst.batch import make_batch
from dynin.virst.config import FrameConfig, FusionConfig, LossConfig, VirstConfig
from dynin.virst.losses import mask_parts, total
from dynin.virst.tracker import TrackerConfig
from tests.tiny_virst import CONFIG, example, make_virst

TRACKER = TrackerConfig(gate="soft")


@torch.no_grad()
def test_sentences_and_videos_of_any_length_and_shape_give_together_what_each_gives_alone():
    virst = make_virst().eval()
    videos = [
        [example("the dog", frames=4, seed=1), example("the star that turns back", frames=4, seed=1)],
        [example("an apple", frames=2, height=20, width=40, seed=2)],
        [example("what is it?", frames=1, height=64, width=30, seed=3)],
    ]
    batch = make_batch(videos, virst.sizes)
    found = virst(batch)
    assert found.prompts.tokens.shape == (4, 2, 4, virst.branch.width)
    pairs = [(0, 0), (1, 3), (2, 1), (3, 0)]
    masks = virst.own_masks(found, pairs, TRACKER)
    rows = [(video, sentence) for video, sentences in enumerate(videos) for sentence in range(len(sentences))]
    for index, (row, frame) in enumerate(pairs):
        video, sentence = rows[row]
        alone = virst(make_batch([[videos[video][sentence]]], virst.sizes))
        count = len(videos[video][0])
        assert_close(alone.prompts.tokens[0], found.prompts.tokens[row, :, :count], atol=1e-4, rtol=1e-3)
        one = virst.own_masks(alone, [(0, frame)], TRACKER)
        assert_close(one.mask_logits[0], masks.mask_logits[index], atol=1e-3, rtol=1e-3)
        assert_close(one.object_score[0], masks.object_score[index], atol=1e-3, rtol=1e-3)


def test_gradients_reach_every_tensor_that_learns():
    virst = make_virst()
    sentences = [example("the dog"), example("nothing here", is_empty=True)]
    batch = make_batch([sentences], virst.sizes)
    found = virst(batch, torch.Generator().manual_seed(0))
    own = virst.own_masks(found, [(0, 1), (1, 2)], TRACKER)
    tracked = dict(virst.tracked(found, [0, 1], [0, 2], [0, 1, 2, 3], TRACKER))
    assert sorted(tracked) == [0, 1, 2, 3]
    masks = batch.masks
    parts = [mask_parts(own, torch.stack([masks[0, 1], masks[1, 2]]), LossConfig())]
    parts += [mask_parts(output, masks[:, frame], LossConfig()) for frame, output in tracked.items()]
    total(parts, None, LossConfig()).backward()
    learning = {name for name, value in virst.named_parameters() if value.requires_grad}
    moved = {name for name, value in virst.named_parameters() if value.grad is not None and value.grad.any()}
    of_other_candidates = {name for name in learning if re.search(r"hypernetworks_mlps\.[123]\.", name)}
    assert learning - moved == of_other_candidates  # a single mask is asked for
    assert any(name.startswith("initial.") for name in moved)
    assert any(".lora_A" in name for name in moved)
    assert "backbone.st_embed" in moved


def test_each_seen_frame_passes_the_image_encoder_once():
    virst = make_virst().eval()
    counted = []
    virst.branch.network.vision_encoder.register_forward_pre_hook(lambda module, given: counted.append(len(given[0])))
    with torch.no_grad():
        found = virst(
            make_batch([[example("the dog"), example("the star")], [example("it", frames=2, seed=4)]], virst.sizes)
        )
        dict(virst.tracked(found, [0, 1], [0, 2], [0, 1, 2, 3], TRACKER))
    assert sum(counted) == 6


@torch.no_grad()
def test_how_many_frames_are_encoded_at_once_changes_no_feature():
    virst, counted = make_virst().eval(), []
    virst.branch.network.vision_encoder.register_forward_pre_hook(lambda module, given: counted.append(len(given[0])))
    batch = make_batch([[example("the dog")], [example("it", frames=2, seed=4)]], virst.sizes)
    cells = []
    for count in (1, 4, 100):
        virst.frames_at_once = count
        cells.append(virst.features(batch).cells)
    assert counted == [1] * 6 + [4, 2] + [6]
    assert_close(cells[1], cells[0], atol=1e-5, rtol=1e-4)
    assert_close(cells[2], cells[0], atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("second", ["fusion", "linear", "mlp"])
@pytest.mark.parametrize("initial", [True, False])
def test_the_fusions_are_switched_by_the_settings(initial, second):
    fusion = FusionConfig(num_downs=1, initial_heads=2, heads=2, dropout=0.0, initial=initial, second=second)
    virst = make_virst(VirstConfig(num_st=2, frames=CONFIG.frames, fusion=fusion, backbone=CONFIG.backbone)).eval()
    batch = make_batch([[example("the dog", seed=1)]], virst.sizes)
    other = make_batch([[example("the dog", seed=9)]], virst.sizes)
    tokens = virst(batch).prompts.tokens
    is_same_for_all_frames = torch.allclose(tokens[:, :, 0], tokens[:, :, 1], atol=1e-6)
    assert is_same_for_all_frames == (second != "fusion")
    st = virst.backbone.st_embeddings()[None]
    if initial:
        seen = virst.features(other).cells[None]
        assert not torch.allclose(virst.features(batch).cells[None], seen)
    assert (virst.initial is not None) == initial
    assert st.shape == (1, 2, 32)


@torch.no_grad()
def test_repeated_passes_and_other_batches_between_change_nothing():
    virst = make_virst().eval()
    batch = make_batch([[example("the dog")]], virst.sizes)
    first = virst(batch).prompts.tokens
    virst(make_batch([[example("the star", frames=2, seed=5)]], virst.sizes))
    assert torch.equal(virst(batch).prompts.tokens, first)


def test_masks_lie_where_the_frame_lies_and_padding_has_none():
    virst = make_virst()
    batch = make_batch([[example(height=16, width=32)]], virst.sizes)
    assert batch.masks.any()
    half = virst.branch.image_size[0] // 2
    assert not batch.masks[:, :, half:].any()
    assert not batch.canvases[:, :, :, half:].any()
    red = (batch.canvases[0, :, 0] > 0.3) & (batch.canvases[0, :, 1] < -0.3)
    assert (red & batch.masks[0]).sum() > 0.9 * batch.masks[0].sum()


def test_times_are_seconds_where_the_settings_say_so():
    fusion = FusionConfig(num_downs=1, initial_heads=2, heads=2, time_unit="seconds")
    virst = make_virst(
        VirstConfig(num_st=2, frames=FrameConfig(num_frames=4, num_seg=2), fusion=fusion, backbone=CONFIG.backbone)
    )
    batch = make_batch([[example(frames=16)]], virst.sizes)
    assert batch.frames == ((1, 9),)
    assert_close(batch.times, torch.tensor([[1 / 8, 9 / 8]]))


def test_examples_without_masks_and_frames_of_a_wrong_size_are_refused():
    from dataclasses import replace

    sizes = make_virst().sizes
    hidden = replace(example(), read_mask=None)
    with pytest.raises(DataError, match="masks of video-0/the-dog are not public"):
        make_batch([[hidden]], sizes)
    assert make_batch([[hidden]], sizes, with_masks=False).masks is None
    with pytest.raises(DataError, match="frame 00000 of video-0 has 32 x 32 px, its video 16 x 32"):
        make_batch([[replace(example(), width=16)]], sizes)
