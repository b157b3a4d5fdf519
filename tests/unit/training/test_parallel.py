"""Real processes train as one does, and what any number of them saved, any number can load."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from dynin.training import optim, processes, state
from dynin.training.config import OptimizerConfig
from tests.unit.training.test_loop import CHANGED, run, small_model

ROOT = Path(__file__).parents[3]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
ADAMW = OptimizerConfig(learning_rate=5e-3, matrix_rate=0.0, warmup_steps=2)
MUON = OptimizerConfig(learning_rate=5e-3, warmup_steps=2)
TRAIN = """
import sys
from pathlib import Path
from dynin.training import processes
from tests.unit.training.test_loop import CHANGED, run
from tests.unit.training.test_parallel import ADAMW, MUON
processes.join()
more = {"log_every": 1, "reshard": sys.argv[3] == "True", "optimizer": MUON if "muon" in sys.argv else ADAMW}
run(Path(sys.argv[1]), int(sys.argv[2]), resuming=CHANGED, **more)
processes.leave()
"""
LOAD = """
import sys
from pathlib import Path
from dynin.training import loop, optim, parallel, processes, state
from dynin.training.objective import LossModule, Objective, ObjectiveConfig
from dynin.vocabulary import EMBEDDED
from tests.unit.training.test_loop import small_model
from tests.unit.training.test_parallel import ADAMW
processes.join()
model = small_model()
for parameter in model.parameters():
    parameter.data.fill_(-1.0)
root = LossModule(model, Objective(EMBEDDED, ObjectiveConfig()))
parallel.shard(root, model.blocks, is_frugal=True)
optimizers, average = optim.build(model, ADAMW), optim.Average(model, 0.9)
step = state.load(Path(sys.argv[1]), model, average, optimizers)
whole = {name: parallel.whole(value) for name, value in state._parts(model, average, optimizers).items()}
if processes.rank() == 0:
    import torch
    torch.save((step, whole), sys.argv[2])
processes.leave()
"""


COMPILE = """
import copy, sys
import torch
from torch import nn
from dynin.training import parallel
from tests.unit.training.test_loop import small_model
compiled = nn.Module.compile
nn.Module.compile = lambda self, **more: compiled(self, backend="eager", **more)
parallel.require_compiler = lambda *_, **__: None
model = small_model()
model.blocks.append(copy.deepcopy(model.blocks[0]))
names = list(model.state_dict())
if sys.argv[1] == "recomputed":
    parallel.recompute_blocks(model)
parallel.compile_blocks(model)
model(torch.zeros(1, 20, dtype=torch.long)).sum().backward()
assert list(model.state_dict()) == names
print(torch._dynamo.utils.counters["stats"]["unique_graphs"])
"""


def torchrun(
    folder: Path, script: str, count: int, *arguments: object, check: bool = True
) -> subprocess.CompletedProcess:
    path = folder / "script.py"
    path.write_text(script)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count), str(path)]
    done = subprocess.run(
        [*command, *map(str, arguments)], env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert not check or done.returncode == 0, done.stderr
    return done


def figures(folder: Path, name: str) -> list[float]:
    return [json.loads(line)[name] for line in (folder / "run" / "log.jsonl").read_text().splitlines()]


def test_one_process_alone_takes_everything():
    assert processes.rank() == 0
    assert processes.share("abc") == [(0, "a"), (1, "b"), (2, "c")]
    assert processes.gather(3) == [3]


@pytest.mark.parametrize("reshard", [False, True])
def test_two_processes_lose_what_one_loses_over_twenty_steps(tmp_path, reshard):
    alone, _ = run(tmp_path / "alone", 20, optimizer=ADAMW, log_every=1)
    torchrun(tmp_path, TRAIN, 2, tmp_path / "both", 20, reshard)
    for name in ("loss/t2i", "grad_norm"):  # AdamW does not tell gradients from twice as large ones, their norm does
        assert figures(tmp_path / "both", name) == pytest.approx(figures(tmp_path / "alone", name), rel=1e-5, abs=1e-6)
    together = state.read_tensors(tmp_path / "both" / "run" / "state", "model")
    for name, value in alone.state_dict().items():
        assert torch.allclose(value, together[name], atol=1e-5), name


def test_two_processes_turn_whole_matrices(tmp_path):
    """Muon turns in bfloat16, where a last digit can tip; shards turned as they are would differ by more."""
    run(tmp_path / "alone", 20, optimizer=MUON, log_every=1)
    torchrun(tmp_path, TRAIN, 2, tmp_path / "both", 20, False, "muon")
    for name in ("loss/t2i", "grad_norm"):
        assert figures(tmp_path / "both", name) == pytest.approx(figures(tmp_path / "alone", name), rel=2e-4)


def test_what_four_processes_saved_one_two_and_eight_can_load(tmp_path):
    torchrun(tmp_path, TRAIN, 4, tmp_path, 5, True)
    folder = tmp_path / "run" / "state"
    kept = {name: value for part in ("model", "average", "optimizer") for name, value in _named(folder, part).items()}
    for count in (1, 2, 8):
        torchrun(tmp_path, LOAD, count, folder, tmp_path / "whole.pt")
        step, whole = torch.load(tmp_path / "whole.pt", weights_only=True)
        assert (step, whole.keys()) == (5, kept.keys())
        for name, value in kept.items():
            assert torch.equal(whole[name], value), (count, name)


def _named(folder: Path, part: str) -> dict[str, torch.Tensor]:
    return {f"{part}.{name}": value for name, value in state.read_tensors(folder, part).items()}


@pytest.mark.parametrize("how", ["kept", "recomputed"])
def test_blocks_share_one_compiled_graph_recomputed_or_not(how):
    """Blocks that are left uncompiled are only slow, so graphs are counted; without the test run's checks of shapes."""
    command = [sys.executable, "-c", COMPILE, how]
    done = subprocess.run(command, env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "1", done.stderr


def test_another_number_of_processes_is_told_and_refused(tmp_path):
    torchrun(tmp_path, TRAIN, 2, tmp_path, 5, False)
    script = TRAIN.replace("resuming=CHANGED, ", "")
    done = torchrun(tmp_path, script, 1, tmp_path, 5, False, check=False)
    assert "another number of processes (2, now 1)" in done.stderr
    run(tmp_path, 6, resuming=CHANGED, optimizer=ADAMW)
    assert state.read_step(tmp_path / "run" / "state") == 6


def test_when_one_process_dies_the_others_end_and_say_so(tmp_path):
    # in one write: these interpreters buffer nothing, and what `print` writes in two can come between another's
    says = 'processes.join()\nimport os\nos.write(1, f"{os.getpid()}\\n".encode())'
    script = TRAIN.replace("processes.join()", says)
    path = tmp_path / "script.py"
    path.write_text(script)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(path)]
    arguments = [str(tmp_path), "1000000", "False"]
    with subprocess.Popen(
        [*command, *arguments], env=ENVIRONMENT, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as both:
        try:
            assert both.stdout is not None
            workers = [int(both.stdout.readline()) for _ in range(2)]
            while not (tmp_path / "run" / "state" / "LATEST").exists():
                assert both.poll() is None
                time.sleep(0.1)
            killed = time.monotonic()
            os.kill(workers[1], 9)
            _, told = both.communicate(timeout=60)
        finally:
            both.terminate()  # and its workers with it, whatever failed
    assert time.monotonic() - killed < 60
    assert both.returncode != 0
    assert "Signal 9 (SIGKILL)" in told
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    model = small_model()
    optimizers, average = optim.build(model, ADAMW), optim.Average(model, 0.9)
    assert state.load(tmp_path / "run" / "state", model, average, optimizers) > 0
