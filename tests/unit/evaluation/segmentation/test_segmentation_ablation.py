"""The driver of the ablations: which runs make a table, going on after a stop, and verdicts by the written rules."""

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from referring_films import Source, film, track

from dynin.errors import DataError
from dynin.evaluation.segmentation import overall, runs, study, tables
from dynin.evaluation.segmentation.ablation import FLOORS, TABLES, Plan
from dynin.evaluation.segmentation.bootstrap import Interval, draws
from dynin.evaluation.segmentation.floors import all_empty, truth

SEEDS = {0: "aa", 1: "bb"}
MODELS = ("none", "initial", "second", "both", "mlp", "first")


def films(count=3):
    def one(number):
        late = [np.zeros((40, 56), dtype=bool), *track((4, 4), (0, 3))[1:]]
        tracks = {"static": track((4, 4 + number), (0, 2)), "motion": late, "relation": track((24, 30), (-1, -2))}
        return [film(f"v{number}", name, masks, family=name) for name, masks in tracks.items()]

    return Source([one(number) for number in range(count)])


def shifted(pixels):
    """A model whose masks are so far off."""

    def predict(example):
        return (np.roll(example.read_mask(t), pixels, axis=1) for t in range(len(example)))

    return predict


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    """Intervals are held by tests of their own; here they only take time."""
    monkeypatch.setattr(overall, "draws", partial(draws, num_resamples=50))


def a_study(predictor=None, weights=None, source=None):
    offs = {"both": 1, "initial": 3, "second": 2, "mlp": 3, "none": 5, "first": 2}
    return study.Study(
        source=source or films(),
        weights=weights or {model: SEEDS for model in MODELS},
        predictor=predictor or (lambda setting, seed: shifted(offs[setting.model])),
        about={"dataset": "films"},
    )


def test_every_table_is_made_of_runs_of_its_settings_and_the_floors(tmp_path):
    results = study.run(Plan(), a_study(), tmp_path)
    assert set(results) == {setting.name for name in TABLES for setting in Plan().settings(name)}
    for name, table in TABLES.items():
        values = json.loads((tmp_path / f"{name}.json").read_text())
        assert set(values["rows"]) == {setting.name for setting in (*table.settings, *FLOORS)}
        assert values["not_run"] == []
        assert {judged["verdict"] for judged in values["expectations"]} <= {
            "confirmed",
            "reversed",
            "not shown",
            "not worse",
            "saturated",
        }
        assert (tmp_path / f"{name}.md").read_text().startswith(f"### {name}")


def test_verdicts_follow_the_differences(tmp_path):
    study.run(Plan(tables=("tab_ablation_fusion",)), a_study(), tmp_path)
    values = json.loads((tmp_path / "tab_ablation_fusion.json").read_text())
    by_name = {judged["name"]: judged for judged in values["expectations"]}
    assert by_name["F1"]["verdict"] == "confirmed"
    assert by_name["F1"]["by_seed"].keys() == {"0", "1"}
    assert values["gates"][0]["verdict"] == "holds"
    assert values["gates"][1]["verdict"] == "fails"  # these models look at the truth, whatever the sentence is
    text = (tmp_path / "tab_ablation_fusion.md").read_text()
    assert "G2 fails" in text
    assert "G1 fails" not in text
    assert "s / frame" not in text
    rows = values["rows"]
    assert rows["truth"]["figure"]["value"] == 1
    assert rows["all-empty"]["figure"]["value"] == 0
    assert rows["another-object"]["figure"]["value"] < 0.3
    assert rows["both"]["num_pairs"] == 9


def test_floors_are_run_once_and_models_with_every_seed(tmp_path):
    study.run(Plan(tables=("tab_ablation_fusion",)), a_study(), tmp_path)
    assert sorted(path.name for path in (tmp_path / "runs" / "both").iterdir()) == [f"seed-{n}.jsonl" for n in SEEDS]
    assert [path.name for path in (tmp_path / "runs" / "all-empty").iterdir()] == ["seed-0.jsonl"]


def test_a_stopped_study_goes_on_with_the_next_video(tmp_path):
    plan, asked = Plan(tables=("tab_ablation_fusion",)), []

    def counting(stop_after):
        def predictor(setting, seed):
            def predict(example):
                if len(asked) == stop_after:
                    raise KeyboardInterrupt
                asked.append((setting.name, seed, example.video, example.sentence_id))
                return shifted(1)(example)

            return predict

        return predictor

    with pytest.raises(KeyboardInterrupt):
        study.run(plan, a_study(counting(7)), tmp_path)
    results = study.run(plan, a_study(counting(-1)), tmp_path)
    again = [name for name in asked if asked.count(name) > 1]
    assert set(again) <= {("both", 0, "v2", "static")}  # the video in which it was stopped
    assert len(results["both"]) == 2
    asked.clear()
    assert study.run(plan, a_study(counting(-1)), tmp_path) == results
    assert asked == []


class Together:
    """A panel whose masks are a model's, and which says what it was asked."""

    def __init__(self, asked, pixels=1):
        self.asked, self.pixels = asked, pixels

    def together(self, videos, settings):
        for setting in settings:
            self.asked.append((setting.name, [examples[0].video for examples in videos]))
            yield [[np.stack(list(shifted(self.pixels)(each))) for each in examples] for examples in videos]

    def alone(self, example, setting):
        return shifted(self.pixels)(example)


def test_many_videos_and_settings_at_once_give_the_same_runs(tmp_path):
    plan, asked = Plan(tables=("tab_ablation_fusion",)), []
    one = a_study(weights={"both": {0: "aa"}, "none": {0: "aa"}}, predictor=lambda setting, seed: shifted(1))
    many = replace(one, panel=lambda name, seed: Together(asked), num_together=2)
    expected = study.run(plan, one, tmp_path / "one")
    found = study.run(plan, many, tmp_path / "many")
    assert {name: [run.pairs for run in each] for name, each in found.items()} == {
        name: [run.pairs for run in each] for name, each in expected.items()
    }
    assert all(run.seconds_per_frame > 0 for run in found["both"])
    assert [videos for name, videos in asked if name == "both"] == [["v0", "v1"], ["v2"]]
    asked.clear()
    study.run(plan, many, tmp_path / "many")
    assert asked == []


def test_a_stopped_panel_goes_on_with_the_videos_that_lack(tmp_path):
    class Stopping(Together):
        def together(self, videos, settings):
            for done, each in enumerate(super().together(videos, settings)):
                if len(self.asked) == 6 and done:
                    raise KeyboardInterrupt
                yield each

    plan, asked = Plan(tables=("tab_ablation_selection",)), []
    made = replace(a_study(weights={"both": {0: "aa"}}), num_together=2)
    with pytest.raises(KeyboardInterrupt):
        study.run(plan, replace(made, panel=lambda name, seed: Stopping(asked)), tmp_path / "stopped")
    found = study.run(plan, replace(made, panel=lambda name, seed: Together([])), tmp_path / "stopped")
    whole = study.run(plan, replace(made, panel=lambda name, seed: Together([])), tmp_path / "whole")
    assert {name: each[0].pairs for name, each in found.items()} == {
        name: each[0].pairs for name, each in whole.items()
    }


def test_work_that_another_process_holds_is_left_to_it(tmp_path):
    plan, asked = Plan(tables=("tab_ablation_fusion",)), a_study()
    with study._claimed(tmp_path / "runs" / ".both-seed-1.lock") as is_mine:
        assert is_mine
        results = study.run(plan, asked, tmp_path)
        assert "both" not in results
        assert "initial" in results
        assert study.unfinished(plan, asked, tmp_path) == ["tab_ablation_fusion"]
        assert not list(tmp_path.glob("*.md"))
    study.run(plan, asked, tmp_path)
    assert study.unfinished(plan, asked, tmp_path) == []
    assert (tmp_path / "tab_ablation_fusion.md").is_file()


def test_a_line_that_was_cut_short_is_scored_again(tmp_path):
    place, source = tmp_path / "seed-0.jsonl", films(3)
    whole = runs.score_run(source, truth, place, {"data": 1})
    text = place.read_text()
    place.write_text(text[: len(text) - 40])
    assert runs.read_run(place, 0, 3) is None
    assert runs.score_run(source, truth, place, {"data": 1}) == whole
    assert len(runs.read_run(place, 0, 3).pairs) == 9


def test_results_of_other_weights_are_not_mixed(tmp_path):
    plan = Plan(tables=("tab_ablation_fusion",))
    study.run(plan, a_study(), tmp_path)
    other = {model: {**SEEDS, 1: "xx"} for model in MODELS}
    with pytest.raises(DataError, match=r"seed-1.jsonl: holds numbers of another weights than asked for"):
        study.run(plan, a_study(weights=other), tmp_path)


def test_results_of_another_model_beside_are_not_mixed(tmp_path):
    plan, asked = Plan(tables=("tab_ablation_fusion",)), a_study(weights={"both": {0: "aa"}})
    study.run(plan, replace(asked, beside={"both": "a CLIP"}), tmp_path)
    with pytest.raises(DataError, match="holds numbers of another beside than asked for"):
        study.run(plan, replace(asked, beside={"both": "another"}), tmp_path)


@pytest.mark.parametrize("content", ["no json\n", '{"index": 0}\n', '{"about": {}}\n{"index": 4, "pairs": []}\n'])
def test_files_that_are_no_runs_are_named(tmp_path, content):
    place = tmp_path / "seed-0.jsonl"
    place.write_text(content)
    with pytest.raises(DataError, match="seed-0.jsonl"):
        runs.score_run(films(1), all_empty, place, {})


def test_missing_weights_are_named_in_the_table(tmp_path):
    study.run(Plan(tables=("tab_ablation_fusion",)), a_study(weights={"both": SEEDS}), tmp_path)
    values = json.loads((tmp_path / "tab_ablation_fusion.json").read_text())
    assert values["not_run"] == ["none", "initial", "second", "mlp"]
    assert values["expectations"][0]["verdict"] == "not run"
    assert "Not run: none, initial, second, mlp." in (tmp_path / "tab_ablation_fusion.md").read_text()


def test_a_study_needs_the_complete_model(tmp_path):
    with pytest.raises(DataError, match="no weights of 'both', only of none; every table"):
        study.run(Plan(), a_study(weights={"none": SEEDS, "both": {}}), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_model_is_asked_with_shuffled_sentences_and_frames(tmp_path):
    seen = {}

    def predictor(setting, seed):
        def predict(example):
            order = tuple(int(example.read_frame(t)[0, 0, 0]) for t in range(len(example)))
            seen.setdefault(setting.change, []).append((example.video, example.sentence, order))
            return truth(example)

        return predict

    study.run(Plan(tables=("tab_ablation_fusion",)), a_study(predictor, weights={"both": {0: "aa"}}), tmp_path)
    assert all(video in sentence for video, sentence, _ in seen["none"])
    assert not any(video in sentence for video, sentence, _ in seen["sentences"])
    assert any(order != (0, 1, 2, 3, 4) for _, _, order in seen["frames"])


@pytest.mark.parametrize(
    ("claim", "low", "high", "by_seed", "expected"),
    [
        ("over", 0.01, 0.05, [0.02, 0.03], "confirmed"),
        ("over", 0.01, 0.05, [0.02, -0.001], "not shown"),
        ("over", -0.01, 0.05, [0.02, 0.03], "not shown"),
        ("over", -0.05, -0.01, [-0.02, -0.03], "reversed"),
        ("over", -0.05, -0.01, [-0.02, 0.01], "not shown"),
        ("not_worse", -0.009, 0.05, [0.02], "not worse"),
        ("not_worse", -0.011, 0.05, [0.02], "not shown"),
        ("saturated", -0.5, 0.009, [0.0], "saturated"),
        ("saturated", -0.5, 0.011, [0.0], "not shown"),
        ("over", math.nan, math.nan, [0.5], "not shown"),
    ],
)
def test_verdicts_are_those_of_the_written_rules(claim, low, high, by_seed, expected):
    found = Interval(value=(low + high) / 2, low=low, high=high, num_videos=9)
    assert tables.verdict(claim, found, by_seed) == expected


def test_every_expectation_is_about_settings_of_its_table_and_is_written_down():
    text = (Path(__file__).parents[4] / "docs" / "virst.md").read_text()
    count = 0
    for table in TABLES.values():
        names = {setting.name for setting in table.settings}
        assert table.name in text
        for expectation in table.expectations:
            assert {expectation.ahead, expectation.behind} <= names
            assert f"| {expectation.name} |" in text
            count += 1
        assert {name for pair in table.unclaimed for name in pair} <= names
    assert count == 14


def test_settings_of_one_name_are_equal_in_every_table():
    rows = [setting for table in TABLES.values() for setting in table.settings]
    for setting in rows:
        assert all(setting.options() == other.options() for other in rows if other.name == setting.name)
