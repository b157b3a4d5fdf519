"""`dynin virst`: folders of masks scored, packed and compared; a tiny VIRST asked, and the tables rehearsed with it."""

import json
import shutil
import zipfile
from dataclasses import replace

import pytest
from referring_folders import write_mevis, write_ref_davis17, write_revos

from dynin.cli import app as apps
from dynin.data.referring.catalogue import open_dataset
from dynin.evaluation.segmentation.floors import all_empty, truth
from dynin.evaluation.segmentation.submit import predict_folder
from dynin.testing import tiny_model
from dynin.training.config import LoraConfig
from dynin.virst import folder
from dynin.virst.build import build
from dynin.virst.config import BackboneConfig, BranchConfig
from dynin.virst.training import likeness
from dynin.virst.training.likeness_config import LikenessSizes
from tests.tiny_virst import CONFIG


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Two seeds of one complete model, with drawn weights."""
    start = tiny_model(tmp_path_factory.mktemp("start") / "model")
    backbone = BackboneConfig(start=str(start), lora=LoraConfig(rank=2))
    config = replace(CONFIG, backbone=backbone, branch=BranchConfig(image_px=32, hiera_width=8))
    root = tmp_path_factory.mktemp("checkpoints")
    for seed in range(2):
        (root / "both").mkdir(exist_ok=True)
        folder.save(root / "both" / f"seed-{seed}", build(config, seed=seed))
    return root


def run(*arguments):
    return apps.main(["virst", *map(str, arguments)])


def report(place):
    return json.loads((place / "report.json").read_text())


def predicted(place, name, root, masks=truth, split=None):
    predict_folder(open_dataset(name, root, split), masks, place)
    return place


def test_saved_masks_of_mevis_are_scored_without_a_model(here, capsys):
    write_mevis(here)
    predicted(here / "p", "mevis", here, split="valid_u")
    assert run("evaluate", "--dataset", "mevis", "--root", here, "--split", "valid_u", "--predictions", "p") == 0
    values = report(here)
    assert values["rows"]["all"]["J&F"]["value"] == 1
    assert values["about"]["missing"] == []
    assert len(values["pairs"]) == values["rows"]["all"]["num_pairs"]
    assert "written to report.json" in capsys.readouterr().out


def test_missing_masks_give_one_line_and_no_report(here, capsys):
    write_mevis(here)
    place = predicted(here / "p", "mevis", here, split="valid_u")
    next(iter(sorted(place.rglob("*.png")))).unlink()
    command = ("evaluate", "--dataset", "mevis", "--root", here, "--split", "valid_u", "--predictions", "p")
    assert run(*command) == 2
    assert not (here / "report.json").exists()
    assert "1 predicted masks are missing" in capsys.readouterr().err
    assert run(*command, "--missing-as-empty") == 0
    assert "1 files are missing" in capsys.readouterr().err
    assert len(report(here)["about"]["missing"]) == 1


def test_revos_is_scored_by_kind_with_robustness(here):
    write_revos(here)
    predicted(here / "p", "revos", here, all_empty)
    assert run("evaluate", "--dataset", "revos", "--root", here, "--predictions", "p") == 0
    rows = report(here)["rows"]
    both = [rows[name]["J&F"]["value"] for name in ("referring", "reasoning")]
    assert rows["overall"]["J&F"]["value"] == pytest.approx(sum(both) / 2, abs=2e-6)
    assert rows["overall"]["R"]["value"] == 1
    assert rows["none"]["no_target_accuracy"]["value"] == 1


def test_ref_davis17_is_scored_by_both_protocols_and_packed_by_annotator(here, capsys):
    write_ref_davis17(here)
    predicted(here / "p", "ref-davis17", here)
    command = ("--dataset", "ref-davis17", "--root", here, "--predictions", "p")
    assert run("evaluate", *command) == 0
    assert report(here)["about"]["annotators"]
    assert run("submit", *command, "--output", "davis.zip") in (0, 2)  # a miniature need not have four annotators
    capsys.readouterr()


def test_a_submission_is_packed(here):
    write_mevis(here)
    predicted(here / "p", "mevis", here, split="valid_u")
    command = ("--dataset", "mevis", "--root", here, "--split", "valid_u", "--predictions", "p")
    assert run("submit", *command, "--output", "mevis.zip") == 0
    with zipfile.ZipFile(here / "mevis.zip") as archive:
        assert sorted(archive.namelist()) == sorted(
            str(path.relative_to(here / "p")) for path in (here / "p").rglob("*.png")
        )


@pytest.mark.parametrize("floor", ["all-empty", "all-foreground", "another-object", "truth"])
def test_floors_of_emoji_world_are_scored(here, floor):
    command = ("--dataset", "emoji-world", "--floor", floor, "--videos", 3, "--frames", 12)
    assert run("evaluate", *command) == 0
    row = report(here)["rows"]["all"]
    assert (row["J&F_visible"]["value"] == 1) == (floor == "truth")


def test_a_model_predicts_before_it_is_scored_and_goes_on(here, checkpoints, capsys):
    command = ("evaluate", "--dataset", "emoji-world", "--videos", 2, "--frames", 1, "--predictions", "p")
    asked = (*command, "--model", checkpoints / "both" / "seed-0", "--policy", "uniform", "--device", "cpu")
    assert run(*asked) == 0
    first = report(here)
    shutil.rmtree(sorted((here / "p").glob("still*"))[1])
    assert run(*asked) == 0
    assert report(here) == first
    assert run(*command) == 0
    assert report(here)["rows"] == first["rows"]
    capsys.readouterr()
    other = (*command, "--model", checkpoints / "both" / "seed-1", "--policy", "uniform", "--device", "cpu")
    assert run(*other) == 2
    assert "holds predictions of something else" in capsys.readouterr().err


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A CLIP with drawn weights."""
    sizes = LikenessSizes(width=16, image_layers=1, text_layers=1, num_ids=512)
    words = likeness.make_tokenizer(["the dog"], sizes)
    network = likeness.new_network(sizes, words, temperature=0.07, seed=0)
    place = tmp_path_factory.mktemp("clip") / "model"
    likeness.write(place, likeness.Trained(network=network, tokenizer=words), {})
    return place


@pytest.mark.parametrize("together", [2, 0])
def test_the_tables_are_rehearsed_with_drawn_weights(here, checkpoints, clip, capsys, together):
    command = ("ablate", "--checkpoints", checkpoints, "--output", "tables", "--videos", 2, "--frames", 1)
    command = (*command, "--likeness", clip, "--together", together)
    assert run(*command, "--table", "tab_ablation_selection", "--device", "cpu") == 0
    values = json.loads((here / "tables" / "tab_ablation_selection.json").read_text())
    assert set(values["not_run"]) == {"first-trained"}
    assert set(values["rows"]["dynamic"]["by_seed"]) == {"0", "1"}
    assert values["gates"][0]["verdict"] == "fails"  # weights that nobody trained
    assert values["about"]["dataset"] == "emoji-world"
    capsys.readouterr()
    assert run(*command, "--table", "tab_ablation_selection", "--device", "cpu") == 0  # nothing is asked again
    assert json.loads((here / "tables" / "tab_ablation_selection.json").read_text()) == values


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("evaluate", "--dataset", "mevis", "--predictions", "p"), "give its folder with --root DIR"),
        (("evaluate", "--dataset", "mevs", "--root", ".", "--predictions", "p"), "did you mean 'mevis'"),
        (("evaluate", "--dataset", "emoji-world"), "nothing to score"),
        (("evaluate", "--dataset", "emoji-world", "--floor", "empty"), "unknown floor 'empty'"),
        (("evaluate", "--dataset", "emoji-world", "--floor", "truth", "--predictions", "p"), "scores no model"),
        (("evaluate", "--dataset", "emoji-world", "--floor", "truth", "--split", "valid"), "no split 'valid'"),
        (("evaluate", "--dataset", "emoji-world", "--floor", "truth", "--videos", "0"), "--videos is 0"),
        (("ablate", "--checkpoints", ".", "--output", "o", "--table", "tab"), "unknown table 'tab'"),
        (("ablate", "--checkpoints", ".", "--output", "o", "--dtype", "half"), "unknown --dtype 'half'"),
        (("ablate", "--checkpoints", ".", "--output", "o", "--together", "-1"), "--together is -1"),
        (("ablate", "--checkpoints", ".", "--output", "o"), "holds no <name>/seed-<n>"),
    ],
)
def test_a_mistake_gives_one_line(here, capsys, arguments, message):
    assert run(*arguments) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert list(here.iterdir()) == []
