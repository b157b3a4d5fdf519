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
from dynin.virst.points import Points, quarters_of
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


def points(st_dim: int = 3, dim: int = 2) -> Points:
    """With weights that are not drawn: what is told is seen."""
    made = Points(st_dim, dim)
    for value in made.parameters():
        torch.nn.init.zeros_(value)
    return made


@torch.no_grad()
def test_an_offset_of_one_is_the_way_from_a_patch_to_its_edge():
    made, grid = points(), (2, 3)
    made.offset[2].bias.copy_(torch.tensor([1.0, -1.0]))
    middles = torch.rand(6, 2)
    found = made.places(torch.rand(1, 1, 6, 3), middles, grid, torch.rand(1, 1, 6, 8))
    assert_close(found[0, 0] - middles, torch.tensor([1 / 6, -1 / 4]).expand(6, 2))


@torch.no_grad()
def test_an_offset_knows_the_state_and_the_quarters():
    made = Points(3, 2)
    states, quarters, middles = torch.rand(1, 1, 6, 3), torch.rand(1, 1, 6, 8), torch.rand(6, 2)
    found = made.places(states, middles, (2, 3), quarters)
    assert (made.places(states + 1, middles, (2, 3), quarters) != found).any()
    assert (made.places(states, middles, (2, 3), quarters + 1) != found).any()


@torch.no_grad()
@pytest.mark.parametrize(("column", "told"), [(0, "states"), (3, "probs"), (4, "shares")])
def test_a_point_says_what_its_patch_is_and_how_far_it_is_meant(column, told):
    made = points()
    made.mark.weight[1, column] = 1.0
    values = {"states": torch.rand(1, 1, 6, 3), "probs": torch.rand(1, 1, 6), "shares": torch.rand(1, 1, 6)}
    codes = torch.rand(1, 1, 6, 2)
    found = made.prompts(codes=codes, **values)
    assert_close(found[..., 0], codes[..., 0])
    assert_close(found[..., 1] - codes[..., 1], values[told][..., 0] if told == "states" else values[told])


@torch.no_grad()
def test_a_model_tells_its_points_both_how_far_a_patch_is_meant():
    virst = make_virst(POINTS).eval()
    for value in virst.second.points.mark.parameters():
        value.zero_()
    batch = make_batch([[example()]], virst.sizes)
    plain = virst(batch).prompts
    logits = plain.cell_logits[0, 0]
    for column, told in ((-2, logits.sigmoid()), (-1, logits.softmax(dim=-1))):
        virst.second.points.mark.weight.zero_()
        virst.second.points.mark.weight[0, column] = 1.0
        found = virst(batch).prompts.tokens - plain.tokens
        assert_close(found[0, CONFIG.num_st :, 0, 0], told, atol=1e-5, rtol=1e-4)


def test_quarters_lie_in_their_patch():
    features = (
        torch.arange(2 * 3 * 2 * 4 * 6).float().reshape(2, 3, 2, 4, 6)
    )  # a feature for each quarter, 2 x 3 patches
    found = quarters_of(features, (2, 3), torch.tensor([1, 0, 1]))
    assert found.shape == (3, 3, 6, 8)
    whole = features[1, 2, :, 2:4, 4:6]  # the last patch of the last frame of the second video
    assert_close(found[0, 2, 5], whole.flatten())
    assert_close(found[1, 0, 1], features[0, 0, :, 0:2, 2:4].flatten())
    doubled = features.repeat_interleave(2, dim=3).repeat_interleave(2, dim=4)
    assert_close(quarters_of(doubled, (2, 3), torch.tensor([1, 0, 1])), found)


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


def asked(virst, **weights):
    config = VirstTrainConfig(name="x", stage="alignment", steps=1, model=virst.config, loss=LossConfig(**weights))
    batch = make_batch([[example("the dog"), example("nothing", is_empty=True)]], virst.sizes)
    return Objective(virst, config)(Step(batch=batch), torch.Generator().manual_seed(0), drops=False)


@pytest.mark.parametrize("places", [0.0, 1.0])
def test_everything_that_is_new_learns_by_masks_alone_too(places):
    virst = stirred().train().requires_grad_(True)
    loss, figures = asked(virst, cells=1.0, places=places)
    loss.backward()
    assert ("places" in figures) == bool(places)
    for name in ("backbone.reader.detail", "second.points.offset.0", "second.points.offset.2", "second.points.mark"):
        assert virst.get_parameter(f"{name}.weight").grad.any(), name


def test_each_part_of_telling_has_its_own_weight():
    virst = stirred()
    bare, _ = asked(virst)
    both, figures = asked(virst, cells=2.0, places=3.0)
    assert float((both - bare).detach()) == pytest.approx(2 * figures["cells"] + 3 * figures["places"], rel=1e-4)
    alone, figures = asked(virst, places=3.0)
    assert float((alone - bare).detach()) == pytest.approx(3 * figures["places"], rel=1e-4)


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


@pytest.mark.parametrize(("sides", "grid"), [((30, 45), (8, 4)), ((35, 35), (3, 3)), ((8, 8), (16, 16))])
def test_places_are_told_on_grids_that_do_not_divide_the_frame(sides, grid):
    rows, columns = grid
    masks = torch.zeros(1, 1, *sides, dtype=torch.bool)
    masks[0, 0, -1, -1] = True
    states = torch.zeros(1, 1, rows * columns, 3)
    cells = CellStates(states=states, is_frame=torch.ones(1, 1, dtype=torch.bool), grid=grid)
    places = torch.tensor([1 - 0.5 / sides[1], 1 - 0.5 / sides[0]]).expand(1, 1, rows * columns, 2)
    assert float(places_part(places, cells, masks)) == pytest.approx(0, abs=1e-5)


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
    with pytest.raises(ConfigError, match=r"'fusion.has_points' is on, 'fusion.reads_cells' off"):
        FusionConfig(has_points=True)
    with pytest.raises(ConfigError, match=r"'fusion.second' 'mlp'"):
        FusionConfig(has_points=True, reads_cells=True, second="mlp")
    with pytest.raises(ConfigError, match=r"'loss.places' is 1.0, and this model has no points"):
        asked(make_virst(CONFIG), places=1.0)
    with pytest.raises(ConfigError, match=r"'backbone.reader_details' is on without 'backbone.reader_width'"):
        replace(CONFIG.backbone, reader_details=True)
    with pytest.raises(ConfigError, match=r"'loss.places' is -1"):
        LossConfig(places=-1.0)
