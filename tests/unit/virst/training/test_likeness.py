"""A small CLIP: pairs are true, what is true besides does not count, it resumes exactly, transformers loads it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dynin.cli.app import main
from dynin.config import load as load_config
from dynin.data.referring.emoji_world import EmojiReferring
from dynin.errors import CheckpointError, ConfigError, DataError
from dynin.training.config import OptimizerConfig
from dynin.virst import similarity
from dynin.virst.training import likeness
from dynin.virst.training.config import DataConfig
from dynin.virst.training.likeness_config import LikenessSizes, LikenessTrainConfig
from dynin.virst.training.likeness_measure import measure
from dynin.virst.training.likeness_source import PairDrawer, shown_of
from tests.referring_films import Source, film, nothing, track

transformers = pytest.importorskip("transformers")
CONFIG = Path(__file__).parents[4] / "configs" / "virst" / "likeness.toml"
SIZES = LikenessSizes(width=16, heads=2, image_layers=1, text_layers=1, num_ids=512, max_len=24)


def settings(output: Path, **more) -> LikenessTrainConfig:
    values = {
        "name": "likeness",
        "steps": 4,
        "sizes": SIZES,
        "data": {"world": DataConfig(num_videos=6, num_frames=12), "stills": DataConfig(num_videos=6, num_frames=1)},
        "videos_per_step": 3,
        "frames_per_video": 3,
        "texts_per_frame": 2,
        "output": output,
        "log_every": 2,
        "save_every": 2,
        "optimizer": OptimizerConfig(learning_rate=1e-3, matrix_rate=0.0, warmup_steps=1),
    }
    return LikenessTrainConfig(**{**values, **more})


def test_the_shipped_settings_are_read() -> None:
    config = load_config(CONFIG, LikenessTrainConfig, ())
    assert config.held_out["world"].split == "held_out"
    network = likeness.new_network(
        config.sizes, likeness.make_tokenizer(["a dog"], config.sizes), temperature=0.07, seed=0
    )
    assert sum(value.numel() for value in network.parameters()) < 1_000_000


@pytest.mark.parametrize("spot", [0.0, 1.0])
def test_every_frame_shows_something_of_what_its_sentences_mean(tmp_path, spot) -> None:
    drawer = PairDrawer.open(settings(tmp_path, videos_per_step=8, spot_share=spot, spot_steps=10**9), 64)
    source = drawer.sources["world"]
    texts = {told.text: told for index in range(6) for told in shown_of(source, index).told}
    pairs = drawer.step(3)
    assert pairs.frames.shape[1:] == (3, 64, 64)
    assert len(pairs.texts) == 2
    assert all(len(row) == len(pairs.frames) for row in pairs.texts)
    assert not pairs.is_other.diagonal(dim1=1, dim2=2).any()
    assert pairs.is_other.any()
    assert any(text in texts for text in pairs.texts[0])
    again = drawer.step(3)
    assert torch.equal(pairs.frames, again.frames)
    assert pairs.texts == again.texts
    assert torch.equal(pairs.is_other, again.is_other)
    assert not torch.equal(drawer.step(4).frames[0], pairs.frames[0])
    grey = (pairs.frames.abs() < 0.01).all(dim=1).float().mean(dim=(1, 2))
    assert (grey > 0.5).all() if spot else (grey < 0.5).all()


def test_a_frame_without_the_target_counts_against_its_sentence(tmp_path) -> None:
    late = [*nothing(2), *track((4, 4), (0, 3), 3)]
    source = Source([[film("v", "late", late), film("v", "always"), film("v", "none", nothing(), family="none")]])
    config = settings(tmp_path, videos_per_step=1, frames_per_video=5, texts_per_frame=1)
    data = {"films": DataConfig(dataset="mevis", root="x")}
    drawer = PairDrawer(sources={"films": source}, config=replace(config, data=data), size_px=8)
    for step in range(20):
        pairs = drawer.step(step)
        said = pairs.texts[0]
        assert len(said) == 5
        assert not any("none" in text for text in said)
        shows_late = [
            float(frame[0, 0, 0]) * 127.5 + 127.5 >= 1.5 for frame in pairs.frames
        ]  # frame t is grey of value t
        for row in range(5):
            for column, text in enumerate(said):
                is_true = "always" in text or shows_late[row]
                assert bool(pairs.is_other[0, row, column]) == (not is_true and said[row] != text)


def test_the_loss_is_that_of_clip_and_what_is_true_besides_does_not_count() -> None:
    generator = torch.Generator().manual_seed(0)
    images, texts = torch.randn(2, 4, 8, generator=generator)
    is_other = ~torch.eye(4, dtype=torch.bool)
    scale = torch.tensor(3.0)
    logits = images @ texts.T * scale
    rows = -logits.log_softmax(1).diagonal().mean()
    columns = -logits.log_softmax(0).diagonal().mean()
    assert likeness.contrast(images, texts, is_other, scale) == pytest.approx(float((rows + columns) / 2), rel=1e-6)
    twins = torch.cat([texts[:1], texts[:1], texts[2:]])
    knows = is_other.clone()
    knows[0, 1] = knows[1, 0] = False
    alone = likeness.contrast(images, twins, knows, scale)
    moved = torch.cat([twins[:1], twins[1:2], twins[2:]])
    assert likeness.contrast(images, moved, knows, scale) == alone
    assert likeness.contrast(images, twins, is_other, scale) > alone


def test_words_become_pieces_between_marks_and_any_text_can_be_read() -> None:
    made = likeness.make_tokenizer(["the dog", "the dog and the cat"] * 5, SIZES)
    ids = likeness.ids_of(
        made, ["The Dog", "\N{LATIN CAPITAL LETTER U WITH DIAERESIS}bermut \N{DOG FACE}", "the dog " * 40]
    )
    start, end = (made.token_to_id(mark) for mark in (likeness.START, likeness.END))
    assert ids.shape == (3, 24)
    assert (ids[:, 0] == start).all()
    assert (ids[:, -1] == end).all()
    assert ids[0].tolist() == likeness.ids_of(made, ["the dog", "the dog " * 40])[0].tolist()
    assert made.decode(ids[1].tolist()).strip() == "\N{LATIN SMALL LETTER U WITH DIAERESIS}bermut \N{DOG FACE}"


def test_a_training_resumes_exactly_and_transformers_loads_what_it_wrote(tmp_path) -> None:
    told = []
    whole = settings(tmp_path / "whole")
    likeness.train(whole, report=told.append)
    assert [figures["step"] for figures in told] == [2, 4]
    assert {"loss", "scale", "frames_per_s"} <= set(told[0])
    found = likeness.export(whole, tmp_path / "model", {"data": "emoji-world"})
    halves = settings(tmp_path / "halves")

    class StopError(Exception):
        """In the middle."""

    def stop(figures):
        if figures["step"] == 4:
            raise StopError

    with pytest.raises(StopError):
        likeness.train(halves, report=stop)
    likeness.train(halves)
    again = likeness.export(halves, tmp_path / "again", {})
    frame = torch.zeros(3, 64, 64)
    assert again([frame], "the dog") == found([frame], "the dog")

    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    network = transformers.AutoModel.from_pretrained(tmp_path / "model", dtype=torch.float32)
    assert type(network).__name__ == "CLIPModel"
    ids = words(["the dog", "a cat and a star"], padding=True, return_tensors="pt")["input_ids"]
    assert ids.tolist() == likeness.ids_of(found.tokenizer, ["the dog", "a cat and a star"]).tolist()
    assert torch.allclose(similarity.text_vectors(network.eval(), ids)[0], found.of_sentence("the dog"), atol=1e-6)
    facts = json.loads((tmp_path / "model" / "provenance.json").read_text())
    assert facts["steps"] == 4
    assert facts["data"] == "emoji-world"
    assert sum(path.stat().st_size for path in (tmp_path / "model").iterdir()) < 300_000


def test_a_training_goes_on_from_a_clip(tmp_path) -> None:
    first = settings(tmp_path / "first", steps=2)
    likeness.train(first)
    likeness.export(first, tmp_path / "model", {})
    second = settings(tmp_path / "second", steps=2, init=str(tmp_path / "model"), optimizer=first.optimizer)
    before = {name: value.clone() for name, value in likeness.start(second).network.named_parameters()}
    likeness.train(second)
    after = dict(likeness.export(second, tmp_path / "more", {}).network.named_parameters())
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_a_run_without_a_state_and_a_folder_of_something_else_are_refused(tmp_path) -> None:
    with pytest.raises(CheckpointError):
        likeness.export(settings(tmp_path), tmp_path / "model", {})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="holds something that is no model"):
        likeness.export(settings(tmp_path), tmp_path / "full", {})
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["letter.txt"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"steps": 0}, "setting 'steps' is 0"),
        ({"spot_share": 1.5}, "setting 'spot_share' is 1.5"),
        ({"temperature": 0.0}, "setting 'temperature' is 0.0"),
        ({"data": {}}, "nothing is drawn"),
        ({"name": "../up"}, "a folder below 'output'"),
        ({"optimizer": OptimizerConfig()}, "Muon trains"),
    ],
)
def test_settings_that_mean_nothing_are_refused(tmp_path, more, message) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(tmp_path, **more)
    with pytest.raises(ConfigError, match="patches must fill the picture"):
        LikenessSizes(image_px=60)


def test_the_measure_tells_one_who_sees_from_one_who_does_not() -> None:
    source = EmojiReferring(9, "held_out", num_videos=12, num_frames=12)
    areas = {}
    for index in range(12):
        shown = shown_of(source, index)
        for frame in range(12):
            for told in shown.told:
                key = (shown.read_frame(frame).tobytes(), told.text)
                areas[key] = float(sum(shown.areas(frame)[thing] for thing in told.things))

    def sees(frames, sentence):
        levels = [np.rint((frame.numpy() + 1) * 127.5).astype(np.uint8).transpose(1, 2, 0) for frame in frames]
        return tuple(areas.get((picture.tobytes(), sentence), 0.0) for picture in levels)

    found = measure(sees, source, 12)
    assert found["ranked"] == 1
    assert found["chosen"] > found["candidates"]
    assert measure(lambda frames, sentence: (0.5,) * len(frames), source, 12)["ranked"] == 0.5
    with pytest.raises(DataError, match="visible at times"):
        measure(sees, EmojiReferring(9, "held_out", num_videos=2, num_frames=1), 2)


def test_the_command_trains_writes_and_measures(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    toml = CONFIG.read_text()
    (tmp_path / "likeness.toml").write_text(toml)
    small = ("sizes.width=16", "sizes.image_layers=1", "sizes.text_layers=1", "steps=2", "videos_per_step=2")
    data = ("data.world.num_videos=4", "data.stills.num_videos=4", "held_out_videos=8", "log_every=1")
    flags = [flag for each in (*small, *data) for flag in ("--set", each)]
    assert main(["virst", "train-likeness", "likeness.toml", "--device", "cpu", *flags]) == 0
    said = capsys.readouterr().out
    assert "ranked" in said
    assert "likeness: runs/virst/likeness/model" in said
    assert len(similarity.load(tmp_path / "runs/virst/likeness/model")([torch.zeros(3, 64, 64)], "a dog")) == 1
    assert main(["virst", "train-likeness", "none.toml"]) == 2
