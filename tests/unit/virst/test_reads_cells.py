"""A backbone that reads frames by a network of its own, and a second fusion that looks at what it made of them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from dynin import checkpoint
from dynin.checkpoint import Checkpoint
from dynin.errors import CheckpointError, ConfigError
from dynin.testing import tiny_model
from dynin.virst import folder
from dynin.virst.backbone.protocol import CellStates
from dynin.virst.backbone.reader import FrameReader
from dynin.virst.batch import make_batch
from dynin.virst.build import READER, build
from dynin.virst.config import BranchConfig, FrameConfig, LossConfig, VirstConfig
from dynin.virst.losses import cells_part
from dynin.virst.tracker import TrackerConfig
from dynin.virst.training.config import VirstTrainConfig
from dynin.virst.training.objective import Objective
from dynin.virst.training.source import Step
from tests.tiny_virst import CONFIG, example, make_virst

WIDTH = 16


def reading(config: VirstConfig = CONFIG) -> VirstConfig:
    fusion = replace(config.fusion, reads_cells=True)
    return replace(config, fusion=fusion, backbone=replace(config.backbone, reader_width=WIDTH))


@torch.no_grad()
def test_rows_of_any_length_give_together_what_each_gives_alone():
    virst = make_virst(reading()).eval()
    videos = [
        [example("the dog", frames=4, seed=1), example("the star that turns back", frames=4, seed=1)],
        [example("an apple", frames=1, seed=2)],
        [example("what is it?", frames=3, seed=3)],
    ]
    found = virst(make_batch(videos, virst.sizes)).prompts.tokens
    rows = [(video, sentence) for video, sentences in enumerate(videos) for sentence in range(len(sentences))]
    for row, (video, sentence) in enumerate(rows):
        alone = virst(make_batch([[videos[video][sentence]]], virst.sizes)).prompts.tokens[0]
        assert_close(alone, found[row, :, : alone.shape[1]], atol=1e-4, rtol=1e-3)


def test_everything_that_is_new_learns():
    virst = make_virst(reading())
    config = VirstTrainConfig(name="x", stage="alignment", steps=1, model=virst.config, loss=LossConfig(cells=1.0))
    objective = Objective(virst, config)
    batch = make_batch([[example("the dog"), example("nothing", is_empty=True)]], virst.sizes)
    loss, figures = objective(Step(batch=batch), torch.Generator().manual_seed(0))
    loss.backward()
    assert figures["cells"] > 0
    new = ("backbone.reader.layers.0", "second.own_proj", "second.place_proj", "second.pointer")
    for name in new:
        assert virst.get_parameter(f"{name}.weight").grad.any(), name
    assert virst.second.gate.grad.any()


@pytest.mark.parametrize("base", [CONFIG, replace(CONFIG, fusion=replace(reading().fusion, second="mlp"))])
def test_where_the_second_fusion_does_not_look_a_pointer_is_learned_that_is_thrown_away(base):
    virst = make_virst(base)
    config = VirstTrainConfig(name="x", stage="alignment", steps=1, model=virst.config, loss=LossConfig(cells=1.0))
    objective = Objective(virst, config)
    loss, figures = objective(Step(batch=make_batch([[example()]], virst.sizes)), torch.Generator().manual_seed(0))
    loss.backward()
    assert figures["cells"] == pytest.approx(torch.log(torch.tensor(2.0)).item(), abs=1e-5)  # nothing is known yet
    assert objective.pointer.weight.grad.any()


@torch.no_grad()
def test_prompts_start_from_the_place_that_is_pointed_at():
    virst = make_virst(reading()).eval()
    virst.second.gate.zero_()
    found = virst(make_batch([[example()]], virst.sizes)).prompts
    rows, columns = (side // 16 for side in (virst.backbone.frame_px,) * 2)
    middles = torch.tensor([[(x + 0.5) / columns, (y + 0.5) / rows] for y in range(rows) for x in range(columns)])
    places = virst.branch.place(middles[None])[0]
    assert_close(found.tokens[0, 0], found.cell_logits[0].softmax(dim=-1) @ places)


def test_what_the_patches_of_a_frame_cost_is_least_where_the_target_is_told():
    masks = torch.zeros(1, 2, 8, 8, dtype=torch.bool)
    masks[0, 0, :4, 4:] = True  # the second of four patches, whole; nothing in the second frame
    is_frame = torch.tensor([[True, True]])
    cells = CellStates(states=torch.zeros(1, 2, 4, 3), is_frame=is_frame, grid=(2, 2))
    right = torch.tensor([[[-9.0, 9.0, -9.0, -9.0], [-9.0] * 4]])
    assert float(cells_part(right, cells, masks)) < 1e-3
    assert float(cells_part(right.flip(-1), cells, masks)) > 2
    alone = CellStates(states=cells.states, is_frame=torch.tensor([[True, False]]), grid=(2, 2))
    wrong_later = torch.cat([right[:, :1], -right[:, 1:]], dim=1)
    assert float(cells_part(wrong_later, alone, masks)) < 1e-3  # a frame that is not there costs nothing


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("start") / "model")


def settings(start: Path, reader: Path | None = None) -> VirstConfig:
    config = reading(replace(CONFIG, branch=BranchConfig(image_px=32, hiera_width=8)))
    backbone = replace(config.backbone, start=str(start), reader_start=str(reader or ""))
    return replace(config, backbone=backbone)


def test_a_reader_is_taken_from_its_folder_and_lies_in_what_is_saved(start, tmp_path):
    drawn = build(settings(start), seed=1)
    reader = FrameReader(drawn.backbone.reader.output.out_features, WIDTH, torch.Generator().manual_seed(5))
    checkpoint.save(tmp_path / "reader", Checkpoint(kind=READER, config={}, tensors=reader.state_dict()))
    made = build(settings(start, tmp_path / "reader"), seed=1).eval()
    assert_close(made.backbone.reader.state_dict(), reader.state_dict())
    folder.save(tmp_path / "virst", made, dtype=torch.float32)
    checkpoint_folder = tmp_path / "reader"
    checkpoint_folder.rename(tmp_path / "gone")  # a saved VIRST does not need it
    again = folder.load(tmp_path / "virst")
    batch = make_batch([[example()]], made.sizes)
    with torch.no_grad():
        first, second = (each.own_masks(each(batch), [(0, 1)], TrackerConfig()).mask_logits for each in (made, again))
    assert_close(first, second)


def test_what_cannot_be_read_is_refused(start, tmp_path):
    checkpoint.save(tmp_path / "other", Checkpoint(kind="other", config={}, tensors={}))
    with pytest.raises(CheckpointError, match="holds other, expected frame-reader"):
        build(settings(start, tmp_path / "other"), seed=1)
    few = replace(reading(), frames=FrameConfig(num_frames=4, num_seg=2))
    with pytest.raises(ConfigError, match=r"'frames.num_seg' 2 must not be below 'frames.num_frames' 4"):
        make_virst(few)
    with pytest.raises(ConfigError, match="multiple of 16"):
        replace(CONFIG.backbone, reader_width=8)
    with pytest.raises(ConfigError, match="give both"):
        replace(CONFIG.backbone, reader_start="somewhere")
