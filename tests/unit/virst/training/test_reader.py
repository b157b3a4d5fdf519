"""A reader of frames: its targets agree with the tokenizer, it resumes exactly, a VIRST takes what it learned."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynin import checkpoint
from dynin.cli.app import main
from dynin.config import load as load_config
from dynin.data.emoji_world.artwork import NAMES, tile
from dynin.data.emoji_world.referring_motion import Path as Way
from dynin.data.emoji_world.referring_render import BAR, render
from dynin.data.emoji_world.referring_scene import ReferringScene, Track
from dynin.data.emoji_world.scene import BACKGROUNDS
from dynin.data.emoji_world.splits import is_background_held_out
from dynin.data.referring.emoji_world import EmojiReferring
from dynin.errors import CheckpointError, ConfigError, TrainingError
from dynin.media.image import from_levels
from dynin.pipeline import folder
from dynin.testing import tiny_model
from dynin.tokenizers.protocol import ImageTokenizer
from dynin.training import state
from dynin.training.config import OptimizerConfig
from dynin.training.resume import Policy
from dynin.virst.backbone.reader import FrameReader
from dynin.virst.build import build
from dynin.virst.training import reader
from dynin.virst.training.reader_config import ReaderTrainConfig
from dynin.virst.training.reader_source import Codes, PatchDrawer, draw_crowd, targets
from tests.tiny_virst import CONFIG as TINY_VIRST

CONFIG = Path(__file__).parents[4] / "configs" / "virst" / "reader.toml"
FRAMES, SIDE = 3, 4


def small(output: Path, **more) -> ReaderTrainConfig:
    values = {
        "name": "reader",
        "steps": 4,
        "width": 16,
        "crowds_per_step": 2,
        "pictures_per_crowd": 2,
        "stills_per_step": 1,
        "frames_per_video": 2,
        "films_from": 1,
        "num_videos": 5,
        "num_frames": 12,
        "held_out_videos": 1,
        "output": output,
        "log_every": 1,
        "save_every": 2,
        "optimizer": OptimizerConfig(learning_rate=1e-3, matrix_rate=0.0, warmup_steps=1),
    }
    return ReaderTrainConfig(**{**values, **more})


@pytest.fixture(scope="module")
def tokenizer() -> ImageTokenizer:
    return folder.load(None).tokenizers.image


@pytest.fixture(scope="module")
def codes(tokenizer) -> Codes:
    return Codes.of(tokenizer)


def scene_of(names: list[str], background: str = "blue", num_frames: int = 1) -> ReferringScene:
    way = Way(centres=np.full((num_frames, 2), 0.5), is_present=np.ones(num_frames, dtype=bool))
    tracks = tuple(Track(name=name, size="small", motion="still", heading=None, path=way) for name in names)
    return ReferringScene(tracks=tracks, bar=None, background=background, drift=np.zeros((num_frames, 2)), look=0)


def test_the_shipped_settings_are_read_and_every_code_is_told_apart(codes):
    config = load_config(CONFIG, ReaderTrainConfig, ())
    assert config.output / config.name == Path("runs/virst/reader")
    assert len({*codes.things.values(), *codes.grounds.values()}) == len(NAMES) + len(BACKGROUNDS)


@settings(max_examples=20, deadline=None)
@given(
    background=st.sampled_from(sorted(BACKGROUNDS)),
    placed=st.dictionaries(st.integers(0, SIDE * SIDE - 1), st.sampled_from(NAMES), max_size=SIDE * SIDE),
)
def test_where_things_fill_patches_the_targets_are_what_the_tokenizer_says(tokenizer, codes, background, placed):
    picture = np.ones((64, 64, 3)) * np.array(BACKGROUNDS[background])
    owners = np.zeros((1, 64, 64), dtype=np.uint8)
    for index, (patch, name) in enumerate(placed.items()):
        part = np.s_[16 * (patch // SIDE) :, 16 * (patch % SIDE) :]
        thing = tile(name, 16).astype(np.float64)
        picture[part][:16, :16] = thing[..., :3] * 255 + (1 - thing[..., 3:]) * picture[part][:16, :16]
        owners[0][part][:16, :16][thing[..., 3] > 0.5] = index + 1
    said, is_thing = targets(scene_of([*placed.values()], background), owners, codes)
    found = tokenizer.encode(from_levels(np.rint(picture).astype(np.uint8))[None])
    assert np.mean(said == found.numpy()) >= 15 / 16  # a few things look otherwise to it on some grounds
    assert sorted(np.flatnonzero(is_thing[0])) == sorted(placed)


@pytest.mark.parametrize(
    ("boxes", "patch", "winner"),
    [
        ([(20, 20, 12), (30, 30, 18)], 5, 0),  # middles in two patches: each says its own
        ([(18, 18, 8), (20, 24, 8)], 5, 1),  # the second covers a part of the first, so more of it is visible
        ([(16, 16, 9), (26, 26, 5)], 5, 0),  # the larger one of two
        ([(0, 0, 3)], 0, None),  # too little to see
        ([(-9, 50, 18)], 3, 0),  # cut by the edge: the middle of what is visible counts
    ],
)
def test_the_patch_of_the_visible_middle_says_the_thing(codes, boxes, patch, winner):
    owners = np.zeros((1, 64, 64), dtype=np.uint8)
    for index, (top, left, side) in enumerate(boxes):
        owners[0, max(top, 0) : top + side, max(left, 0) : left + side] = index + 1
    names = ["dog", "fish"][: len(boxes)]
    said, is_thing = targets(scene_of(names), owners, codes)
    expected = codes.grounds["blue"] if winner is None else codes.things[names[winner]]
    assert said[0, patch] == expected
    assert is_thing[0, patch] == (winner is not None)


def test_a_bar_and_what_it_hides_are_ground(codes):
    owners = np.full((1, 64, 64), BAR, dtype=np.uint8)
    said, is_thing = targets(scene_of(["dog"]), owners, codes)
    assert (said == codes.grounds["blue"]).all()
    assert not is_thing.any()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_crowd_keeps_what_is_held_out_and_shows_a_thing_in_as_many_patches_as_were_asked_for(seed):
    config = small(Path(), pictures_per_crowd=FRAMES, things_per_picture=5)
    scene = draw_crowd(config, np.random.default_rng(seed))
    assert scene.num_frames == FRAMES
    assert not any(is_background_held_out(track.name, scene.background) for track in scene.tracks)
    present = np.array([track.path.is_present for track in scene.tracks])
    centres = np.array([track.path.centres for track in scene.tracks])
    assert (present.sum(axis=0) == 5).all()
    for frame in range(FRAMES):
        patches = np.floor(centres[present[:, frame], frame] * SIDE).astype(int)
        assert len({tuple(patch) for patch in patches.tolist()}) == 5
        assert ((patches >= 0) & (patches < SIDE)).all()
    assert render(scene, 64).frames.shape == (FRAMES, 64, 64, 3)


def test_a_step_follows_from_its_number_alone(tmp_path, tokenizer):
    config = small(tmp_path)
    drawer, again = (PatchDrawer.open(config, tokenizer) for _ in range(2))
    again.step(1)
    one, other = drawer.step(3), again.step(3)
    assert torch.equal(one.frames, other.frames)
    assert torch.equal(one.codes, other.codes)
    assert len(one.frames) == 2 * 2 + 1 + 2
    assert len(drawer.step(0).frames) == 2 * 2  # no films yet
    assert one.codes.shape == one.is_thing.shape == (7, SIDE * SIDE)
    grounds = torch.tensor([*drawer.codes.grounds.values()])
    assert torch.equal(torch.isin(one.codes, grounds), ~one.is_thing)
    assert not torch.equal(one.frames, drawer.step(2).frames)


@pytest.mark.parametrize("num_frames", [1, 12])
def test_a_silent_film_shows_what_the_film_shows(num_frames):
    source = EmojiReferring(3, "held_out", num_videos=2, num_frames=num_frames)
    film, silent = source.film(1), source.silent_film(1)
    assert not silent.sentences
    assert np.array_equal(film.rendered.frames, silent.rendered.frames)
    assert np.array_equal(film.rendered.owners, silent.rendered.owners)
    with pytest.raises(IndexError):
        source.silent_film(2)


def test_a_stopped_run_ends_where_an_unbroken_one_ends(tmp_path, tokenizer):
    whole, parts = small(tmp_path / "whole"), small(tmp_path / "parts")
    reader.train(whole, tokenizer)

    def stop(figures):
        if figures["step"] == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        reader.train(parts, tokenizer, report=stop)
    reader.train(parts, tokenizer)
    one, other = (state.read_tensors(run.output / run.name / "state", "average") for run in (whole, parts))
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name
    with pytest.raises(CheckpointError, match="other settings"):
        reader.train(replace(parts, ground_weight=1.0), tokenizer)
    reader.train(replace(parts, ground_weight=1.0), tokenizer, resuming=Policy(is_exact=False))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_run_learns_a_few_pictures_by_heart(tmp_path, tokenizer, dtype, monkeypatch):
    config = small(tmp_path, steps=60, save_every=60, dtype=dtype, optimizer=OptimizerConfig(
        learning_rate=1e-2, matrix_rate=0.0, warmup_steps=5, weight_decay=0.0, average_decay=0.9))  # fmt: skip
    once = PatchDrawer.open(config, tokenizer).step(0)
    monkeypatch.setattr(PatchDrawer, "step", lambda drawer, step: once)
    figures = []
    reader.train(config, tokenizer, report=figures.append)
    assert figures[0]["things"] < 0.2
    assert figures[-1]["things"] > 0.9
    assert figures[-1]["ground"] > 0.9
    network = reader.export(config, tmp_path / "model", {})
    assert (network(once.frames).argmax(dim=-1) == once.codes)[once.is_thing].float().mean() > 0.9


def test_a_measure_counts_what_is_named_right(tmp_path, tokenizer):
    drawer = PatchDrawer.open(small(tmp_path), tokenizer, "held_out")
    patches = next(drawer.films(1))
    assert len(patches.frames) == 1 + 12
    said = iter([patches.codes])

    class Knowing(FrameReader):
        def forward(self, frames):
            return torch.nn.functional.one_hot(next(said), 1024).float()

    knowing = Knowing(1024, 16, torch.Generator())
    assert reader.measure(knowing, drawer, 1) == {"things": 1.0, "nearby": 1.0, "ground": 1.0}
    said = iter([patches.codes.where(patches.is_thing, torch.tensor(0))])
    assert reader.measure(knowing, drawer, 1) == {"things": 1.0, "nearby": 1.0, "ground": 0.0}
    alone = patches.codes.where(patches.is_thing, torch.tensor(0)).unflatten(1, (SIDE, SIDE))
    said = iter([alone.roll(1, dims=2).where(torch.arange(SIDE) > 0, 0).flatten(1)])  # everything one patch further
    found = reader.measure(knowing, drawer, 1)
    inside = patches.is_thing.unflatten(1, (SIDE, SIDE))[..., :-1].sum() / patches.is_thing.sum()
    assert found["things"] < 0.5
    assert found["nearby"] >= float(inside) - 1e-6


def test_the_command_leaves_a_reader_that_a_virst_takes(tmp_path, capsys):
    start = tiny_model(tmp_path / "start")
    less = {
        "init": start,
        "output": tmp_path / "runs",
        "steps": 2,
        "width": 16,
        "stills_per_step": 1,
        "videos_per_step": 0,
        "films_from": 0,
        "held_out_videos": 1,
    }
    overrides = [argument for name, value in less.items() for argument in ("--set", f"{name}={value}")]
    assert main(["virst", "train-reader", str(CONFIG), *overrides, "--device", "cpu"]) == 0
    assert "held_out emoji-world  things" in capsys.readouterr().out
    place = tmp_path / "runs" / "reader" / "model"
    part = checkpoint.load(place)
    assert part.config == {"width": 16, "num_codes": 64}
    assert part.provenance["steps"] == 2
    backbone = replace(TINY_VIRST.backbone, start=str(start), reader_width=16, reader_start=str(place))
    virst = build(replace(TINY_VIRST, backbone=backbone), seed=0)
    for name, value in virst.backbone.reader.state_dict().items():
        assert torch.equal(value, part.tensors[name]), name
    log = [json.loads(line) for line in (tmp_path / "runs" / "reader" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == 2


def test_a_loss_that_is_no_number_stops_the_run(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(FrameReader, "forward", lambda self, frames: torch.full((len(frames), 16, 1024), torch.nan))
    with pytest.raises(TrainingError, match=r"step 0: the loss is nan; lower"):
        reader.train(small(tmp_path), tokenizer)
    assert not (tmp_path / "reader" / "state").exists()


def test_a_run_without_a_state_is_not_written(tmp_path):
    with pytest.raises(CheckpointError):
        reader.export(small(tmp_path), tmp_path / "model", {})
    assert not (tmp_path / "model").exists()


def test_patches_of_another_size_are_refused(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "downsample", 8)
    with pytest.raises(ConfigError, match="patches of 8 px, the reader of 16 px"):
        PatchDrawer.open(small(tmp_path), tokenizer)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"steps": 0}, "steps"),
        ({"name": "../out"}, "'name'"),
        ({"width": 24}, "'width' is 24"),
        ({"ground_weight": 0.0}, "'ground_weight'"),
        ({"crowds_per_step": 0}, "without a picture"),
        ({"frames_per_video": 13}, "lower the first"),
        ({"optimizer": OptimizerConfig()}, "matrix_rate"),
    ],
)
def test_settings_that_contradict_are_refused(tmp_path, more, told):
    with pytest.raises(ConfigError, match=told):
        small(tmp_path, **more)
