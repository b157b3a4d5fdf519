"""The benchmark of decoding from its command line to its file, on the tier of seconds; no time is asserted."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(script: str, *options: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, str(ROOT / "benchmarks" / script), "--tier", "S", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_case_leaves_a_row_and_a_picture_needs_ratios(tmp_path: Path) -> None:
    told = run("decoding.py", "--repeats", "1", "--output", str(tmp_path))
    rows = {row["case"]: row for row in json.loads((tmp_path / "decoding-S.json").read_text())["rows"]}
    assert {"text-exact", "text-t1-exact", "image-exact", "speech-exact", "text-cached", "memory"} <= set(rows)
    assert all(name in told for name in rows)
    exact = rows["text-exact"]
    assert exact["agreement"] == 1.0
    assert (exact["ratio"] is None) == bool(exact["reasons"])
    assert exact["sides"]["oracle"]["cpu_s"]["median"] > 0
    assert {"commit", "machine", "torch", "dtype", "threads", "num_repeats"} <= set(exact)
    assert all(peak["ours_mb"] < peak["oracle_mb"] for peak in rows["memory"]["peaks"])
    assert "picture" in told


def test_cost_grows_in_proportion_to_the_sequences(tmp_path: Path) -> None:
    told = run("growth.py", "--axis", "batch", "--output", str(tmp_path))
    costs = json.loads((tmp_path / "growth-S.json").read_text())["costs"]
    columns = {(cost["value"], cost["way"]): cost["num_columns"] for cost in costs}
    full, remembered = 4 * (32 + 64), 2 * (32 + 64) + 2 * 32  # every second pass over a block's places alone
    assert columns == {
        (count, way): count * each
        for count in (1, 2, 4, 8)
        for way, each in (("full", full), ("remembered", remembered))
    }
    assert all(cost["num_passes"] == 4 and cost["cpu_s"] > 0 for cost in costs)
    assert "remembered" in told


def test_exact_decoding_is_told_to_be_as_published(tmp_path: Path) -> None:
    told = run("equality.py", "--family", "image", "--family", "speech", "--output", str(tmp_path))
    assert told.splitlines()[-1] == "as published"
    rows = json.loads((tmp_path / "equality-S.json").read_text())["rows"]
    assert [row["share"] for row in rows] == [1.0, 1.0]
