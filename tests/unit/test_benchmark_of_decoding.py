"""The benchmark of decoding: whose turn it is, when no ratio is told, what is not run again."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def on_the_path():
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def duel(on_the_path) -> ModuleType:
    return importlib.import_module("duel")


@pytest.fixture(scope="module")
def bench(on_the_path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_of_decoding", BENCHMARKS / "decoding.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def turn(duel: ModuleType, cpu_s: float = 1.0, load: float = 1.0, threads: int = 1) -> object:
    return duel.Turn(cpu_s=cpu_s, wall_s=2 * cpu_s, load=load, threads=threads)


def test_sides_take_turns_and_the_first_of_each_is_thrown_away(duel) -> None:
    order: list[str] = []
    sides = {name: lambda name=name: order.append(name) for name in "ABC"}
    turns = duel.alternate(sides, 3)
    assert "".join(order) == "ABCCBAABCCBA"
    assert [len(taken) for taken in turns.values()] == [3, 3, 3]


def test_a_spread_is_median_and_outer_tenths(duel) -> None:
    assert duel.spread([5.0, 1.0, 3.0, 2.0, 4.0]) == {"median": 3.0, "p10": 1.4, "p90": 4.6}
    assert duel.spread([2.0]) == {"median": 2.0, "p10": 2.0, "p90": 2.0}


def test_no_ratio_is_told_on_a_busy_machine_or_of_different_threads(duel) -> None:
    quiet, busy = turn(duel), turn(duel, load=2.4)
    assert duel.objections([quiet], [quiet], 2) == []
    assert "load average 2.4 on 2 cores" in duel.objections([busy] * 2, [busy, quiet], 2)[0]
    found = duel.objections([quiet], [turn(duel, threads=2)], 2)
    assert found == ["one side ran on [1] threads and the other on [2]; give both the same number"]


def test_the_oracle_must_take_as_long_as_the_published_samplers(duel) -> None:
    profile = duel.Profile(total_s=46.3, blocks_s=7.8, head_s=21.0)
    same = duel.Rates(block=duel.BLOCK_RATE, head=duel.HEAD_RATE)
    half = duel.Rates(block=duel.BLOCK_RATE / 2, head=duel.HEAD_RATE / 2)
    assert profile.expected_s(same) == pytest.approx(46.3)
    assert profile.expected_s(half) == pytest.approx(92.6)
    assert duel.off_profile(profile, same, 46.3 * 1.14) is None
    assert duel.off_profile(profile, half, 92.6 * 0.86) is None
    assert "took 60.0 s" in duel.off_profile(profile, same, 60.0)
    assert "took 30.0 s" in duel.off_profile(profile, same, 30.0)


def test_rates_are_read_with_one_thread_and_leave_the_number_as_it_was(duel) -> None:
    before = torch.get_num_threads()
    rates = duel.matmul_rates(num_rows=4, width=8, block_dim=16, head_dim=32)
    assert rates.block > 0
    assert rates.head > 0
    assert torch.get_num_threads() == before


def test_with_more_threads_the_oracle_must_have_been_fair_with_one(duel, bench, tmp_path) -> None:
    report = bench.Report(tmp_path / "rows.json")
    profile, rates = duel.Profile(total_s=10, blocks_s=5, head_s=5), duel.Rates(block=97, head=64)
    row = {"family": "text", "machine": "m", "threads": 2}
    assert "--threads 1 first" in bench.fairness(profile, rates, row, [turn(duel, 99)], report)[0]
    report.put({"case": "a", "family": "text", "machine": "m", "threads": 1, "commit": "c", "oracle_is_fair": True})
    assert bench.fairness(profile, rates, row, [turn(duel, 99)], report) == []


def test_a_row_takes_the_place_of_the_one_it_repeats(bench, tmp_path) -> None:
    path = tmp_path / "deep" / "rows.json"
    report = bench.Report(path)
    key = {"case": "a", "commit": "c", "machine": "m", "threads": 1}
    for value in (1, 2):
        report.put({**key, "value": value})
    report.put({**key, "threads": 2, "value": 3})
    assert [row["value"] for row in bench.Report(path).rows] == [2, 3]
    assert [child.name for child in path.parent.iterdir()] == ["rows.json"]
    assert json.loads(path.read_text())["rows"] == report.rows


def test_a_case_is_done_once_it_has_a_ratio_of_enough_repeats(bench, tmp_path) -> None:
    report = bench.Report(tmp_path / "rows.json")
    here = {"commit": "c", "machine": "m", "threads": 1}
    report.put({"case": "told", **here, "reasons": [], "num_repeats": 5})
    report.put({"case": "rehearsed", **here, "reasons": [], "num_repeats": 1})
    report.put({"case": "refused", **here, "reasons": ["busy"], "num_repeats": 5})
    report.put({"case": "memory", **here})
    report.put({"case": "older", **here, "commit": "b", "reasons": [], "num_repeats": 5})
    assert bench.finished(report, here, 5) == {"told", "memory"}
    assert bench.finished(report, here, 1) == {"told", "rehearsed", "memory"}


def test_an_unknown_case_is_named_with_those_there_are(bench) -> None:
    with pytest.raises(SystemExit, match=r"no case text-fats on tier S; there are text-exact"):
        bench.wanted_cases(["text-fats"], "S")


def test_a_picture_is_drawn_of_ratios_alone(bench, tmp_path) -> None:
    side = {"cpu_s": {"median": 2.0, "p10": 1.0, "p90": 4.0}}
    row = {"case": "a", "ratio": None, "sides": {"oracle": side, "ours": side}, "resolve_at": 4, "aim": 5}
    assert bench.draw([row], tmp_path / "a.png") == "no picture: there is no ratio to draw"
    assert importlib.import_module("decoding_plot").bounds(row) == (0.25, 4.0)


@pytest.fixture(scope="module")
def forced(on_the_path) -> ModuleType:
    return importlib.import_module("decoding_forced")


def quality(**rows: tuple[str, float, float]) -> dict[str, object]:
    """A file of quality: by row, the preset that counts, its tokens and its passes; exact takes 40 passes."""
    return {
        "rows": {
            name: {
                "default": preset,
                "points": {
                    "exact": {"tokens": tokens, "forwards": 40.0, "columns": 4000.0},
                    preset: {"tokens": tokens, "forwards": forwards, "columns": 100 * forwards},
                },
            }
            for name, (preset, tokens, forwards) in rows.items()
        }
    }


def test_rows_that_make_the_same_count_together(forced) -> None:
    found = forced.measured(quality(i2t=("fast", 40, 5), t2t=("fast", 20, 10), t2i=("fast", 16, 4)), "text")
    assert found.preset == "fast"
    assert found.tokens_per_forward == pytest.approx(60 / 15)
    assert found.columns_per_forward == pytest.approx(100)
    assert found.share_of_exact == pytest.approx(15 / 80)
    assert found.rows == ("i2t: fast", "t2t: fast")
    assert forced.measured(quality(t2i=("fast", 16, 4)), "speech") is None


def test_the_plan_reveals_no_more_a_pass_than_was_measured(forced) -> None:
    from decoding_cases import FAMILIES

    told = forced.measured(quality(t2t=("fast", 52, 10)), "text")
    sizes = FAMILIES["text"].sizes["M"]
    policy = forced.policy_of(told, "text", sizes)
    assert policy.num_steps == 8 * 4  # blocks of 16, as the preset has them, at 5.2 a pass
    assert sizes.num_new / policy.num_steps <= told.tokens_per_forward
    assert (policy.commit, policy.threshold, policy.max_len) == (None, None, None)
    assert policy.refresh is not None
    picture = forced.policy_of(
        forced.measured(quality(t2i=("exact", 16, 40)), "image"), "image", FAMILIES["image"].sizes["M"]
    )
    assert picture.num_steps == 20
    assert picture.guidance_scale == 3.5


def test_a_forced_way_takes_the_passes_of_its_plan(forced, tmp_path) -> None:
    from decoding_cases import Stage, ours

    path = tmp_path / "quality.json"
    assert forced.forced_cases(path) == {}
    path.write_text(json.dumps(quality(t2t=("fast", 40, 10), t2s=("balanced", 64, 8))))
    cases = forced.forced_cases(path)
    assert list(cases) == ["text-fast", "speech-fast"]
    stage = Stage("S")
    assert ours(stage, "text", cases["text-fast"][0].way)().num_steps == 8  # 32 places, 4 a pass
    assert ours(stage, "speech", cases["speech-fast"][0].way)().num_steps == 8  # 64 places, 8 a pass


@pytest.fixture(scope="module")
def shapes(on_the_path) -> ModuleType:
    return importlib.import_module("decoding_shapes")


def test_floors_of_the_8b_shape_are_those_of_the_roofline(shapes) -> None:
    floors = shapes.Floors(shapes.Shape.whole(1.0), {"bfloat16_tflops": 790.0, "copy_tb_s": 4.3})
    assert floors.ms(384, 384, 384) == pytest.approx(7.49, rel=0.01)  # the reference's step
    assert floors.ms(32, 384, 32) == pytest.approx(3.53, rel=0.01)  # of a block: reading the weights
    assert floors.ms(8, 384, 8, batch=8) == pytest.approx(3.86, rel=0.01)  # and eight sequences' keys and values
    assert floors.ms(2310, 1155, 2310) == pytest.approx(46.9, rel=0.01)  # a guided picture
    assert floors.ms(2310, 1155, 1310, 8192) < floors.ms(2310, 1155, 2310)


def test_matrices_in_8_bits_multiply_nearly_as_before(shapes) -> None:
    shape = shapes.Shape.rehearsed(1 / 32)
    model = shapes.draw_network(shape, torch.device("cpu"))
    copy = shapes.float8_copy(model)
    assert shapes.holds_float8(copy)
    assert not shapes.holds_float8(model)
    assert copy.output.weight is model.output.weight
    ids = torch.randint(0, 1000, (2, 5), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        try:
            found, expected = copy.hidden(ids), model.hidden(ids)
        except RuntimeError as error:
            pytest.skip(f"no product of float8 here: {error}")
    assert torch.cosine_similarity(found.float(), expected.float(), dim=-1).min() > 0.99
