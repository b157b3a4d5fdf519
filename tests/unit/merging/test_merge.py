"""Model folders merged: which numbers come from where, what is written beside them, what is refused."""

import copy
import dataclasses
import functools
import hashlib
import json
import shutil

import pytest
import safetensors
import torch
from safetensors.torch import load_file, save_file

import dynin
from dynin import checkpoint, testing
from dynin.errors import CheckpointError, ConfigError
from dynin.merging import merge as merging
from dynin.merging import recipe as recipes
from dynin.merging import source as sources
from dynin.merging.merge import Request, merge
from dynin.merging.recipe import Recipe, Rule
from dynin.model.convert import published_names
from dynin.model.transformer import initialise
from dynin.pipeline import folder as folders
from dynin.pipeline.convert import convert
from dynin.repository import open_repository
from dynin.types import Modality

HALF = Recipe(name="half")
SPARSE = Recipe(name="sparse", method="dare_ties", weights=(0.5, 0.8), density=(0.5,), seed=3)


@functools.cache
def drawn():
    """One tiny model, of whose tokenizers all models here are."""
    return testing.tiny()


def ours(folder, seed, dtype=torch.float32):
    """The tiny model with other weights of the network and the same tokenizers."""
    model = dataclasses.replace(drawn(), model=copy.deepcopy(drawn().model))
    if seed:
        initialise(model.model, torch.Generator().manual_seed(seed))
        for number, norm in enumerate(parameter for parameter in model.model.parameters() if parameter.ndim == 1):
            norm.data += 0.01 * (number + seed)
    folders.save(folder, model, dtype=dtype, provenance={"seed": seed})
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A base, and two models that differ from it in every number."""
    home = tmp_path_factory.mktemp("merging")
    return [ours(home / name, seed) for seed, name in enumerate(("base", "one", "two"))]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A backbone of text and pictures, and a model with rows of speech beside them, of the published layout."""
    home = tmp_path_factory.mktemp("merging-published")
    base = testing.tiny_published(home / "base", "mmada")
    model = testing.tiny_published(home / "model", max_shard_bytes=5 * 2**20)
    scramble(model)
    return base, model


def scramble(folder, seed=5):
    """Other numbers in every weight of a folder; its checksums go."""
    generator = torch.Generator().manual_seed(seed)
    for path in sorted(folder.glob("*.safetensors")):
        changed = {
            name: (value.float() + 0.02 * torch.randn(value.shape, generator=generator)).to(value.dtype)
            for name, value in load_file(path).items()
        }
        save_file(changed, path, metadata={"format": "pt"})
    (folder / "SHA256SUMS").unlink()


def weights(folder):
    home = folder / "backbone" if (folder / "backbone").is_dir() else folder
    return dict(open_repository(home).stream())


def wte(folder):
    return weights(folder)["model.transformer.wte.weight"]


def test_the_default_takes_rows_by_modality_and_goes_half_the_way_elsewhere(models, tmp_path):
    base, other, _ = map(weights, models)
    merge(Request(base=models[0], others=(models[1],)), tmp_path / "new")
    made, layout = weights(tmp_path / "new"), dynin.load(models[0]).vocabulary
    speech, fresh = layout.range_of(Modality.SPEECH), [layout[name] for name in ("soa", "eoa", "t2s", "v2t", "sov")]
    for name, value in made.items():
        if name in ("embed.weight", "output.weight"):
            taken = torch.zeros(layout.size, dtype=torch.bool)
            taken[speech.start : speech.stop] = True
            taken[fresh] = True
            assert torch.equal(value[taken], other[name][taken])
            kept = [
                *range(layout.text.stop),
                *range(layout.image.start, layout.image.stop),
                layout["mask"],
                layout["t2i"],
            ]
            assert torch.equal(value[kept], base[name][kept])
        else:
            assert torch.equal(value, torch.lerp(base[name], other[name], 0.5)), name


def test_the_ends_are_the_models_bit_for_bit(models, tmp_path):
    for strength, expected in ((0.0, models[0]), (1.0, models[1])):
        place = tmp_path / str(strength)
        merge(Request(base=models[0], others=(models[1],), recipe=Recipe(name="x", strength=(strength,))), place)
        for name in ("model-00001-of-00001.safetensors", "model.safetensors.index.json"):
            assert (place / "backbone" / name).read_bytes() == (expected / "backbone" / name).read_bytes()


@pytest.mark.parametrize("method", ["linear", "slerp", "task_arithmetic", "ties", "dare_linear", "dare_ties"])
def test_a_model_merged_with_itself_is_itself(models, tmp_path, method):
    density = (0.5,) if method in ("ties", "dare_linear", "dare_ties") else (1.0,)
    recipe = Recipe(name="x", method=method, density=density, strength=(0.3,))
    merge(Request(base=models[0], others=(models[0],), recipe=recipe), tmp_path / "new")
    made = weights(tmp_path / "new")
    assert all(torch.equal(made[name], value) for name, value in weights(models[0]).items())


def test_rows_that_no_rule_moves_are_untouched(models, tmp_path):
    rules = (Rule(strength=(0.0,)), Rule(groups=("image",), tables=("output",), method="slerp", strength=(0.4,)))
    merge(Request(base=models[0], others=(models[1],), recipe=Recipe(name="x", rules=rules)), tmp_path / "new")
    made, base, span = weights(tmp_path / "new"), weights(models[0]), dynin.load(models[0]).vocabulary.image
    for name, value in made.items():
        is_same = (value == base[name]).flatten(1).all(1) if value.ndim > 1 else value == base[name]
        if name == "output.weight":
            assert not is_same[span.start : span.stop].any()
            is_same[span.start : span.stop] = True
        assert is_same.all(), name


def test_three_models_are_averaged_in_any_order(models, tmp_path):
    made = []
    for number, order in enumerate(((1, 2), (2, 1))):
        shares = tuple(0.25 if index == 1 else 0.75 for index in order)
        recipe = Recipe(name="x", strength=(0.8,), weights=shares)
        others = tuple(models[index] for index in order)
        merge(Request(base=models[0], others=others, recipe=recipe), tmp_path / str(number))
        made.append(weights(tmp_path / str(number)))
    zero, one, two = map(weights, models)
    for name, value in made[0].items():
        assert torch.allclose(value, 0.2 * zero[name] + 0.2 * one[name] + 0.6 * two[name], atol=1e-6)
        assert torch.allclose(value, made[1][name], atol=1e-6)


def test_the_result_is_a_model_that_tells_where_it_came_from(models, tmp_path):
    recipe = recipes.changed(recipes.find("modality-disentangled"), seed=11)
    pieces = merge(Request(base=models[0], others=(models[1],), recipe=recipe), tmp_path / "new")
    assert dynin.load(tmp_path / "new").generate("a dog", to="image", steps=1).image.size == (64, 64)
    told = json.loads((tmp_path / "new" / "merge.json").read_text())
    assert told["code"] == f"dynin {dynin.__version__}"
    assert told["recipe"]["name"] == "modality-disentangled"
    assert told["recipe"]["seed"] == 11
    assert [entry["role"] for entry in told["inputs"]] == ["base", "model 1"]
    for entry, folder in zip(told["inputs"], models, strict=False):
        stored = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        assert entry["sha256"].keys() == stored.keys()
        for name, path in stored.items():
            assert entry["sha256"][name] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(told["parts"]) == len(pieces)
    speech = next(part for part in told["parts"] if part["group"] == "speech")
    layout = dynin.load(models[0]).vocabulary
    assert speech["rows"] == [[layout.speech.start, layout.speech.stop]]
    assert (speech["strength"], speech["copied_from"]) == (1.0, 1)
    mlp = next(part for part in told["parts"] if part["group"] == "mlp")
    assert (mlp["method"], mlp["strength"], mlp["copied_from"]) == ("linear", 0.5, None)
    assert checkpoint.load(tmp_path / "new" / "backbone").provenance["merged by"] == "modality-disentangled"


def test_sixteen_bits_are_merged_in_thirty_two_and_rounded_once(tmp_path):
    narrow = [ours(tmp_path / f"narrow{seed}", seed, torch.bfloat16) for seed in (0, 1)]
    for dtype in (None, torch.float32):
        place = tmp_path / str(dtype)
        merge(Request(base=narrow[0], others=(narrow[1],), recipe=HALF, dtype=dtype), place)
        base, other = (weights(folder) for folder in narrow)
        for name, value in weights(place).items():
            expected = torch.lerp(base[name].float(), other[name].float(), 0.5).to(dtype or torch.bfloat16)
            assert value.dtype == expected.dtype
            assert torch.equal(value, expected)
    folders.save(tmp_path / "wide", dynin.load(narrow[1]), dtype=torch.float32)
    merge(Request(base=narrow[0], others=(tmp_path / "wide",), recipe=HALF), tmp_path / "mixed")
    assert {value.dtype for value in weights(tmp_path / "mixed").values()} == {torch.float32}


def test_dare_repeats_itself_and_follows_its_seed(models, tmp_path):
    made = {}
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        recipe = recipes.changed(SPARSE, seed=seed)
        merge(Request(base=models[0], others=tuple(models[1:]), recipe=recipe), tmp_path / name)
        made[name] = weights(tmp_path / name)
    assert all(torch.equal(value, made["b"][name]) for name, value in made["a"].items())
    assert any(not torch.equal(value, made["c"][name]) for name, value in made["a"].items())


def test_the_layout_of_files_and_the_size_of_chunks_are_no_matter(models, tmp_path, monkeypatch):
    merge(Request(base=models[0], others=tuple(models[1:]), recipe=SPARSE), tmp_path / "ours")
    theirs = []
    for folder in models:
        convert(folder, tmp_path / f"{folder.name}-published", "published")
        theirs.append(tmp_path / f"{folder.name}-published")
    monkeypatch.setattr(merging, "CHUNK_NUMBERS", 96)
    request = Request(base=theirs[0], others=tuple(theirs[1:]), recipe=SPARSE, max_shard_bytes=2**17)
    merge(request, tmp_path / "published")
    assert len(open_repository(tmp_path / "published").shards) > 1
    made, names = weights(tmp_path / "published"), published_names(dynin.load(models[0]).model.config)
    for name, value in weights(tmp_path / "ours").items():
        stored = next(theirs for theirs, mine in names.items() if mine == name)
        assert torch.equal(made[stored], value)


def test_rows_that_the_base_lacks_come_from_the_model_that_has_them(published, tmp_path):
    base, model = published
    merge(Request(base=base, others=(model,)), tmp_path / "new")
    layout = dynin.load(tmp_path / "new").vocabulary
    assert (layout.name, layout.size) == ("published", 138_752)
    made, mine, yours = wte(tmp_path / "new"), wte(base), wte(model)
    speech = slice(layout.speech.start, layout.speech.stop)
    assert torch.equal(made[speech], yours[speech])
    assert torch.equal(made[: layout.text.stop], mine[: layout.text.stop])
    assert torch.equal(made[layout["s2t"]], yours[layout["s2t"]])
    assert torch.equal(made[layout.speech.stop :], mine[layout.image.stop :])
    query = "model.transformer.blocks.1.q_proj.weight"
    first, second = weights(base)[query].float(), weights(model)[query].float()
    assert torch.equal(weights(tmp_path / "new")[query], torch.lerp(first, second, 0.5).bfloat16())


def test_a_published_result_takes_config_and_tokenizer_along(published, tmp_path):
    base, model = published
    (tmp_path / "other").mkdir()
    shutil.copytree(model, tmp_path / "model")
    shutil.copytree(folders.EMBEDDED_FOLDER / "image", tmp_path / "model" / "image")
    (tmp_path / "model" / "modeling_code.py").write_text("raise SystemExit")
    (tmp_path / "model" / "generation_config.json").write_text("{}")
    merge(Request(base=base, others=(tmp_path / "model",)), tmp_path / "new")
    names = {path.name for path in (tmp_path / "new").iterdir()}
    assert {"merge.json", "SHA256SUMS", "tokenizer.json", "generation_config.json", "README.md", "image"} <= names
    assert "modeling_code.py" not in names
    assert (tmp_path / "new" / "tokenizer.json").read_bytes() == (model / "tokenizer.json").read_bytes()
    before, after = (json.loads((place / "config.json").read_text()) for place in (model, tmp_path / "new"))
    assert before == after
    sums = dict(line.split("  ")[::-1] for line in (tmp_path / "new" / "SHA256SUMS").read_text().splitlines())
    assert {"merge.json", "config.json"} <= sums.keys()
    assert sums["merge.json"] == hashlib.sha256((tmp_path / "new" / "merge.json").read_bytes()).hexdigest()


def test_one_shard_of_each_input_is_open_and_one_of_the_result_is_held(published, tmp_path, monkeypatch):
    base, model = published
    opened, most, finished = set(), [0], []

    class Watched:
        def __init__(self, *told, **named):
            self.inner = safetensors.safe_open(*told, **named)

        def __enter__(self):
            opened.add(self)
            most[0] = max(most[0], len(opened))
            return self.inner.__enter__()

        def __exit__(self, *told):
            opened.discard(self)
            return self.inner.__exit__(*told)

    monkeypatch.setattr(sources, "safe_open", Watched)
    fresh = tmp_path / ".new.new"
    request = Request(base=base, others=(model,), max_shard_bytes=5 * 2**20)
    merge(request, tmp_path / "new", lambda done, total: finished.append(len(list(fresh.glob("*.safetensors")))))
    assert len(open_repository(model).shards) > 1
    assert most[0] == 2
    assert opened == set()
    assert finished == sorted(finished)
    assert finished[-1] == len(open_repository(tmp_path / "new").shards) - 1


def refuse(base, others, place, message, recipe=HALF, kind=CheckpointError):
    with pytest.raises(kind, match=message):
        merge(Request(base=base, others=others, recipe=recipe), place)
    assert not place.exists()
    assert [path for path in place.parent.iterdir() if path.name.startswith(".")] == []


def test_what_is_no_model_is_refused(models, tmp_path):
    refuse(models[0], (tmp_path / "none",), tmp_path / "new", "no such folder")
    refuse(models[0], (models[1] / "backbone",), tmp_path / "new", "holds one part")
    refuse(models[0], (), tmp_path / "new", "one model was given")
    (tmp_path / "empty").mkdir()
    refuse(models[0], (tmp_path / "empty",), tmp_path / "new", "config.json")


def test_a_place_that_is_taken_is_refused(models, tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="exists already"):
        merge(Request(base=models[0], others=(models[1],)), tmp_path / "new")
    assert (tmp_path / "new" / "config.json").read_text() == "{}"
    with pytest.raises(CheckpointError, match="create it first"):
        merge(Request(base=models[0], others=(models[1],)), tmp_path / "no" / "new")


def test_models_of_another_shape_are_refused(models, tmp_path):
    refuse(models[0], (folders.EMBEDDED_FOLDER,), tmp_path / "new", "has d_model 32, .* has 256")


def test_another_layout_of_files_names_the_command(models, published, tmp_path):
    refuse(models[0], (published[1],), tmp_path / "new", "dynin convert .* FOLDER --to dynin")


def test_another_layout_of_ids_names_the_command_that_moves_the_rows(published, tmp_path):
    moved = testing.tiny_published(tmp_path / "moved", text_len=126_372)
    same = json.loads((published[1] / "tokenizer.json").read_text())
    (tmp_path / "moved" / "tokenizer.json").write_text(json.dumps(same))
    scramble(moved)
    refuse(
        published[1],
        (moved,),
        tmp_path / "new",
        "different ids .*image.*dynin convert .*moved FOLDER --to published --text-len 126349",
    )


def test_another_tokenizer_is_refused(models, tmp_path):
    other = testing.tiny_model(tmp_path / "other", seed=1)
    refuse(models[0], (other,), tmp_path / "new", "tokenizer of .* differ")


def test_frames_of_another_kind_are_refused(models, tmp_path):
    shutil.copytree(models[1], tmp_path / "other")
    path = tmp_path / "other" / "backbone" / "config.json"
    values = json.loads(path.read_text())
    values["config"]["video"]["num_frames"] = 9
    path.write_text(json.dumps(values))
    refuse(models[0], (tmp_path / "other",), tmp_path / "new", "the video of")


def test_a_damaged_file_is_named(models, tmp_path):
    shutil.copytree(models[1], tmp_path / "other")
    path = tmp_path / "other" / "backbone" / "model-00001-of-00001.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    refuse(models[0], (tmp_path / "other",), tmp_path / "new", f"{path.name}: damaged")


def test_weights_that_are_no_numbers_are_named(models, tmp_path):
    model = dataclasses.replace(drawn(), model=copy.deepcopy(drawn().model))
    model.model.blocks[1].mlp.up.weight.data[3, 4] = float("inf")
    folders.save(tmp_path / "other", model, dtype=torch.float32)
    refuse(models[0], (tmp_path / "other",), tmp_path / "new", "blocks.1.mlp.up.weight: .*not finite")


def test_quantized_weights_are_refused(published, tmp_path):
    shutil.copytree(published[1], tmp_path / "other")
    for path in (tmp_path / "other").glob("*.safetensors"):
        save_file({name: value.to(torch.int8) for name, value in load_file(path).items()}, path)
    refuse(published[0], (tmp_path / "other",), tmp_path / "new", "I8")


def test_a_recipe_that_does_not_fit_is_refused_before_anything_is_read(models, tmp_path, monkeypatch):
    monkeypatch.setattr(sources.Source, "sums", lambda self: pytest.fail("read"))
    refuse(models[0], tuple(models[1:]), tmp_path / "new", "0 weights for 2 models", kind=ConfigError)
    unknown = recipes.changed(HALF, specials_new=("soq",))
    refuse(models[0], (models[1],), tmp_path / "new", "did you mean 'so", recipe=unknown, kind=ConfigError)


def test_a_merge_that_is_stopped_leaves_nothing(models, tmp_path):
    def stop(done, total):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge(Request(base=models[0], others=(models[1],)), tmp_path / "new", stop)
    assert list(tmp_path.iterdir()) == []


def test_rows_that_several_models_have_and_the_base_has_not_are_refused(published, tmp_path):
    recipe = Recipe(name="x", method="task_arithmetic", weights=(0.5, 0.5))
    refuse(published[0], (published[1], published[1]), tmp_path / "new", "no rows of speech", recipe=recipe)
