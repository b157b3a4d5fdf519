"""A run that starts from a model in the published layout: its ids, its tasks, its tokenizers, its files."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dynin import config as configs
from dynin import testing
from dynin.cli.app import main
from dynin.data.records.sources import SourceConfig
from dynin.data.records.template import Template
from dynin.errors import ConfigError
from dynin.media import audio, image
from dynin.model.family import FAMILIES
from dynin.model.remap import row_order
from dynin.model.transformer import Transformer
from dynin.pipeline.folder import EMBEDDED_FOLDER, load
from dynin.training import optim, start
from dynin.training import run as runs
from dynin.training.config import LoraConfig, OptimizerConfig, TrainConfig
from dynin.training.freeze import Frozen
from dynin.training.objective import ObjectiveConfig
from dynin.types import Modality

ROOT = Path(__file__).parents[3]
CPU = torch.device("cpu")
SHORT = {"t2t": {"text": 16}, "t2i": {"prompt": 24, "image": 16}, "t2s": {"prompt": 64, "speech": 32}}


@pytest.fixture(scope="module")
def omni(tmp_path_factory):
    """A tiny Dynin-Omni that carries media tokenizers with it."""
    return with_media(testing.tiny_published(tmp_path_factory.mktemp("omni") / "model"))


@pytest.fixture(scope="module")
def mmada(tmp_path_factory):
    """A tiny MMaDA likewise, which has no rows for speech."""
    return with_media(testing.tiny_published(tmp_path_factory.mktemp("mmada") / "model", "mmada"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Own data of three tasks."""
    folder = tmp_path_factory.mktemp("rows")
    image.write(folder / "dot.png", testing.small_picture())
    audio.write(folder / "tone.wav", testing.small_sound(0.5))
    answers = (
        {"type": "text", "text": "hi"},
        {"type": "image", "path": "dot.png"},
        {"type": "audio", "path": "tone.wav"},
    )
    told = [
        {"messages": [{"role": role, "content": [part]} for role, part in (("user", asked), ("assistant", answer))]}
        for asked in ({"type": "text", "text": "a dog"}, {"type": "text", "text": "stars"})
        for answer in answers
    ]
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in told))
    return path


def with_media(folder):
    for name in ("image", "speech"):
        shutil.copytree(EMBEDDED_FOLDER / name, folder / name)
    return folder


def settings(init, output, rows, **changes):
    return TrainConfig(
        **{
            "name": "run", "steps": 2, "rows_per_step": 6, "tokens_per_batch": 512, "whole_prob": 1.0,
            "init": str(init), "output": output, "data": {"own": SourceConfig(path=str(rows))}, "lengths": SHORT,
            "objective": ObjectiveConfig(recipe="published"),
            "optimizer": OptimizerConfig(learning_rate=1e-3, matrix_rate=0.0, warmup_steps=0, average_decay=0.0),
            **changes,
        }
    )  # fmt: skip


def run(config):
    return runs.run(config, device=CPU, report=lambda figures: None)


# ---- end to end -----------------------------------------------------------------------------------------------------


def test_a_published_model_trains_on_own_rows_and_is_written_for_every_reader(omni, rows, tmp_path, capsys):
    config = settings(omni, tmp_path, rows)
    side = start.side_of(config, CPU)
    made = {row.task.name: row for row in runs.source_of(config, side).rows(0)}
    assert set(made) == {"t2t", "t2i", "t2s"}
    assert (len(made["t2i"].ids), len(made["t2s"].ids)) == (24 + 16 + 2, 64 + 1 + 32)
    network, _ = run(config)
    before = load(omni, dtype=torch.float32).model.state_dict()
    assert any(not torch.equal(value, before[name]) for name, value in network.state_dict().items())
    folder = tmp_path / "model"
    runs.export(config, folder, {"code": "test"})
    after = load(folder, dtype=torch.float32)
    for name, value in network.state_dict().items():
        assert torch.equal(after.model.state_dict()[name], value.bfloat16().float()), name
    assert after.vocabulary == side.vocabulary
    told = json.loads((folder / "config.json").read_text())["dynin_training"]
    assert (told["steps"], told["data"], told["started from"]) == (2, str(rows), str(omni))
    assert (folder / "image").is_dir()
    assert main(["generate", "a dog", "--model", str(folder), "--to", "text", "--steps", "1"]) == 0, capsys.readouterr()
    transformers = pytest.importorskip("transformers")
    wrapped = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.tensor([[side.vocabulary["bos"], 5, side.vocabulary["mask"], side.vocabulary.speech.start]])
    with torch.no_grad():
        assert torch.equal(wrapped(ids).logits, after.model(ids))


def test_a_model_without_speech_learns_it_in_the_wider_layout(mmada, rows, tmp_path):
    config = settings(mmada, tmp_path, rows, layout="published", frozen=("text", "image", "special"))
    network, _ = run(config)
    runs.export(config, tmp_path / "model", {})
    after = load(tmp_path / "model", dtype=torch.float32)
    assert (after.vocabulary.name, after.vocabulary.size) == ("published", 138_752)
    before, layout = load(mmada, dtype=torch.float32), after.vocabulary
    for span in (layout.text, layout.image):
        now = after.model.embed.weight[span.start : span.stop]
        assert torch.equal(now, before.model.embed.weight[span.start : span.stop].bfloat16().float())
    first = start.network_of(config, CPU).embed.weight[layout.speech.start : layout.speech.stop]
    assert not torch.equal(network.embed.weight[layout.speech.start : layout.speech.stop], first)


def test_adapters_learn_beside_a_published_model_as_it_is_stored(omni, rows, tmp_path):
    pytest.importorskip("peft")
    config = settings(omni, tmp_path, rows, lora=LoraConfig(rank=2), dtype="bfloat16")
    network, average = run(config)
    assert network.embed.weight.dtype == torch.bfloat16
    assert all(".lora_" in name and value.dtype == torch.float32 for name, value in average.tensors.items())
    runs.export(config, tmp_path / "model", {})
    assert torch.equal(load(tmp_path / "model").model.embed.weight, load(omni).model.embed.weight)


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": {"t2i": 1.0}}, r"\[tasks\] is Emoji World, .* layout published .*\[data.NAME\]"),
        ({"preview_every": 1}, "previews are of Emoji World"),
        ({"lengths": {"t2z": {"text": 4}}}, "unknown task 't2z'; did you mean"),
        ({"lengths": {"t2s": {"spech": 4}}}, "unknown setting 'lengths.t2s.spech'; did you mean 'speech'"),
        ({"lengths": {"t2i": {"image": 15}}}, "lengths.t2i.image.* is 15; expected a square number"),
        ({"lengths": {"t2i": {"prompt": 0}}}, "is 0; expected at least 1"),
        ({"lengths": {"v2t": {"given_px": 100}}}, "is 100; expected a multiple of 16"),
        ({"lengths": {"t2t": {"given_px": 96}}}, "unknown setting 'lengths.t2t.given_px'"),
        ({"layout": "published", "text_len": 138_000}, "image codes cannot begin there"),
    ],
)
def test_a_setting_that_does_not_fit_the_model_is_named(omni, rows, tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        run(settings(omni, tmp_path, rows, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layout": "published", "init": ""}, "set 'init' to one"),
        ({"text_len": 5}, "set that too"),
        ({"num_frames": -1}, "'num_frames' is -1"),
        ({"num_frames": 8, "tasks": {"t2i": 1.0}}, "Emoji World have 4 frames"),
    ],
)
def test_settings_that_contradict_each_other_are_named(rows, tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        settings(changes.pop("init", "somewhere"), tmp_path, rows, **changes)


def test_a_model_with_the_embedded_layout_takes_on_no_other(rows, tmp_path):
    config = settings(EMBEDDED_FOLDER, tmp_path, rows, layout="published", lengths={})
    with pytest.raises(ConfigError, match="layout embedded, whose ids mean other things"):
        start.side_of(config, CPU)


def test_lengths_frames_and_sizes_are_those_of_the_run(omni, rows, tmp_path):
    lengths = {"v2t": {"given_px": 128, "text": 129}}
    side = start.side_of(settings(omni, tmp_path, rows, lengths=lengths, num_frames=8), CPU)
    task = side.tasks["v2t"]
    assert (task.given_px, task.lengths["text"], side.tokenizers.video.num_frames) == (128, 129, 8)
    assert side.size_px(task, Modality.VIDEO, is_target=False) == 128
    assert side.num_codes(Modality.VIDEO, testing.small_video(), 128) == 8 * 64


# ---- tables that grow -----------------------------------------------------------------------------------------------


def narrow(family):
    """Tables whose every row holds its number."""
    layout = FAMILIES[family].layout()
    sizes = replace(start.EMBEDDED_MODEL, d_model=4, num_heads=1, num_kv_heads=1, num_layers=1, mlp_dim=4)
    model = Transformer(replace(sizes, num_rows=layout.size))
    with torch.no_grad():
        for table in (model.embed.weight, model.output.weight):
            table.copy_(torch.arange(layout.size)[:, None].float().expand(-1, 4))
    return layout, model


@pytest.mark.parametrize("family", ["llada", "mmada", "published"])
@pytest.mark.parametrize("text_len", [126_349, 126_372, 126_464])
def test_every_id_and_code_keeps_its_row_in_a_wider_layout(family, text_len):
    before, model = narrow(family)
    after = FAMILIES["published"].layout(text_len)
    start.widen(model, before, after, how="mean", seed=0)
    table = model.embed.weight[:, 0]
    assert (model.config.num_rows, model.embed.num_embeddings, model.output.out_features) == (138_752,) * 3
    assert torch.equal(table[:126_349], torch.arange(126_349).float())
    if len(before.image):
        codes = torch.arange(before.image.start, before.image.stop).float()
        assert torch.equal(table[after.image.start : after.image.stop], codes)
    if family == "published":
        assert torch.equal(table, row_order(before, after).float())
    assert torch.equal(model.embed.weight[:126_349], model.output.weight[:126_349])


def test_new_rows_have_the_mean_of_the_old_ones_and_a_billionth_of_their_covariance():
    draw = torch.Generator().manual_seed(0)
    old = torch.randn(500, 3, generator=draw) @ torch.tensor([[2.0, 0, 0], [1, 1, 0], [0, 0.5, 3]]) + 5
    new = start.new_rows(old, 20_000, "mean", draw)
    mean = old.mean(dim=0)
    wanted = (old - mean).T @ (old - mean) / len(old)
    drawn = (new.double() - mean).T @ (new.double() - mean) / len(new)
    assert (new - mean).abs().max() < 1e-3
    assert torch.allclose(drawn * 1e9, wanted.double(), rtol=0.1, atol=0.3)
    flat = torch.ones(10, 3)
    assert torch.equal(start.new_rows(flat, 2, "mean", draw), flat[:2])  # no covariance: the mean alone
    plain = start.new_rows(old, 20_000, "normal", draw)
    assert plain.mean().abs() < 1e-3
    assert plain.std() == pytest.approx(0.02, rel=0.02)


def test_parts_of_a_published_model_are_frozen_by_its_own_rows():
    layout, model = narrow("published")
    frozen = Frozen.of(model, layout, ("text", "image", "special"))
    ((_, learns), *_) = frozen.tables
    assert not learns[: layout.text.stop].any()
    assert not learns[layout.image.start : layout.image.stop].any()
    assert learns[layout.speech.start : layout.speech.stop].all()
    assert not learns[layout["mask"]].any()


# ---- the schedule, and the ready files ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "share"),
    [(0, 0.0), (1500, 0.5), (2999, 2999 / 3000), (3000, 1.0), (101_500, 0.5), (150_750, 0.146447), (200_000, 0.0)],
)
def test_the_published_schedule_is_met_to_the_step(step, share):
    """Stage 1: from 0 to the peak in 3,000 steps, then half a cosine to 0 at step 200,000."""
    config = OptimizerConfig(warmup_steps=3000, schedule="cosine", final_fraction=0.0)
    assert optim.share_of_peak(step, 200_000, config) == pytest.approx(share, abs=1e-6)


def test_a_cosine_ends_at_the_final_fraction_and_only_falls():
    config = OptimizerConfig(warmup_steps=10, schedule="cosine", final_fraction=0.1)
    shares = [optim.share_of_peak(step, 110, config) for step in range(111)]
    naive = [
        step / 10 if step < 10 else 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * (step - 10) / 100)) for step in range(111)
    ]
    assert shares == pytest.approx(naive)
    assert shares[60] == pytest.approx(0.55)
    assert shares[110] == pytest.approx(0.1)


def test_adamw_takes_its_numbers_from_the_settings():
    _, model = narrow("llada")
    config = OptimizerConfig(matrix_rate=0.0, beta1=0.8, beta2=0.999, eps=1e-6, weight_decay=0.1)
    (made,) = optim.build(model, config)
    assert {(group["betas"], group["eps"]) for group in made.param_groups} == {((0.8, 0.999), 1e-6)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "cosine", "decay_share": 0.3}, "a cosine falls from the warm-up on"),
        ({"beta1": 1.0}, "optimizer.beta1' is 1.0"),
        ({"eps": 0.0}, "optimizer.eps' is 0.0"),
    ],
)
def test_numbers_that_no_optimizer_can_use_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        OptimizerConfig(**changes)


TRAINING_FILES = [path for path in sorted((ROOT / "configs/train").rglob("*.toml")) if "codec-" not in path.name]
"""Those of the codecs have settings of another kind; tests/unit/training/test_codec_*.py read them."""


@pytest.mark.parametrize("path", TRAINING_FILES, ids=lambda path: path.stem)
def test_every_ready_file_is_read_without_a_word(path):
    """Types and keys; of training files also that templates are there and lengths are those of a task."""
    read = configs.load(path, TrainConfig, [])
    for source in read.data.values():
        if source.template:
            Template.read(ROOT / source.template)
    if path.parent.name == "8b":
        start.with_lengths(start.TABLES["published"], read.lengths, testing.tiny().tokenizers)
        assert (read.layout, read.objective.recipe, read.dtype) == ("published", "published", "bfloat16")


def test_every_template_is_a_row():
    for path in sorted((ROOT / "configs" / "data").glob("*.json")):
        Template.read(path)
