"""Two real processes train as one does."""

import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from dynin.training import parallel
from tests.unit.training.test_loop import run

ROOT = Path(__file__).parents[3]
SCRIPT = """
import sys
from pathlib import Path
from dynin.training import parallel
from tests.unit.training.test_loop import run
parallel.join()
run(Path(sys.argv[1]), 5)
parallel.leave()
"""


def test_one_process_alone_takes_everything():
    assert parallel.rank() == 0
    assert parallel.share("abc") == [(0, "a"), (1, "b"), (2, "c")]
    assert parallel.gather(3) == [3]


def test_two_processes_take_the_steps_of_one_and_one_of_them_saves(tmp_path):
    alone, _ = run(tmp_path / "alone", 5)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(
        [*command, str(tmp_path / "both")], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    together = load_file(tmp_path / "both" / "run" / "state" / "model.safetensors")
    for name, value in alone.state_dict().items():
        assert torch.allclose(value, together[name], atol=1e-4), name
    assert len((tmp_path / "both" / "run" / "log.jsonl").read_text().splitlines()) == 1
