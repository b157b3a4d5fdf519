"""Trainings of VIRST: each stage learns, resumes exactly, and leaves a folder that segments."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from dynin.cli.app import main
from dynin.config import load as load_config
from dynin.errors import CheckpointError, ConfigError, TrainingError
from dynin.testing import tiny_model
from dynin.training.config import LoraConfig, OptimizerConfig
from dynin.virst import folder
from dynin.virst.build import build
from dynin.virst.config import BackboneConfig, BranchConfig, FrameConfig, FusionConfig, LossConfig, VirstConfig
from dynin.virst.training import run
from dynin.virst.training.boxes import BoxPrompter, boxes_of, outline
from dynin.virst.training.config import DataConfig, TextConfig, VirstTrainConfig
from dynin.virst.training.objective import Objective, part_of
from dynin.virst.training.source import Drawer

FILES = (Path(__file__).parents[4] / "configs" / "virst").glob("*.toml")
CONFIGS = sorted(path for path in FILES if path.stem not in ("likeness", "reader"))
STAGES = ("warm", "alignment", "few_frame", "propagation")


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("start") / "model")


def settings(start: Path, output: Path, stage: str = "alignment", **more) -> VirstTrainConfig:
    model = VirstConfig(
        num_st=2,
        frames=FrameConfig(num_frames=4, num_seg=3),
        fusion=FusionConfig(num_downs=1, initial_heads=2, heads=2, dropout=0.1),
        backbone=BackboneConfig(start=str(start), lora=LoraConfig(rank=2)),
        branch=BranchConfig(image_px=32, hiera_width=8),
    )
    values = {
        "name": stage,
        "stage": stage,
        "steps": 2,
        "model": model,
        "data": {"world": DataConfig(num_videos=3, num_frames=12)},
        "videos_per_step": 2,
        "sentences_per_video": 2,
        "num_anchors": 1,
        "before": 1,
        "after": 1,
        "output": output,
        "log_every": 1,
        "save_every": 99,
        "optimizer": OptimizerConfig(learning_rate=1e-3, matrix_rate=0.0, warmup_steps=1, weight_decay=0.0),
    }
    return VirstTrainConfig(**{**values, **more})


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_stage_names_learns_and_the_rest_stays(start, tmp_path, stage):
    config = settings(start, tmp_path, stage, frames_at_once=3)
    before = {name: value.clone() for name, value in run.start(config, "cpu").state_dict().items()}
    told = []
    model = run.train(config, report=told.append).model
    assert model.frames_at_once == 3
    after = model.state_dict()
    moved = set().union(*(part_of(name) for name in before if not torch.equal(before[name], after[name])))
    assert moved - {"recall"} == set(config.learning)
    assert not any("base_layer" in name for name in before if not torch.equal(before[name], after[name]))
    assert [figures["step"] for figures in told] == [1, 2]
    assert all({"loss", "bce", "dice", "iou", "occlusion", "sentences_per_s"} <= set(figures) for figures in told)


def test_a_stopped_run_ends_where_an_unbroken_one_ends_and_the_next_stage_starts_there(start, tmp_path):
    whole = run.train(settings(start, tmp_path / "whole", "few_frame", save_every=1))
    config = settings(start, tmp_path / "parts", "few_frame", save_every=1)

    def stop(figures):
        if figures["step"] == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        run.train(config, report=stop)
    parts = run.train(config)
    for (name, first), second in zip(whole.state_dict().items(), parts.state_dict().values(), strict=True):
        assert torch.equal(first, second), name
    run.export(config, tmp_path / "virst", {"data": "Emoji World"})
    made = folder.load(tmp_path / "virst")
    assert not any(value.requires_grad for value in made.parameters())
    onward = replace(config, stage="propagation", init=str(tmp_path / "virst"), output=tmp_path / "onward", steps=1)
    begun = run.start(onward, "cpu")
    for (name, first), second in zip(made.state_dict().items(), begun.state_dict().values(), strict=True):
        assert torch.equal(first, second), name
    with pytest.raises(CheckpointError, match="other settings"):
        run.train(replace(config, videos_per_step=3))


def test_a_stage_takes_the_mask_branch_of_another_virst_and_is_run_from_the_command_line(start, tmp_path):
    config = settings(start, tmp_path, "warm", steps=1)
    run.train(config)
    run.export(config, tmp_path / "warm-model", {})
    shared = f"""extends = "{Path("configs/virst/shared/small.toml").resolve()}"
name = "alignment"
stage = "alignment"
steps = 1
[model.branch]
start = "{tmp_path / "warm-model"}"
[model.backbone]
start = "{start}"
"""
    (tmp_path / "run.toml").write_text(shared)
    less = ["data.world.num_frames=12", "videos_per_step=1", "model.frames.num_frames=2", "model.fusion.second=mlp"]
    overrides = [argument for value in [*less, f"output={tmp_path / 'runs'}"] for argument in ("--set", value)]
    assert main(["virst", "train", str(tmp_path / "run.toml"), *overrides, "--device", "cpu"]) == 0
    warm, aligned = (folder.load(place) for place in (tmp_path / "warm-model", tmp_path / "runs/alignment/model"))
    assert aligned.config.fusion.second == "mlp"
    for (name, first), second in zip(
        warm.branch.state_dict().items(), aligned.branch.state_dict().values(), strict=True
    ):
        assert torch.equal(first, second), name


def test_a_stage_takes_what_the_backbone_of_another_virst_learned_and_nothing_else(start, tmp_path):
    config = settings(start, tmp_path)
    run.train(config)
    run.export(config, tmp_path / "first", {})
    taught = replace(config.model, backbone=replace(config.model.backbone, learned_start=str(tmp_path / "first")))
    first = folder.load(tmp_path / "first")
    new = run.start(replace(config, model=taught, seed=5), "cpu")
    old, made = folder.learned(first), folder.learned(new)
    assert {name for name in old if torch.equal(old[name], made[name]) and name.startswith("backbone.")} == {
        name for name in old if name.startswith("backbone.")
    }
    assert any(not torch.equal(old[name], made[name]) for name in old if name.startswith("second."))
    assert all(value.requires_grad for name, value in new.backbone.named_parameters() if f"backbone.{name}" in old)
    wider = replace(taught, backbone=replace(taught.backbone, lora=LoraConfig(rank=4)))
    with pytest.raises(CheckpointError, match="lora"):
        run.start(replace(config, model=wider), "cpu")
    with pytest.raises(CheckpointError, match="trained beside another content"):
        run.start(replace(config, model=replace(taught, backbone=replace(taught.backbone, start=""))), "cpu")
    with pytest.raises(ConfigError, match="leave out the first"):
        BackboneConfig(learned_start="a", reader_start="b", reader_width=16)


def reading(start, tmp_path, name="first", **more):
    """Settings of a VIRST whose second fusion looks at what its backbone read."""
    config = settings(start, tmp_path, name=name, **more)
    model = replace(config.model, frames=FrameConfig(num_frames=4, num_seg=4))
    model = replace(model, fusion=replace(model.fusion, reads_cells=True))
    return replace(config, model=replace(model, backbone=replace(model.backbone, reader_width=16)))


def test_a_run_may_add_to_the_virst_that_it_goes_on_from(start, tmp_path):
    run.train(reading(start, tmp_path))
    run.export(reading(start, tmp_path), tmp_path / "model", {})
    old = folder.load(tmp_path / "model")
    config = settings(start, tmp_path, name="more", init=str(tmp_path / "model"), adds=("points", "details"))
    config = replace(config, loss=LossConfig(places=1.0))
    begun = run.start(config, "cpu")
    held = old.state_dict()
    new = {name for name in begun.state_dict() if name not in held}
    assert {name.split(".")[1] for name in new} == {"points", "reader"}
    assert all(torch.equal(value, begun.state_dict()[name]) for name, value in held.items())
    assert {name for name in new if begun.get_parameter(name).requires_grad} == new
    learned = run.train(config).model.state_dict()
    assert all((learned[name] != begun.state_dict()[name]).any() for name in new)
    run.export(config, tmp_path / "grown", {})
    again = folder.load(tmp_path / "grown")
    assert again.config.fusion.has_points
    assert again.config.backbone.reader_details
    one, other = (folder.grown(old, ("points",), seed=seed) for seed in (1, 2))
    assert not torch.equal(one.second.points.mark.weight, other.second.points.mark.weight)
    later = folder.grown(one, ("details",), seed=3)
    assert torch.equal(later.second.points.mark.weight, one.second.points.mark.weight)
    assert not later.backbone.reader.detail.weight.any()
    taking = replace(begun.config.backbone, learned_start=str(tmp_path / "model"))
    assert not build(replace(begun.config, backbone=taking), seed=1).backbone.reader.detail.weight.any()
    plain = settings(start, tmp_path, name="plain")
    with pytest.raises(ConfigError, match="points need a second fusion that reads cells, details need a reader"):
        folder.grown(run.start(plain, "cpu"), ("points", "details"), seed=1)
    twice = replace(config, init=str(tmp_path / "grown"), adds=("details",), name="twice")
    with pytest.raises(ConfigError, match=r"has details; leave it out"):
        run.start(twice, "cpu")
    with pytest.raises(ConfigError, match=r"'adds' is \['points'\] without 'init'"):
        settings(start, tmp_path, adds=("points",))


def test_a_run_lowers_its_loss(start, tmp_path):
    data = {"world": DataConfig(num_videos=1, num_frames=12)}
    optimizer = OptimizerConfig(learning_rate=3e-3, matrix_rate=0.0, warmup_steps=1, weight_decay=0.0)
    told = []
    config = settings(
        start, tmp_path, "warm", steps=16, data=data, sampling="centres", optimizer=optimizer, save_every=99
    )
    run.train(config, report=told.append)
    losses = [figures["loss"] for figures in told]
    assert sum(losses[-4:]) < 0.9 * sum(losses[:4])


def test_a_loss_that_is_no_number_stops_the_run_and_names_its_sentences(start, tmp_path, monkeypatch):
    config = settings(start, tmp_path)
    forward = Objective.forward
    monkeypatch.setattr(
        Objective, "forward", lambda self, *given: (forward(self, *given)[0] * float("nan"), {"loss": 0.0})
    )
    with pytest.raises(TrainingError, match=r"video-train-0-.* at step 0 is not finite"):
        run.train(config)


def test_matrix_products_may_be_in_bfloat16(start, tmp_path):
    config = settings(start, tmp_path, "propagation", steps=1, dtype="bfloat16")
    told = []
    objective = run.train(config, report=told.append)
    assert all(value.dtype == torch.float32 for value in objective.parameters())
    plain = Objective(run.start(config, "cpu"), config)
    step = Drawer.open(config, plain.model.sizes).step(0)
    loss = plain(step, torch.Generator().manual_seed(0))[0].item()
    assert told[0]["loss"] == pytest.approx(loss, rel=0.01)
    assert told[0]["loss"] != loss


def test_the_backbone_alone_may_compute_in_bfloat16(start, tmp_path):
    losses, states = {}, {}
    for dtype in ("float32", "bfloat16_backbone"):
        config = settings(start, tmp_path, dtype=dtype)
        objective = Objective(run.start(config, "cpu"), config)
        step = Drawer.open(config, objective.model.sizes).step(0)
        found = objective.model(step.batch)
        assert found.features.cells.dtype == found.prompts.tokens.dtype == torch.float32
        states[dtype] = found.reading.st_states.float()
        losses[dtype] = objective(step, torch.Generator().manual_seed(0))[0].item()
    assert losses["bfloat16_backbone"] == pytest.approx(losses["float32"], rel=0.01)
    # Not the losses: so little of a new model's loss hangs on its backbone that rounding can leave them equal.
    differ = states["bfloat16_backbone"] != states["float32"]
    assert differ.float().mean() > 0.5


@pytest.mark.parametrize("stage", ["warm", "alignment"])
def test_looks_at_what_is_held_out_are_told_and_change_nothing(start, tmp_path, stage):
    told = []
    plain = run.train(settings(start, tmp_path / "plain", stage))
    seen = {"video": DataConfig(split="held_out", num_videos=3, num_frames=12)}
    config = settings(start, tmp_path / "looking", stage, held_out=seen, held_out_every=1, held_out_steps=2)
    looking = run.train(config, report=told.append)
    for (name, first), second in zip(plain.state_dict().items(), looking.state_dict().values(), strict=True):
        assert torch.equal(first, second), name
    assert all(0 <= figures["held_out_video_iou_visible"] <= 1 for figures in told)
    assert ("held_out_video_iou_propagated" in told[0]) == (stage == "warm")
    again = run.train(
        replace(config, held_out={}, held_out_every=0), report=told.append
    )  # the run may be looked at less
    assert len(told) == 2
    assert again.config.held_out == {}
    with pytest.raises(ConfigError, match="give both, or neither"):
        settings(start, tmp_path, held_out_every=5)


def test_a_warm_branch_outlives_the_backbone_that_stood_beside_it(start, tmp_path):
    config = settings(start, tmp_path / "runs", "warm", steps=1)
    first = run.train(config)
    run.export(config, tmp_path / "warm-model", {})
    other = tiny_model(tmp_path / "other", seed=1)
    model = replace(config.model, backbone=replace(config.model.backbone, start=str(other)))
    moved = Objective(run.start(replace(config, model=model), "cpu"), config)
    marks = [
        run.marks_of(config, each.model, Drawer.open(config, each.model.sizes))["start"] for each in (first, moved)
    ]
    assert marks[0] == marks[1]
    branch = replace(config.model.branch, start=str(tmp_path / "warm-model"))
    onward = run.start(settings(start, tmp_path, model=replace(model, branch=branch)), "cpu")
    with pytest.raises(CheckpointError, match="trained beside another content"):
        folder.load(tmp_path / "warm-model", start=str(other))
    held = folder.load(tmp_path / "warm-model").branch.state_dict()
    assert all(torch.equal(value, held[name]) for name, value in onward.branch.state_dict().items())


def test_a_step_is_drawn_from_its_number_alone(start, tmp_path):
    config = settings(start, tmp_path, fewest_frames=2)
    drawer = Drawer.open(config, run.start(config, "cpu").sizes)
    first, again, other = (drawer.step(step).batch for step in (5, 5, 6))
    assert first.names == again.names
    assert first.frames == again.frames
    assert torch.equal(first.canvases, again.canvases)
    assert torch.equal(first.masks, again.masks)
    assert first.names != other.names or first.frames != other.frames
    counts = {drawer.step(step).batch.clips.frames.shape[1] for step in range(4)}
    assert counts <= {2, 3, 4}
    assert len(counts) > 1


def test_families_of_more_weight_are_drawn_more_often(start, tmp_path):
    config = settings(start, tmp_path, sentences_per_video=1, videos_per_step=8)
    weighted = replace(config, data={"world": DataConfig(num_videos=40, num_frames=12, families={"motion": 1e6})})

    def share(config: VirstTrainConfig) -> float:
        drawer = Drawer.open(config, run.start(config, "cpu").sizes)
        names = [name for step in range(6) for name in drawer.step(step).batch.names]
        return sum("motion" in name for name in names) / len(names)

    assert share(weighted) > 0.7
    assert share(config) < 0.4
    with pytest.raises(ConfigError, match=r"data\.families\.motion' is 0"):
        DataConfig(families={"motion": 0.0})


@pytest.mark.parametrize("stage", ["few_frame", "propagation"])
def test_a_run_may_ask_first_frames_alone(start, tmp_path, stage, monkeypatch):
    config = settings(start, tmp_path, stage, anchors="first")
    objective = Objective(run.start(config, "cpu"), config)
    model, asked = objective.model, []
    own_masks, tracked = model.own_masks, model.tracked

    def noting_pairs(found, pairs, *more):
        asked.extend(frame for _, frame in pairs)
        return own_masks(found, pairs, *more)

    def noting_anchors(found, rows, anchors, frames, *more):
        asked.extend(anchors)
        assert len(frames) > len(anchors)
        return tracked(found, rows, anchors, frames, *more)

    monkeypatch.setattr(model, "own_masks", noting_pairs)
    monkeypatch.setattr(model, "tracked", noting_anchors)
    objective(Drawer.open(config, model.sizes).step(0), torch.Generator().manual_seed(0))
    assert asked
    assert set(asked) == {0}


def test_conversations_teach_the_backbone_to_answer_beside_the_masks(start, tmp_path):
    frames = tmp_path / "texts" / "a" / "b"
    frames.mkdir(parents=True)
    for index in (0, 1, 10):
        Image.new("RGB", (40, 20), (20 * index, 0, 0)).save(frames / f"{index}.jpg")
    turns = [
        {"from": "human", "value": "<video>\nwhat is in the picture?"},
        {"from": "gpt", "value": "a dog on a star"},
    ]
    rows = [{"id": 0, "video": "a/b.mp4", "conversations": turns}]
    (tmp_path / "texts" / "0_30_s_academic_v0_1_cap_processed.json").write_text(json.dumps(rows))
    text = {"told": TextConfig(dataset="llava-video", root=str(tmp_path / "texts"))}
    config = settings(start, tmp_path, text=text, texts_per_step=2)
    objective = Objective(run.start(config, "cpu"), config)
    step = Drawer.open(config, objective.model.sizes).step(0)
    assert step.text.sentences.answers == ("a dog on a star",) * 2
    assert step.text.clips.num_frames == [3, 3]
    loss, figures = objective(step, torch.Generator().manual_seed(0))
    alone, _ = objective(replace(step, text=None), torch.Generator().manual_seed(0))
    assert figures["token"] > 1  # a model with random weights knows nothing of answers
    assert loss.item() != alone.item()
    with pytest.raises(ConfigError, match="give both, or neither"):
        settings(start, tmp_path, text=text)
    with pytest.raises(ConfigError, match="leave it out of 'warm'"):
        settings(start, tmp_path, "warm", text=text, texts_per_step=1)


def test_boxes_hold_their_masks_and_nothing_has_none():
    masks = torch.zeros(2, 10, 20, dtype=torch.bool)
    masks[0, 3:5, 4:10] = True
    boxes = boxes_of(masks)
    assert torch.allclose(boxes[0], torch.tensor([0.2, 0.3, 0.5, 0.5, 1.0]))
    assert not boxes[1].any()
    prompter = BoxPrompter(3, 8, torch.Generator().manual_seed(0))
    codes = []
    prompts = prompter(masks, lambda points: codes.append(points) or torch.ones(2, 3, 8))
    assert torch.allclose(prompts - prompter(masks, lambda points: torch.zeros(2, 3, 8)), boxes[:, 4:, None])
    assert torch.allclose(codes[0][0, 0], boxes[0, :2])  # its upper left corner
    corners = outline(boxes, 4)[0]
    assert torch.allclose(corners, torch.tensor([[0.2, 0.3], [0.5, 0.3], [0.5, 0.5], [0.2, 0.5]]))


def test_settings_that_contradict_are_refused(start, tmp_path):
    with pytest.raises(ConfigError, match="a dataset needs its folder"):
        DataConfig(dataset="mevis")
    with pytest.raises(ConfigError, match=r"data\.split' is 'val'"):
        DataConfig(split="val")
    with pytest.raises(ConfigError, match="Muon"):
        settings(start, tmp_path, optimizer=OptimizerConfig())
    with pytest.raises(ConfigError, match="nothing is drawn"):
        settings(start, tmp_path, data={"world": DataConfig(weight=0.0)})
    frozen = settings(start, tmp_path, learns=("backbone",))
    model = frozen.model
    still = replace(model, backbone=replace(model.backbone, lora=LoraConfig()))
    made = run.start(replace(frozen, model=still), "cpu")
    made.requires_grad_(False)
    with pytest.raises(ConfigError, match="nothing of this model can learn"):
        Objective(made, frozen)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_shipped_settings_can_be_read(path):
    assert load_config(path, VirstTrainConfig).stage in STAGES
