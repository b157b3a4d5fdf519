"""`dynin merge` as a command: flags, recipes, a sweep, and mistakes that are one line each."""

import dataclasses
import json

import pytest
import torch

from dynin import testing
from dynin.cli.app import main
from dynin.errors import RequestError
from dynin.evaluation import merge_sweep
from dynin.evaluation.report import Score
from dynin.merging.merge import Request
from dynin.merging.recipe import Recipe
from dynin.model.transformer import Transformer, initialise
from dynin.pipeline import folder as folders
from dynin.repository import open_repository


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    home = tmp_path_factory.mktemp("merge-command")
    first = testing.tiny()
    folders.save(home / "base", first, dtype=torch.float32)
    network = Transformer(first.model.config)
    initialise(network, torch.Generator().manual_seed(9))
    folders.save(home / "other", dataclasses.replace(first, model=network), dtype=torch.float32)
    return [str(home / "base"), str(home / "other")]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def weights(folder):
    return dict(open_repository(folder / "backbone").stream())


def test_the_command_merges_and_says_what_came_from_where(models, here, capsys):
    assert main(["merge", *models, "--output", "new"]) == 0
    said = capsys.readouterr().out
    assert "tensor 21 of 21" in said
    assert "text          copied from the base  (2 tensors)" in said
    assert "speech        copied from model 1  (2 tensors)" in said
    assert "attention     linear  strength 0.5  (8 tensors)" in said
    assert json.loads((here / "new" / "merge.json").read_text())["recipe"]["name"] == "modality-disentangled"
    assert main(["doctor", "--model", "new"]) == 0


def test_flags_and_a_file_say_the_same(models, here, capsys):
    rule = ["--rule", 'groups = ["mlp", "norms"], method = "linear", first_layer = 1, strength = 0.25']
    flags = ["--recipe", "uniform", "--method", "ties", "--strength", "0.4", "--density", "0.3", *rule]
    assert main(["merge", *models, "--output", "flags", *flags]) == 0
    (here / "told.toml").write_text(
        'name = "told"\nmethod = "ties"\nstrength = 0.4\ndensity = 0.3\n'
        '[[rules]]\ngroups = ["mlp", "norms"]\nmethod = "linear"\nfirst_layer = 1\nstrength = 0.25\n'
    )
    assert main(["merge", *models, "--output", "file", "--recipe", "told.toml"]) == 0
    assert "ties  strength 0.4  density 0.3" in capsys.readouterr().out
    made = weights(here / "flags")
    assert all(torch.equal(value, made[name]) for name, value in weights(here / "file").items())


def test_knots_weights_seed_and_dtype_are_flags(models, here, capsys):
    flags = ["--method", "dare_linear", "--density", "0.5", "--seed", "3", "--strength", "0.2", "--strength", "0.6"]
    flags += ["--weight", "0.5", "--weight", "0.5", "--dtype", "bfloat16"]
    assert main(["merge", models[0], models[1], models[1], "--output", "new", *flags]) == 0, capsys.readouterr().err
    told = json.loads((here / "new" / "merge.json").read_text())
    strengths = {part["strength"] for part in told["parts"] if part["group"] == "mlp"}
    assert strengths == {0.2, 0.6}
    assert (told["recipe"]["seed"], told["dtype"]) == (3, "bfloat16")
    assert {value.dtype for value in weights(here / "new").values()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("flags", "near"),
    [
        (["--recipe", "modality-disentangeled"], "modality-disentangled"),
        (["--recipe", "none.toml"], "none.toml"),
        (["--method", "tise"], "ties"),
        (["--rule", 'groups = "speach", strength = 1.0'], "speech"),
        (["--rule", "speech = 1"], "unknown setting"),
        (["--strength", "2"], "expected 0 to 1"),
        (["--density", "0.5"], "linear keeps everything"),
        (["--dtype", "bfloat"], "bfloat16"),
        (["--old", "t2i"], "--sweep"),
        (["--sweep", "0,half", "--old", "t2i"], "no list of numbers"),
        (["--sweep", "0,1"], "rows to score"),
        (["--sweep", "0,1", "--old", "t2i", "--new", "t2i"], "each once"),
        (["--sweep", "0,1", "--old", "t2j"], "did you mean 't2"),
        (["--sweep", "0,0", "--old", "t2t"], "each one once"),
        (["--sweep", "0,1", "--old", "t2t", "--limit", "0"], "limit is 0"),
        (["--sweep", "0,1", "--old", "t2t", "--device", "cuda:99"], "cuda:99"),
    ],
)
def test_a_mistake_is_one_line_and_no_file(models, here, capsys, flags, near):
    assert main(["merge", *models, "--output", "new", *flags]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert near in message
    assert list(here.iterdir()) == []


def test_models_and_places_that_cannot_be_are_one_line(models, here, capsys):
    (here / "taken").mkdir()
    (here / "taken" / "a.txt").write_text("mine")
    for arguments, near in (
        ([models[0], "--output", "new"], "one model was given"),
        ([models[0], "none", "--output", "new"], "no such folder"),
        ([*models, "--output", "taken"], "exists already"),
        ([*models, "--output", "no/new"], "create it first"),
        ([*models, "--output", "no/a.json", "--sweep", "0", "--old", "t2t"], "create it first"),
        (models, "--output"),
    ):
        assert main(["merge", *arguments]) == 2
        message = capsys.readouterr().err
        assert message.count("\n") == 1
        assert near in message
    assert [path.name for path in here.rglob("*")] == ["taken", "a.txt"]


def test_a_sweep_scores_inputs_and_merges_and_keeps_none(models, here, capsys):
    arguments = ["--sweep", "0,0.5", "--old", "t2t", "--new", "i2t", "--limit", "1", "--device", "cpu"]
    assert main(["merge", *models, "--output", "sweep.json", *arguments]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out.splitlines()
    assert said[0].split() == ["model", "strength", "t2t", "i2t", "mean", "old", "mean", "new"]
    assert [line.split()[0] for line in said[1:5]] == ["base", "model", "merged", "merged"]
    told = json.loads((here / "sweep.json").read_text())
    assert [(point["model"], point["strength"]) for point in told["points"]] == [
        ("base", None), ("model 1", None), ("merged", 0.0), ("merged", 0.5)
    ]  # fmt: skip
    assert told["rows"] == {"old": ["t2t"], "new": ["i2t"]}
    assert told["about"] == {"seed": 0, "limit": 1}
    assert told["inputs"][0]["sha256"].keys() == told["inputs"][1]["sha256"].keys()
    assert all(point["tasks"].keys() == {"t2t", "i2t"} for point in told["points"])
    assert [path.name for path in here.iterdir()] == ["sweep.json"]


def score(value, metric="share"):
    return Score(metric=metric, score=value, ci95=(0.0, 1.0), n=1)


def sweep_of(models, score_of, output, **changes):
    rows = {"old": ["t2i"], "new": ["s2t", "t2v"]}
    told = {"strengths": [0.25, 1.0], "rows": rows, "about": {}, **changes}
    request = Request(base=models[0], others=(models[1],), recipe=Recipe(name="uniform"))
    strengths = told.pop("strengths")
    return merge_sweep.sweep(request, strengths, score_of, output, **told)


def test_each_strength_is_merged_before_it_is_scored(models, here):
    first, second = (weights(here.__class__(model))["blocks.0.mlp.up.weight"] for model in models)
    seen = []

    def look(folder):
        seen.append(weights(folder)["blocks.0.mlp.up.weight"])
        return {"t2i": score(0.5), "s2t": score(0.2, "word error rate"), "t2v": score(0.4)}

    points = sweep_of(models, look, here / "a.json")
    expected = [first, second, torch.lerp(first, second, 0.25), second]
    assert all(torch.equal(made, value) for made, value in zip(seen, expected, strict=True))
    assert points[2].mean(["t2i"]) == 0.5
    assert points[2].mean(["s2t", "t2v"]) == pytest.approx(0.6)
    assert points[2].mean([]) is None


def test_what_was_scored_before_a_failure_is_kept(models, here):
    def fail_at_the_third(folder):
        if len(done) == 2:
            raise RuntimeError("broken")
        done.append(folder)
        return {"t2i": score(1.0), "s2t": score(2.0, "word error rate"), "t2v": score(0.0)}

    done = []
    with pytest.raises(RuntimeError):
        sweep_of(models, fail_at_the_third, here / "a.json")
    told = json.loads((here / "a.json").read_text())
    assert [point["model"] for point in told["points"]] == ["base", "model 1"]
    assert told["points"][0]["mean_new"] == 0.0
    assert [path.name for path in here.iterdir()] == ["a.json"]


def test_a_sweep_needs_strengths(models, here):
    with pytest.raises(RequestError, match="missing"):
        sweep_of(models, lambda folder: {}, here / "a.json", strengths=[])
