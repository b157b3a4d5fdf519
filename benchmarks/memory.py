"""Planned memory beside measured memory: `python benchmarks/memory.py`.

Enters: names of cases, all of them by default. Leaves: a table, and out/memory.json. Does not know how anything is
planned. A further case is its row in `CASES`.

Every case runs in a process of its own: it imports everything, makes a small request so that kernels and their threads
are there, notes its peak so far, then loads the model and does what the case says. What the peak rose by stands beside
what `dynin plan` says. On processors that is the peak of the process's resident memory, files that are read as they lie
included; on CUDA the allocator's own.

glibc keeps what was freed in pieces of less than 32 MB, which lets a process grow beyond what it uses. Cases run with
a limit of 128 KB instead (MALLOC_MMAP_THRESHOLD_), so that what is used is measured; `--as-it-comes` leaves it out.
"""

import argparse
import gc
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from dynin import testing
from dynin.model.config import PUBLISHED_8B, ModelConfig
from dynin.model.room import gigabytes
from dynin.pipeline.folder import load
from dynin.pipeline.outline import outline
from dynin.pipeline.plan import Work, plan
from dynin.pipeline.request import Request
from dynin.sequence.layout import Assembler
from dynin.sequence.task import EMBEDDED_TASKS
from dynin.training import loop
from dynin.training.config import TrainConfig
from dynin.training.objective import Objective, ObjectiveConfig
from dynin.types import Modality
from dynin.vocabulary import EMBEDDED

PEAK = Path("/proc/self/clear_refs")
WORDS = 75
"""Ids of the words of training rows, which makes rows of 96 positions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """What one process does."""

    task: str
    dtype: str = ""
    weights: str = ""
    train: bool = False
    width: int = 0
    """Of a network with drawn weights, eight layers and all rows of the published model; 0 is the embedded model."""
    batch: int = 1


CASES = {
    "embedded t2i": Case(task="t2i"),
    "embedded t2i, 32 at a time": Case(task="t2i", batch=32),
    "embedded t2t": Case(task="t2t"),
    "embedded t2i bfloat16": Case(task="t2i", dtype="bfloat16"),
    "embedded t2i int8": Case(task="t2i", weights="int8"),
    "embedded training": Case(task="t2i", train=True, batch=10),
    "embedded training bfloat16": Case(task="t2i", train=True, batch=10, dtype="bfloat16"),
    "512 wide t2t": Case(task="t2t", width=512),
    "512 wide t2t bfloat16": Case(task="t2t", width=512, dtype="bfloat16"),
    "512 wide t2i": Case(task="t2i", width=512),
    "1024 wide t2t": Case(task="t2t", width=1024),
    "1024 wide t2t bfloat16": Case(task="t2t", width=1024, dtype="bfloat16"),
    "1024 wide t2t int8": Case(task="t2t", width=1024, dtype="bfloat16", weights="int8"),
    "1024 wide i2t bfloat16": Case(task="i2t", width=1024, dtype="bfloat16"),
}


def network_of(width: int) -> ModelConfig:
    """Eight layers of a width, with the rows and the proportions of the published model."""
    heads = width // 64
    return replace(PUBLISHED_8B, d_model=width, num_heads=heads, num_kv_heads=heads, num_layers=8, mlp_dim=3 * width)


def peak(device: torch.device) -> int:
    """The most memory that this process has held so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if PEAK.exists():
        lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def forget_peak() -> None:
    """Let the peak begin anew from what is held now, where the system can."""
    if PEAK.exists():
        PEAK.write_text("5")


def request(case: Case, folder: Path | None) -> Request:
    """What a case asks for: as few steps as there can be."""
    picture = testing.small_picture(400 if folder else 64)
    given = {"t2t": {}, "t2i": {}, "i2t": {"image": picture}}[case.task]
    made = {"i": "image", "t": "text"}[case.task[-1]]
    return Request(prompt="a dog above a star", to=made, steps=1, **given)


def measure_request(case: Case, folder: Path | None, device: torch.device) -> int:
    """Load and make; what the peak rises by."""
    more = {"weights": case.weights} if case.weights else {}
    with tempfile.TemporaryDirectory() as place:
        small = load(testing.tiny_model(Path(place) / "tiny"), device=device, dtype=case.dtype or None, **more)
        small.run(request(case, None))
        del small
    forget_peak()
    before = peak(device)
    model = load(folder, device=device, dtype=case.dtype or None, **more)
    model.run_together([request(case, folder)] * case.batch)
    return peak(device) - before


class Rows:
    """Training rows of one length."""

    def fingerprint(self) -> str:
        """Always the same rows."""
        return "rows"

    def rows(self, step: int) -> list:
        """Forty of them."""
        assembler = Assembler(vocabulary=EMBEDDED, encode_text=lambda text: list(text.encode()))
        given, made = {Modality.TEXT: "a" * WORDS}, {Modality.IMAGE: torch.full((16,), step % 4)}
        return [assembler.assemble(EMBEDDED_TASKS["t2i"], given, made) for _ in range(40)]


class Enough(Exception):  # noqa: N818 - no error
    """Ends a training before it writes its state."""


def measure_training(case: Case, folder: Path | None, device: torch.device) -> int:
    """A few steps of the real loop; what the peak rises by."""
    del folder
    figures: list[int] = []

    def steps(model: torch.nn.Module, count: int) -> None:
        config = TrainConfig(
            name="run", steps=count + 1, tasks={"t2i": 1.0}, output=Path(place), log_every=count,
            tokens_per_batch=96 * case.batch, dtype=case.dtype or "float32",
        )  # fmt: skip

        def report(_: object) -> None:
            figures.append(peak(device))
            raise Enough

        try:
            loop.train(model, Objective(EMBEDDED, ObjectiveConfig()), Rows(), config, loop.Hooks(report=report))
        except Enough:
            return

    from dynin.model.config import EMBEDDED as SIZES
    from dynin.model.transformer import Transformer, initialise

    with tempfile.TemporaryDirectory() as place:
        for count in (1, 3):  # the first time for the kernels alone
            forget_peak()
            before = peak(device)
            model = Transformer(SIZES)
            initialise(model, torch.Generator().manual_seed(0))
            steps(model.to(device), count)
            del model
            gc.collect()
    return figures[-1] - before


def child(name: str, folder: Path | None, device: torch.device) -> None:
    """One case; prints its figures."""
    case = CASES[name]
    measure: Callable[[Case, Path | None, torch.device], int] = measure_training if case.train else measure_request
    work = Work(
        task=case.task,
        dtype=case.dtype,
        weights=case.weights,
        device=device.type,
        batch=case.batch,
        train="full" if case.train else "",
        prompt_len=WORDS if case.train else 16,
    )
    planned = plan(outline(folder), work)
    measured = measure(case, folder, device)
    parts = {part.name: part.num_bytes for part in (*planned.always, *planned.in_turn)}
    print(json.dumps({"planned": planned.num_bytes, "measured": measured, "parts": parts}))


def main() -> None:
    """Write models, run cases, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", choices=list(CASES))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--as-it-comes", action="store_true", help="leave the limit of glibc as it is")
    parser.add_argument("--output", type=Path, default=Path("out/memory.json"))
    parser.add_argument("--child", nargs=2, metavar=("CASE", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        name, folder = options.child
        child(name, Path(folder) if folder else None, torch.device(options.device))
        return
    environment = {**os.environ, **({} if options.as_it_comes else {"MALLOC_MMAP_THRESHOLD_": str(2**17)})}
    rows = []
    with tempfile.TemporaryDirectory() as place:
        for name in options.case or list(CASES):
            folder = written(Path(place), CASES[name])
            command = [sys.executable, __file__, "--device", options.device, "--child", name, str(folder or "")]
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
            if done.returncode:
                raise SystemExit(f"{name}: {done.stderr.strip()[-2000:]}")
            row = json.loads(done.stdout.strip().splitlines()[-1])
            ratio = row["planned"] / row["measured"]
            rows.append({"case": name, **asdict(CASES[name]), **row, "ratio": round(ratio, 3)})
            print(f"{name:30}{gigabytes(row['planned']):>12}{gigabytes(row['measured']):>12}{ratio:8.2f}", flush=True)
    report = {"device": options.device, "threads": torch.get_num_threads(), "torch": torch.__version__, "rows": rows}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=2) + "\n")


def written(place: Path, case: Case) -> Path | None:
    """The folder of a case's model, written at its first use; None for the embedded model."""
    if not case.width:
        return None
    from drawn import write_backbone, write_media

    folder = place / f"{case.width}"
    if not folder.exists():
        write_backbone(folder, network_of(case.width), torch.bfloat16)
        write_media(folder)
    return folder


if __name__ == "__main__":
    main()
