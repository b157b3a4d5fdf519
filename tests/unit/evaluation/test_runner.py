"""The runner on a tiny model: a report of the agreed form, on held-out examples, the same every time."""

import json
from itertools import pairwise

import pytest

from dynin import testing
from dynin.cli.app import main
from dynin.errors import RequestError
from dynin.evaluation import restoration, runner
from dynin.evaluation.runner import Wanted, evaluate


@pytest.fixture(scope="module")
def tiny():
    return testing.tiny()


def test_a_report_is_written_and_the_same_every_time(tiny, tmp_path):
    wanted = Wanted(seed=3, limit=2, rows=("t2i", "i2t"), steps=1)
    seen = []
    first = evaluate(tiny, wanted, tmp_path / "a.json", progress=lambda *said: seen.append(said))
    report = json.loads((tmp_path / "a.json").read_text())
    assert list(report["tasks"]) == ["t2i", "i2t"]
    assert {"metric", "score", "ci95", "n"} <= set(report["tasks"]["t2i"])
    assert report["about"]["seed"] == 3
    assert seen == [("t2i", 2, 2), ("i2t", 2, 2)]
    assert evaluate(tiny, wanted) == first


def test_only_held_out_examples_that_count_for_a_row_are_asked(tiny):
    asked = []

    def keep(model, examples, wanted, **more):
        asked.extend(examples)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(tiny, Wanted(seed=3, limit=4, rows=("i2t_questions",)), fulfil=keep)
    assert len(asked) == 4
    assert all(example.truth["question"].topic != "scene" for example in asked)


def test_rows_of_large_pictures_ask_for_them_and_give_them(tiny, monkeypatch):
    run_together, seen = type(tiny).run_together, []

    def keep(self, requests):
        results = run_together(self, requests)
        seen.extend(zip(requests, results, strict=True))
        return results

    monkeypatch.setattr(type(tiny), "run_together", keep)
    evaluate(tiny, Wanted(seed=3, limit=2, rows=("t2i_large", "i2t_large", "t2i"), steps=1))
    drawn, read, usual = seen[:2], seen[2:4], seen[4:]
    assert all(request.size == 128 and result.image.size == (128, 128) for request, result in drawn)
    assert all(request.size == 128 and request.image.shape == (3, 128, 128) for request, _ in read)
    assert all(request.size is None and result.image.size == (64, 64) for request, result in usual)


def test_every_example_has_a_seed_of_its_own_whatever_the_group(tiny, monkeypatch):
    run_together = type(tiny).run_together

    def seeds(group_size):
        asked = []

        def keep(self, requests):
            asked.extend(request.seed for request in requests)
            return run_together(self, requests)

        monkeypatch.setattr(runner, "BATCH_ROWS", group_size)
        monkeypatch.setattr(type(tiny), "run_together", keep)
        evaluate(tiny, Wanted(seed=7, limit=5, rows=("t2t",), steps=1))
        return asked

    assert seeds(2) == seeds(5) == [7, 8, 9, 10, 11]


def test_remasking_takes_as_many_calls_as_none(tiny):
    counts = []
    for rule in ("none", "confidence", "verify"):
        model = runner.with_remask(tiny, rule)
        counts.append(model.generate("a dog", to="image", seed=1).num_forwards)
    assert all(one == other for one, other in pairwise(counts))


@pytest.mark.parametrize("wrong", [{"rows": ("t2x",)}, {"limit": 0}])
def test_wishes_that_cannot_be_are_refused(wrong):
    with pytest.raises(RequestError):
        Wanted(seed=0, **wrong)


def test_a_tenth_of_the_codes_is_damaged_and_nothing_else(tiny):
    rows = restoration.damaged(tiny, "t2i", seed=1, count=10)
    share = rows.is_replaced.sum() / rows.is_target.sum()
    assert 0.05 < float(share) <= 0.13
    assert not (rows.is_replaced & ~rows.is_target).any()
    assert ((rows.ids != rows.truth) == rows.is_replaced).all()


def test_restoration_is_scored_and_repeats_itself(tiny):
    first, again = (restoration.restoration(tiny, "t2i", seed=1, count=3) for _ in range(2))
    assert first == again
    assert 0 <= first.score <= 1
    assert first.beside["examples"] == 3


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_model_in_half_precision_is_scored(dtype, tmp_path, capsys):
    folder = testing.tiny_model(tmp_path / "tiny")
    command = ["evaluate", "emoji-world", "--limit", "2", "--task", "t2i", "--model", str(folder), "--device", "cpu"]
    assert main([*command, "--dtype", dtype, "--output", str(tmp_path / "a.json")]) == 0
    assert json.loads((tmp_path / "a.json").read_text())["about"]["dtype"] == dtype
    capsys.readouterr()


def test_missing_programs_are_named_before_anything_is_measured(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RequestError, match="flite"):
        evaluate(tiny, Wanted(seed=3, limit=2, rows=("t2i", "s2t"), steps=1), tmp_path / "a.json")
    assert not (tmp_path / "a.json").exists()
    runner.require_tools(("t2i", "i2t", "t2t"))


def test_calls_of_the_network_and_the_tokenizer_alone_stand_beside_an_edit(tiny, tmp_path):
    evaluate(tiny, Wanted(seed=3, limit=2, rows=("i2i",), steps=3), tmp_path / "a.json")
    edited = json.loads((tmp_path / "a.json").read_text())["tasks"]["i2i"]
    assert edited["forwards"] == 3
    assert edited["round_trip_psnr_db"] > 0


def test_an_unknown_figure_names_the_nearest():
    with pytest.raises(RequestError, match="did you mean 't2i'"):
        Wanted(seed=3, rows=("t2ii",))
