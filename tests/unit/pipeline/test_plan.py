"""Plans of requests and trainings: where sizes come from, what a task's row makes of them, what the command says."""

import json
import shutil
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import torch
from allocations import counted

from dynin import checkpoint, testing
from dynin.cli.app import main
from dynin.errors import CheckpointError, RequestError
from dynin.model import memory
from dynin.model.config import EMBEDDED, PUBLISHED_8B
from dynin.model.transformer import Transformer
from dynin.pipeline import outline as outlines
from dynin.pipeline import parts as parts_of
from dynin.pipeline.folder import EMBEDDED_FOLDER
from dynin.pipeline.outline import outline
from dynin.pipeline.plan import (
    FRAMES_AT_ONCE,
    HEARING_BYTES_PER_S,
    HEARING_NUMBERS,
    PICTURE_NUMBERS_PER_PX,
    SPEAKING_BYTES_PER_FRAME,
    SPEAKING_NUMBERS,
    Work,
    plan,
)
from dynin.tokenizers.emova.config import VocoderSizes
from dynin.tokenizers.emova.vocoder import Vocoder
from dynin.tokenizers.video import VideoTokenizer

ROOT = Path(__file__).resolve().parents[3]
EIGHT_B = 16_232_488_960
"""Bytes of the published weights in bfloat16."""


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    def nothing(*args, **kwargs):
        raise FileNotFoundError("offline")

    monkeypatch.setattr("huggingface_hub.snapshot_download", nothing)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return testing.tiny_published(tmp_path_factory.mktemp("plan") / "model")


def parts(made):
    return {part.name: part.num_bytes for part in (*made.always, *made.in_turn)}


def weights(made):
    return parts(made)["embedding and output table"] + parts(made)["blocks"]


# --- where the sizes come from ---------------------------------------------------------------------------------------


def test_the_8b_model_is_known_by_name_alone():
    made = plan(outline("8b"), Work(task="t2i", dtype="bfloat16"))
    assert weights(made) == EIGHT_B
    assert parts(made)["picture tokenizer"] == 4 * 95_493_513
    assert 17e9 < made.num_bytes < 17.5e9


@pytest.mark.parametrize(
    ("name", "family", "rows"),
    [("dynin-omni-8b", "published", 138_752), ("mmada-8b", "mmada", 134_656), ("llada-8b-instruct", "llada", 126_464)],
)
def test_a_toml_file_is_planned_without_any_files_at_hand(name, family, rows):
    found = outline(ROOT / "configs" / "models" / f"{name}.toml")
    assert (found.vocabulary.name, found.network.num_rows) == (family, rows)
    assert found.network.d_model == PUBLISHED_8B.d_model
    assert "could not be fetched" in found.note
    assert found.told.dtype == "bfloat16"


def test_of_a_hub_id_the_config_alone_is_fetched(monkeypatch, tmp_path, tiny):
    asked = []

    def fetch(name, revision, allow_patterns):
        asked.append((name, revision, allow_patterns))
        (tmp_path / "config.json").write_text((tiny / "config.json").read_text())
        return tmp_path

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    found = outline("some/model@main")
    assert asked == [("some/model", "main", ["config.json"])]
    assert (found.network.d_model, found.stored_size, found.note) == (16, 2, "")


def test_an_unknown_id_that_cannot_be_fetched_is_an_error():
    with pytest.raises(CheckpointError, match="nobody/nothing: no such folder, and it could not be fetched"):
        outline("nobody/nothing")


def test_no_tensor_is_read(monkeypatch, tiny):
    for name in ("load_file", "safe_open"):
        if hasattr(checkpoint, name):
            monkeypatch.setattr(checkpoint, name, lambda *paths: pytest.fail("a tensor was read"))
    monkeypatch.setattr(outlines.Repository, "stream", lambda self: pytest.fail("a tensor was read"))
    for model in (None, tiny):
        assert plan(outline(model), Work(task="t2i")).num_bytes > 0


def test_headers_count_where_there_are_weights(tiny):
    found = outline(tiny)
    with torch.device("meta"):
        model = Transformer(found.network)
    assert weights(plan(found, Work(task="t2i"))) == 2 * sum(each.numel() for each in model.parameters())
    assert weights(plan(found, Work(task="t2i", dtype="float32"))) == 4 * sum(
        each.numel() for each in model.parameters()
    )
    assert found.file_bytes == max(path.stat().st_size for path in tiny.glob("*.safetensors"))


def test_tokenizers_beside_the_weights_count_as_they_are(tiny, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    shutil.copytree(EMBEDDED_FOLDER / "image", folder / "image")
    embedded = outline(None)
    assert outline(folder).image_bytes == embedded.image_bytes
    assert outline(tiny).image_bytes == 4 * 95_493_513


@pytest.mark.parametrize(("name", "numbers"), [("emova", parts_of.SPEECH_NUMBERS), ("magvit2", parts_of.IMAGE_NUMBERS)])
def test_the_published_tokenizers_have_their_numbers(name, numbers):
    pytest.importorskip("transformers")
    shapes = import_module(f"dynin.tokenizers.{name}.convert").expected_shapes()
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == numbers


def test_the_embedded_model_is_planned_from_its_own_files():
    found = outline(None)
    assert found.network == EMBEDDED
    assert (found.image_px, found.num_frames) == (64, 4)
    made = plan(found, Work(task="t2i"))
    assert weights(made) == 4 * sum(memory.num_parameters(EMBEDDED).values())
    assert made.title == "the embedded model: a request, t2i, as stored"


# --- what a task makes of them ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "row", "table"),
    [
        ("t2i", "2 rows x 1,155 positions", "1,024 places x 8,192 ids"),
        ("i2t", "1 rows x 1,541 positions", "1,024 places x 126,082 ids"),
        ("t2s", "2 rows x 1,409 positions", "128 places x 4,098 ids"),
    ],
)
def test_rows_are_those_of_the_table_of_tasks(task, row, table):
    told = {part.name: part.about for part in plan(outline("8b"), Work(task=task)).in_turn}
    assert (told["a pass"], told["logits"]) == (row, table)


def test_a_canvas_that_grows_is_planned_at_its_longest():
    short = plan(outline("8b"), Work(task="t2t", prompt_len=10))
    told = {part.name: part.about for part in short.in_turn}
    length = int(told["a pass"].split(" x ")[1].split()[0].replace(",", ""))
    assert length == 1024 + 10 + 1 + 8
    assert told["logits"].startswith("128 places")


def test_the_halves_of_the_published_speech_tokenizer_have_their_numbers():
    pytest.importorskip("transformers")
    from dynin.tokenizers.emova.tokenizer import EmovaTokenizer

    with torch.device("meta"):
        state = EmovaTokenizer().state_dict()
    hearing = sum(value.numel() for name, value in state.items() if name.startswith(("encoder.", "pre_quant.")))
    assert (hearing, sum(value.numel() for value in state.values()) - hearing) == (HEARING_NUMBERS, SPEAKING_NUMBERS)


def test_a_gpu_holds_both_halves_of_the_speech_tokenizer_and_no_text_tokenizer():
    here, there = (parts(plan(outline("8b"), Work(task="t2s", device=device))) for device in ("cpu", "cuda"))
    assert here["speech tokenizer"] == 4 * SPEAKING_NUMBERS
    assert there["speech tokenizer"] == 4 * (HEARING_NUMBERS + SPEAKING_NUMBERS)
    assert here["text tokenizer"] == 126_080 * 1_030
    assert "text tokenizer" not in there
    assert parts(plan(outline("8b"), Work(task="s2t")))["speech tokenizer"] == 4 * HEARING_NUMBERS
    with pytest.raises(RequestError, match="unknown device 'cud'.*cuda"):
        Work(task="t2s", device="cud")


def test_a_gpu_chooses_from_larger_pieces_and_holds_them():
    works = [Work(task="t2i", dtype="bfloat16", device=kind) for kind in ("cpu", "mps", "cuda")]
    here, *elsewhere = (parts(plan(outline("8b"), work))["choosing"] for work in works)
    assert elsewhere[0] == elsewhere[1]
    in_bfloat16, guided_arrays = 2 * 1024 * 8192 * 2, 4  # logits of both branches as they are; in float32, both, mixed
    assert elsewhere[0] == in_bfloat16 + guided_arrays * 1024 * 8192 * 4  # all places at once, fewer than 2^24 numbers
    assert here == in_bfloat16 + guided_arrays * 128 * 8192 * 4


def test_files_that_are_read_lie_in_the_memory_of_the_processor(tiny):
    here, there = (
        parts(plan(outline(tiny), Work(task="t2i", dtype="float32", device=kind))) for kind in ("cpu", "cuda")
    )
    assert here["files while they are read"] > 0
    assert there["files while they are read"] == 0


def test_pictures_of_another_size_are_planned_with_as_many_codes():
    usual, named, small = (plan(outline("8b"), Work(task="t2i", size_px=size)) for size in (0, 512, 256))
    assert usual == named
    assert parts(small)["drawing or seeing"] * 4 == parts(usual)["drawing or seeing"]
    assert parts(small)["logits"] * 4 == parts(usual)["logits"]
    assert parts(small)["choosing"] < parts(usual)["choosing"] < parts(small)["choosing"] * 4  # some at a time
    told = {part.name: part.about for part in plan(outline("8b"), Work(task="i2t", size_px=512)).in_turn}
    assert told["drawing or seeing"] == "1 of 512 x 512 px at a time"
    for task, size, message in (("t2i", 500, "such as 496 or 512"), ("t2t", 512, "neither reads nor makes a picture")):
        with pytest.raises(RequestError, match=message):
            plan(outline("8b"), Work(task=task, size_px=size))
    with pytest.raises(RequestError, match="size is -16"):
        plan(outline("8b"), Work(task="t2i", size_px=-16))


def test_only_tokenizers_that_a_task_uses_are_held():
    names = {task: parts(plan(outline("8b"), Work(task=task))).keys() for task in ("t2t", "t2i", "t2s")}
    assert "picture tokenizer" in names["t2i"]
    assert "speech tokenizer" in names["t2s"]
    assert [name for name in names["t2t"] if "tokenizer" in name] == ["text tokenizer"]
    assert {"picture tokenizer", "speech tokenizer"} <= parts(plan(outline(None), Work(task="t2t"))).keys()


def test_a_picture_is_drawn_at_its_size_and_frames_go_a_few_at_a_time():
    drawn, seen = (parts(plan(outline("8b"), Work(task=task)))["drawing or seeing"] for task in ("t2i", "v2t"))
    assert drawn == PICTURE_NUMBERS_PER_PX * 4 * 512 * 512
    assert seen == FRAMES_AT_ONCE * PICTURE_NUMBERS_PER_PX * 4 * 336 * 336
    assert VideoTokenizer(image=testing.tiny().tokenizers.image).frames_at_once == FRAMES_AT_ONCE


def test_the_published_vocoder_takes_a_window_of_frames_whatever_is_said():
    pytest.importorskip("transformers")
    spoken = parts(plan(outline("8b"), Work(task="t2s")))["speaking"]
    assert spoken == SPEAKING_BYTES_PER_FRAME * 1024
    assert "speaking" not in parts(plan(outline(), Work(task="t2s")))
    vocoder = Vocoder(VocoderSizes(), 16).eval().requires_grad_(False)
    frames, voice = torch.zeros(1, 192, 256), torch.zeros(1, 256, 1)
    assert pytest.approx(counted(lambda: vocoder._samples(frames, voice)), rel=0.1) == SPEAKING_BYTES_PER_FRAME * 256


def test_the_published_speech_encoder_takes_more_for_a_longer_sound():
    heard = [parts(plan(outline("8b"), Work(task="s2t", sound_s=seconds)))["hearing"] for seconds in (5.0, 10.0, 30.0)]
    assert heard == [HEARING_BYTES_PER_S * 20, HEARING_BYTES_PER_S * 20, HEARING_BYTES_PER_S * 30]


def test_int8_takes_the_matrices_to_a_half_and_int4_to_a_third():
    full, eight, four = (
        parts(plan(outline("8b"), Work(task="t2t", weights=form)))["blocks"] for form in ("", "int8", "int4")
    )
    assert eight / full == pytest.approx(0.5, abs=0.001)
    assert four / full == pytest.approx(0.3125, abs=0.001)


def test_a_batch_multiplies_what_passes_and_not_what_is_held():
    one, four = (plan(outline("8b"), Work(task="t2i", batch=batch)) for batch in (1, 4))
    assert weights(one) == weights(four)
    assert parts(four)["logits"] == 4 * parts(one)["logits"]
    assert parts(one)["choosing"] < parts(four)["choosing"] < 4 * parts(one)["choosing"]  # some places at a time
    assert 3.9 < parts(four)["a pass"] / parts(one)["a pass"] < 4.1


def test_a_training_holds_what_its_optimizers_keep():
    made = parts(plan(outline("8b"), Work(task="t2i", dtype="bfloat16", train="full")))
    assert made["weights"] == made["gradients"] == made["running average"] == 2 * EIGHT_B
    assert made["states of Muon and AdamW"] == 37_012_668_416


def test_the_published_training_holds_its_states_in_32_or_8_bits_or_an_eighth_of_them():
    work = Work(task="t2i", dtype="bfloat16", train="full", is_adamw=True)
    whole, short, shared = (
        parts(plan(outline("8b"), replace(work, **more))) for more in ({}, {"state_bits": 8}, {"num_processes": 8})
    )
    assert whole["states of AdamW"] == 4 * EIGHT_B
    assert short["states of AdamW"] == pytest.approx(EIGHT_B * (1 + 4 / 256), rel=1e-4)
    assert shared["states of AdamW"] == EIGHT_B // 2
    assert shared["weights"] == whole["weights"] // 8
    assert shared["weights put together"] == pytest.approx(2 * EIGHT_B, rel=1e-3)
    assert shared["gradients"] + shared["gradients put together"] == pytest.approx(2 * EIGHT_B, rel=1e-3)
    assert "weights put together" not in whole
    frugal = plan(outline("8b"), replace(work, num_processes=8, is_resharded=True))
    assert parts(frugal)["weights put together"] < 0.25 * shared["weights put together"]
    assert frugal.title.startswith("8b: training (full), one of 8 processes, t2i")


def test_adapters_and_blocks_run_again_take_less():
    work = [Work(task="t2i", dtype="bfloat16", train=train) for train in ("full", "lora")]
    full, lora = (plan(outline("8b"), each) for each in work)
    again = plan(outline("8b"), Work(task="t2i", dtype="bfloat16", train="lora", is_recomputed=True))
    assert full.num_bytes > 5 * lora.num_bytes
    assert again.num_bytes < 0.7 * lora.num_bytes
    assert parts(lora)["weights, frozen"] == EIGHT_B


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"task": "t2x"}, "8b has no task 't2x'; did you mean"),
        ({"task": "t2i", "dtype": "bfloat61"}, "unknown dtype 'bfloat61'; did you mean 'bfloat16'"),
        ({"task": "t2i", "weights": "int2"}, "unknown weights 'int2'"),
        ({"task": "t2i", "train": "all"}, "unknown train 'all'"),
        ({"task": "t2i", "batch": 0}, "batch is 0; give at least 1"),
        ({"task": "t2i", "is_recomputed": True}, "only a training runs blocks once more"),
        ({"task": "t2i", "train": "lora", "weights": "int8"}, "weights in fewer bits are not trained"),
        ({"task": "t2i", "train": "full", "state_bits": 4}, "state-bits is 4; give 32 or 8"),
        ({"task": "t2i", "train": "full", "num_processes": 0}, "processes is 0; give at least 1"),
        ({"task": "t2i", "num_processes": 2}, "only a training has optimizers and processes"),
        ({"task": "t2i", "train": "lora", "is_adamw": True}, "adapters follow AdamW in any case"),
        ({"task": "t2i", "train": "full", "is_resharded": True}, "only several processes put weights together"),
        (
            {"task": "t2i", "train": "full", "num_processes": 2, "state_bits": 8},
            "states in 8 bits are for one process, several share them out already",
        ),
        ({"task": "t2i", "weights": "int4", "dtype": "float32"}, "int4 multiply in bfloat16; give --dtype bfloat16"),
        ({"task": "t2t", "prompt_len": 9000}, "t2t takes 9,521 positions, the model's length is 4,096; .*--prompt"),
    ],
)
def test_what_cannot_be_planned_is_named(values, message):
    with pytest.raises(RequestError, match=message):
        plan(outline("8b"), Work(**values))


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_says_whether_it_fits(capsys):
    assert (
        main(["plan", "--model", "8b", "--task", "t2i", "--dtype", "bfloat16", "--device", "cuda", "--room", "24"]) == 0
    )
    told = capsys.readouterr().out
    assert "8b: a request, t2i, bfloat16; the sizes of the published 8B model" in told
    assert "blocks                           14.0 GB" in told
    assert "cache of keys and values          0.0 MB   none is kept" in told
    assert told.endswith("at the fullest moment              17.3 GB\nfits into 24 GB\n")
    assert main(["plan", "--model", "8b", "--dtype", "bfloat16", "--room", "16"]) == 1
    assert capsys.readouterr().out.endswith("does not fit into 16 GB\n")


def test_the_command_prints_one_json_object(capsys):
    toml = ROOT / "configs" / "models" / "dynin-omni-8b.toml"
    assert main(["plan", "--model", str(toml), "--task", "t2t", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["bytes"] == sum(told["always"].values()) + max(told["in_turn"].values())
    assert told["always"]["blocks"] + told["always"]["embedding and output table"] == EIGHT_B


def test_the_weights_of_a_toml_file_are_planned_as_it_says(tmp_path, capsys):
    path = tmp_path / "small.toml"
    path.write_text('backbone = "snu-aidas/Dynin-Omni"\nweights = "int8"\ndtype = "bfloat16"\n')
    assert main(["plan", "--model", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["always"]["blocks"] < 7.1e9
    assert main(["plan", "--model", str(path), "--train", "lora", "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)["always"]
    more = ["--adamw", "--processes", "4", "--reshard"]
    assert main(["plan", "--model", str(path), "--train", "full", *more, "--json"]) == 0
    shared = json.loads(capsys.readouterr().out)["always"]
    assert shared["weights"] * 2 == alone["weights, frozen"]
    assert "states of AdamW" in shared


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--room", "0"], "room is 0; give gigabytes"), (["--model", "nobody/nothing"], "nobody/nothing: no such folder")],
)
def test_a_mistake_is_one_line(words, message, capsys):
    assert main(["plan", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
