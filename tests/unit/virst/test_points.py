"""Patches as prompts of their own, which say where in each something lies; and what the reader saw besides."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from dynin import checkpoint
from dynin.checkpoint import Checkpoint
from dynin.errors import ConfigError
from dynin.testing import tiny_model
from dynin.virst import folder
from dynin.virst.backbone.protocol import CellStates
from dynin.virst.backbone.reader import FrameReader
from dynin.virst.batch import make_batch
from dynin.virst.build import READER, build
from dynin.virst.config import BranchConfig, FusionConfig, LossConfig
from dynin.virst.losses import places_part
from dynin.virst.panel import Panel
from dynin.virst.segment import SegmentConfig, Segmenter
from dynin.virst.training.config import VirstTrainConfig
from dynin.virst.training.objective import Objective
from dynin.virst.training.source import Step
from tests.tiny_virst import CONFIG, example, make_virst

WIDTH = 16
FUSION = replace(CONFIG.fusion, reads_cells=True, has_points=True)
POINTS = replace(CONFIG, fusion=FUSION, backbone=replace(CONFIG.backbone, reader_width=WIDTH, reader_details=True))


@torch.no_grad()
def stirred():
    """A model in which nothing that starts at 0 is 0."""
    virst = make_virst(POINTS).eval()
    generator = torch.Generator().manual_seed(3)
    for weight in (virst.second.points.offset[2].weight, virst.backbone.reader.detail.weight):
        weight.copy_(0.1 * torch.randn(weight.shape, generator=generator))
    return virst


@torch.no_grad()
def test_each_patch_is_a_prompt_behind_those_of_the_tokens():
    virst = make_virst(POINTS).eval()
    side = virst.backbone.frame_px // 16
    middles = torch.tensor([[(x + 0.5) / side, (y + 0.5) / side] for y in range(side) for x in range(side)])
    found = virst(make_batch([[example(frames=2)]], virst.sizes)).prompts
    assert found.tokens.shape[1] == CONFIG.num_st + side * side
    assert_close(found.cell_places, middles.expand(1, 2, -1, -1))  # as nothing is known of where things lie in them
    virst.second.points.offset[2].bias.copy_(torch.tensor([0.1, -0.05]))  # half a patch is 1
    virst.second.points.mark.weight.zero_()
    virst.second.points.mark.bias.zero_()
    found = virst(make_batch([[example(frames=2)]], virst.sizes)).prompts
    codes = virst.branch.place((middles + torch.tensor([0.1, -0.05]) * 0.5 / side)[None])[0]
    assert_close(found.tokens[0, CONFIG.num_st :, 1], codes)
    virst.second.gate.zero_()
    found = virst(make_batch([[example(frames=2)]], virst.sizes)).prompts
    assert_close(found.tokens[0, 0], found.cell_logits[0].softmax(dim=-1) @ codes)


@torch.no_grad()
def test_how_far_a_patch_is_meant_is_in_its_prompt():
    virst = make_virst(POINTS).eval()
    virst.second.points.mark.weight[:, : virst.backbone.width].zero_()
    batch = make_batch([[example()]], virst.sizes)
    before = virst(batch).prompts.tokens[:, CONFIG.num_st :]
    virst.second.pointer.bias.add_(2.0)  # every patch alike, so that the share of each stays
    after = virst(batch).prompts.tokens[:, CONFIG.num_st :]
    assert (after - before).abs().amax() > 1e-3


@torch.no_grad()
def test_rows_of_any_length_give_together_what_each_gives_alone():
    virst = stirred()
    videos = [
        [example("the dog", frames=4, seed=1), example("the star that turns back", frames=4, seed=1)],
        [example("an apple", frames=1, seed=2)],
    ]
    found = virst(make_batch(videos, virst.sizes)).prompts.tokens
    for row, (video, sentence) in enumerate([(0, 0), (0, 1), (1, 0)]):
        alone = virst(make_batch([[videos[video][sentence]]], virst.sizes)).prompts.tokens[0]
        assert_close(alone, found[row, :, : alone.shape[1]], atol=1e-4, rtol=1e-3)


def test_one_at_a_time_and_many_at_once_give_the_same_masks():
    virst, config = stirred().requires_grad_(False), SegmentConfig(threshold=0.0)
    rows = [example("the dog", frames=5, seed=1), example("the star", frames=5, seed=1)]
    panel = Panel(virst)
    many = panel.masks(panel.read([rows], panel.watch(rows[:1])), config)
    for row, masks in zip(rows, many, strict=True):
        alone = torch.stack([torch.from_numpy(mask) for mask in Segmenter(virst, config).predict(row)])
        assert bool((alone == torch.from_numpy(masks)).float().mean() > 0.999)


def test_everything_that_is_new_learns():
    virst = stirred().train().requires_grad_(True)
    config = VirstTrainConfig(
        name="x", stage="alignment", steps=1, model=virst.config, loss=LossConfig(cells=1.0, places=1.0)
    )
    objective = Objective(virst, config)
    batch = make_batch([[example("the dog"), example("nothing", is_empty=True)]], virst.sizes)
    loss, figures = objective(Step(batch=batch), torch.Generator().manual_seed(0))
    loss.backward()
    assert figures["places"] > 0
    for name in ("backbone.reader.detail", "second.points.offset.0", "second.points.offset.2", "second.points.mark"):
        assert virst.get_parameter(f"{name}.weight").grad.any(), name


@torch.no_grad()
def test_details_start_as_nothing_and_reach_every_patch():
    virst = make_virst(POINTS).eval()
    frames = torch.rand(2, 3, 32, 32) * 2 - 1
    reader = virst.backbone.reader
    plain = FrameReader(reader.output.out_features, WIDTH, torch.Generator().manual_seed(0))
    plain.load_state_dict({name: value for name, value in reader.state_dict().items() if name != "detail.weight"})
    assert_close(plain(frames), reader(frames))
    batch = make_batch([[example()]], virst.sizes)
    before = virst(batch).reading.cells.states
    reader.detail.weight.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
    assert ((virst(batch).reading.cells.states - before).abs().amax(dim=-1) > 1e-4).all()


def masks_of(rows: slice, columns: slice) -> torch.Tensor:
    masks = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    masks[0, 0, rows, columns] = True
    return masks


def test_places_cost_how_far_they_lie_from_the_middle_of_the_target():
    cells = CellStates(states=torch.zeros(1, 1, 4, 3), is_frame=torch.ones(1, 1, dtype=torch.bool), grid=(2, 2))
    target = masks_of(slice(2, 8), slice(18, 26))  # in the second of four patches
    places = torch.full((1, 1, 4, 2), 0.9)
    places[0, 0, 1] = torch.tensor([22 / 32, 5 / 32])
    assert float(places_part(places, cells, target)) == pytest.approx(0, abs=1e-6)
    places[0, 0, 1] += torch.tensor([0.1, -0.05])
    assert float(places_part(places, cells, target)) == pytest.approx(0.15, abs=1e-5)
    assert float(places_part(places, cells, torch.zeros_like(target))) == 0
    absent = CellStates(states=cells.states, is_frame=~cells.is_frame, grid=(2, 2))
    assert float(places_part(places, absent, target)) == 0


def test_a_target_that_reaches_into_the_next_patch_counts_with_its_whole():
    cells = CellStates(states=torch.zeros(1, 1, 4, 3), is_frame=torch.ones(1, 1, dtype=torch.bool), grid=(2, 2))
    target = masks_of(slice(4, 10), slice(11, 17))  # most of it in the first patch, one column in the second
    places = torch.full((1, 1, 4, 2), 0.9)
    places[0, 0, 0] = torch.tensor([14 / 32, 7 / 32])
    assert float(places_part(places, cells, target)) == pytest.approx(0, abs=1e-6)


def test_a_reader_trained_without_details_is_taken(tmp_path):
    start = tiny_model(tmp_path / "start")
    config = replace(
        POINTS,
        branch=BranchConfig(image_px=32, hiera_width=8),
        backbone=replace(POINTS.backbone, start=str(start)),
    )
    reader = FrameReader(
        build(config, seed=1).backbone.reader.output.out_features, WIDTH, torch.Generator().manual_seed(5)
    )
    checkpoint.save(tmp_path / "reader", Checkpoint(kind=READER, config={}, tensors=reader.state_dict()))
    backbone = replace(config.backbone, reader_start=str(tmp_path / "reader"))
    made = build(replace(config, backbone=backbone), seed=1)
    assert_close(made.backbone.reader.layers[0].weight, reader.layers[0].weight)
    assert not made.backbone.reader.detail.weight.any()
    folder.save(tmp_path / "virst", made, dtype=torch.float32)
    assert folder.load(tmp_path / "virst").config.fusion.has_points


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(ConfigError, match=r"'fusion.has_points' is on without 'fusion.reads_cells'"):
        FusionConfig(has_points=True)
    with pytest.raises(ConfigError, match=r"'backbone.reader_details' is on without 'backbone.reader_width'"):
        replace(CONFIG.backbone, reader_details=True)
    with pytest.raises(ConfigError, match=r"'loss.places' is -1"):
        LossConfig(places=-1.0)
