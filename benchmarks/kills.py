"""Does a training that is killed end where the unbroken one ends? SIGKILL at random moments, some inside a save.

    OMP_NUM_THREADS=1 python benchmarks/kills.py                      # 20 kills, half of them aimed at saves

Enters: how many kills, the seed of their moments. Leaves: one line a kill, and out/kills.json. Each run is a
`dynin train` on a CPU, a small network on Emoji World. Half of the kills wait for a step and for a random part of the
next one, half for a folder of a save and for a random part of the time that saves take; what was hit is read from what
lies there afterwards. A run that came to its last step first was not killed: its moment is drawn again. Then the same
command is started again, and all that both runs left is compared. Does not know how a state is written.
"""

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from dynin.repository import sha256
from dynin.training import state

ROOT = Path(__file__).parents[1]
NAME, STEPS, SAVE_EVERY = "killed", 24, 4
SETTINGS = {
    "name": NAME,
    "steps": STEPS,
    "save_every": SAVE_EVERY,
    "log_every": 1,
    "tokenizers": ROOT / "src/dynin/assets/model",
    "own_text": "false",
    "compile": "false",
    "rows_per_step": 8,
    "tokens_per_batch": 1024,
    "network.num_layers": 2,
    "network.d_model": 64,
    "network.mlp_dim": 128,
}
TIMES = ("tokens_per_s", "seconds_left")
"""What a line of the log says of the clock."""
WAIT_S = 0.0005
INSIDE = "inside a save"


@dataclass(frozen=True, kw_only=True, slots=True)
class Kill:
    """One kill, and what came of it."""

    aim: str
    hit: str
    """What lay in the folder of states afterwards."""
    logged: int
    """Steps that the killed run had logged."""
    resumed_at: int
    """The step that it went on from."""
    differences: tuple[str, ...]

    @property
    def is_inside(self) -> bool:
        """Whether a save had begun and not ended."""
        return self.hit.startswith(INSIDE)


def start(output: Path) -> subprocess.Popen[bytes]:
    """The training in a process of its own; what it says lies in `said.txt`."""
    settings = {**SETTINGS, "output": output}
    command = [sys.executable, "-m", "dynin", "train", str(ROOT / "configs/train/backbone.toml"), "--device", "cpu"]
    for name, value in settings.items():
        command += ["--set", f"{name}={value}"]
    output.mkdir(parents=True, exist_ok=True)
    with (output / "said.txt").open("ab") as said:
        return subprocess.Popen(command, stdout=said, stderr=said)


def finish(output: Path) -> None:
    """Run to the end, or say what the training said."""
    if start(output).wait():
        raise SystemExit(f"the training ended with an error:\n{(output / 'said.txt').read_text()[-2000:]}")


def logged(output: Path) -> list[dict[str, Any]]:
    """The lines of the log so far."""
    path = output / NAME / "log.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def num_logged(output: Path) -> int:
    """How many lines the log has, told quickly."""
    path = output / NAME / "log.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def saves(output: Path) -> list[Path]:
    """Folders in which a step is being written."""
    return list((output / NAME / "state").glob("*.tmp"))


def wait(child: subprocess.Popen[bytes], until: Callable[[], bool]) -> bool:
    """Whether it came to pass while the process lived."""
    while child.poll() is None:
        if until():
            return True
        time.sleep(WAIT_S)
    return False


def save_s(output: Path) -> float:
    """How long a save takes, seen from outside: the median over one whole run."""
    child, taken = start(output), []
    while wait(child, lambda: bool(saves(output))):
        begun = time.monotonic()
        wait(child, lambda: not saves(output))
        taken.append(time.monotonic() - begun)
    if child.wait():
        raise SystemExit(f"the training ended with an error:\n{(output / 'said.txt').read_text()[-2000:]}")
    return sorted(taken)[len(taken) // 2]


def where(folder: Path) -> str:
    """What a killed run was about, from what lies in its folder of states."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    unfinished = [name for name in names if name.endswith(".tmp") and name.startswith("step-")]
    if unfinished:
        files = sorted(path.name.partition("-")[0] for path in (folder / unfinished[0]).iterdir())
        return f"{INSIDE}: {', '.join(files) or 'nothing yet'}"
    steps = [name for name in names if name.startswith("step-")]
    latest = (folder / state.LATEST).read_text() if state.LATEST in names else ""
    if steps and latest != steps[-1]:
        return f"{INSIDE}: renamed, {state.LATEST} not yet"
    if len(steps) > state.KEPT:
        return f"{INSIDE}: the oldest step not yet removed"
    return "between saves" if steps else "before the first save"


def differences(whole: Path, other: Path) -> tuple[str, ...]:
    """What two finished runs do not have in common, bit for bit: state, position, figures of every step, the model."""
    told = []
    for part in ("model", "average", "optimizer"):
        one, two = (state.read_tensors(output / NAME / "state", part) for output in (whole, other))
        if one.keys() != two.keys() or any(not torch.equal(bits(one[name]), bits(two[name])) for name in one):
            told.append(part)
    notes = [state.read_notes(output / NAME / "state") for output in (whole, other)]
    if len({json.dumps([note["tokens"], note["marks"]["data"]]) for note in notes}) > 1:
        told.append("position in the data")
    if figures(whole).items() != figures(other).items():
        told.append("figures of a step")
    models = [
        {path.relative_to(output): sha256(path) for path in (output / NAME / "model").rglob("*.safetensors")}
        for output in (whole, other)
    ]
    return (*told, "exported weights") if models[0] != models[1] else tuple(told)


def bits(value: torch.Tensor) -> torch.Tensor:
    """A tensor as bytes, so that equal means equal whatever the numbers are."""
    return value.contiguous().reshape(-1).view(torch.uint8)


def figures(output: Path) -> Mapping[int, set[str]]:
    """What was logged of every step, the clock left out; a step that was made twice has one entry if it came out alike.

    Losses follow from rows, from what was drawn to be hidden, and from all steps before.
    """
    by_step: dict[int, set[str]] = {}
    for line in logged(output):
        entry = {name: value for name, value in line.items() if name not in TIMES}
        by_step.setdefault(line["step"], set()).add(json.dumps(entry, sort_keys=True))
    return by_step


def kill(output: Path, whole: Path, draw: random.Random, typical: Mapping[str, float], aim: str) -> Kill | None:
    """Kill a run and go on; None where it had come to its end before."""
    child = start(output)
    if aim == "save":
        number, pause = draw.randrange(STEPS // SAVE_EVERY), draw.uniform(0, typical["save_s"])
        name = f"step-{(number + 1) * SAVE_EVERY:08d}.tmp"
        met = wait(child, (output / NAME / "state" / name).exists)
    else:
        step, pause = draw.randrange(STEPS), draw.uniform(0, typical["step_s"])
        met = wait(child, lambda: num_logged(output) >= step)
    time.sleep(pause if met else 0)
    child.send_signal(signal.SIGKILL)
    if child.wait() != -signal.SIGKILL or state.read_step(output / NAME / "state") == STEPS:
        return None
    hit, done = where(output / NAME / "state"), num_logged(output)
    resumed_at = state.read_step(output / NAME / "state")
    finish(output)
    return Kill(aim=aim, hit=hit, logged=done, resumed_at=resumed_at, differences=differences(whole, output))


def main() -> None:
    """Kill and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("out/kills.json"))
    arguments = parser.parse_args()
    draw, done, late = random.Random(arguments.seed), list[Kill](), 0
    with tempfile.TemporaryDirectory() as place:
        whole = Path(place) / "whole"
        typical = {"save_s": save_s(whole)}
        typical["step_s"] = state.read_notes(whole / NAME / "state")["seconds"] / STEPS
        print("  ".join(f"{name} {value:.3f}" for name, value in typical.items()), flush=True)
        while len(done) < arguments.kills:
            output = Path(place) / "killed"
            shutil.rmtree(output, ignore_errors=True)
            met = kill(output, whole, draw, typical, "save" if len(done) % 2 else "step")
            if met is None:
                late += 1
                continue
            done.append(met)
            print(
                f"{len(done):3}  aimed at a {met.aim}  {met.logged:2} steps logged  {met.hit}  went on from "
                f"{met.resumed_at}  {'differs: ' + ', '.join(met.differences) if met.differences else 'equal'}",
                flush=True,
            )
            report = {"kills": [asdict(one) for one in done], "came too late": late, "steps": STEPS, **typical}
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            arguments.output.write_text(json.dumps(report, indent=1))
    inside, wrong = sum(one.is_inside for one in done), sum(bool(one.differences) for one in done)
    print(f"{len(done)} runs killed, {inside} inside a save; {wrong} differ; {late} moments came too late")
    if wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
