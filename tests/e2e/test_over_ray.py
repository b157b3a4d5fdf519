"""The token cache made by two workers of a local Ray is the one that a single process makes."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import faulty_rows
import pytest

from dynin.data.records.cache import MANIFEST
from dynin.testing import tiny_model

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs ray: pip install 'dynin[ray]'"),
    pytest.mark.timeout(900),  # Ray starts six processes before it does anything
]
COUNT, FAULTS = 1100, 80


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pretokenize(*arguments: object) -> subprocess.CompletedProcess:
    """In a process of its own, as a user runs it."""
    command = [sys.executable, "-m", "dynin", "data", "pretokenize", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The file, the caches that one process and two workers made of it, and what else they were told."""
    here = tmp_path_factory.mktemp("ray")
    file = faulty_rows.write_rows(here, COUNT, FAULTS, seed=4)
    arguments = (file.path, "--model", tiny_model(here / "model"))
    for done in (
        pretokenize(*arguments, "-o", here / "one", "--on-bad", "skip"),
        pretokenize(*arguments, "-o", here / "two", "--on-bad", "skip", "--workers", 2),
    ):
        assert done.returncode == 0, done.stderr
    return file, here, arguments


def test_two_workers_make_the_cache_that_one_process_makes(made):
    _, here, _ = made
    assert contents(here / "one") == contents(here / "two")
    manifest = json.loads((here / "two" / MANIFEST).read_text())
    assert (manifest["num_records"], sum(manifest["rows"]), len(manifest["parts"])) == (COUNT, COUNT - FAULTS, 3)
    assert len(manifest["faults"]) == FAULTS


def test_two_workers_make_only_what_is_missing_and_stop_at_the_first_fault(made):
    file, here, arguments = made
    before = contents(here / "two")
    lost, kept, _ = sorted((here / "two" / "parts").iterdir())
    lost.unlink()
    made_at = kept.stat().st_mtime_ns
    done = pretokenize(*arguments, "-o", here / "two", "--workers", 2)
    assert done.returncode == 2
    line = min(file.faults)
    assert f"line {line}, field {file.faults[line]}: " in done.stderr
    assert contents(here / "two") == before
    assert kept.stat().st_mtime_ns == made_at
