"""Two ways to do the same, timed side by side in one process, and when a ratio may be told.

Enters: contestants by name, the first of which the others are compared with. Leaves: times, loads, figures of the
machine, and either a ratio or the reasons why there is none. Does not know what is done.

    A B C C B A   A B C C B A   ..     whoever slows the machine down slows all of them down
    ^ the first time of each is thrown away
"""

import hashlib
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

ROOT = Path(__file__).resolve().parents[1]
BLOCK_RATE, HEAD_RATE = 97.0, 64.0
"""GFLOP/s in float32 of the core that the oracle was timed on: 160 rows by 512 x 2048, and by 512 x 138752."""
TOLERANCE = 0.15
"""By which the oracle may be off the time it took there, once scaled by this machine's rates."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """One run of one contestant."""

    cpu_s: float
    wall_s: float
    load: float
    """Load average of the minute before."""
    threads: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Rates:
    """Of matrix products in float32, in GFLOP/s of processor time."""

    block: float
    head: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """Where the oracle spent its processor time on the machine of `BLOCK_RATE` and `HEAD_RATE`, one thread."""

    total_s: float
    blocks_s: float
    head_s: float

    def expected_s(self, rates: Rates) -> float:
        """The same time on a machine of other rates: the products' share decides for all of it."""
        scaled = self.blocks_s * BLOCK_RATE / rates.block + self.head_s * HEAD_RATE / rates.head
        return self.total_s * scaled / (self.blocks_s + self.head_s)


def alternate(contestants: Mapping[str, Callable[[], object]], num_repeats: int) -> dict[str, list[Turn]]:
    """Times of each, forwards and backwards in turn, `num_repeats` of them after a first that is thrown away."""
    turns: dict[str, list[Turn]] = {name: [] for name in contestants}
    is_backwards = False
    while any(len(taken) < num_repeats + 1 for taken in turns.values()):
        for name in reversed(contestants) if is_backwards else contestants:
            turns[name].append(timed(contestants[name]))
        is_backwards = not is_backwards
    return {name: taken[1:] for name, taken in turns.items()}


def timed(run: Callable[[], object]) -> Turn:
    """Run once."""
    load, cpu_s, wall_s = os.getloadavg()[0], time.process_time(), time.perf_counter()
    run()
    return Turn(
        cpu_s=time.process_time() - cpu_s,
        wall_s=time.perf_counter() - wall_s,
        load=load,
        threads=torch.get_num_threads(),
    )


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, tenth and ninetieth percentile."""
    if len(values) == 1:
        return {"median": values[0], "p10": values[0], "p90": values[0]}
    tenths = statistics.quantiles(values, n=10, method="inclusive")
    return {"median": statistics.median(values), "p10": tenths[0], "p90": tenths[-1]}


def summary(turns: Sequence[Turn], num_steps: int) -> dict[str, object]:
    """What is kept of a contestant's turns; times are divided by `num_steps` where a step is what counts."""
    return {
        "cpu_s": spread([turn.cpu_s / num_steps for turn in turns]),
        "wall_s": spread([turn.wall_s / num_steps for turn in turns]),
        "threads": sorted({turn.threads for turn in turns}),
        "turns": [asdict(turn) for turn in turns],
    }


def objections(first: Sequence[Turn], other: Sequence[Turn], num_cores: int) -> list[str]:
    """Why no ratio of these may be told; empty where it may."""
    found = []
    load = round(statistics.median(turn.load for turn in (*first, *other)), 1)
    if load > num_cores:
        found.append(f"load average {load} on {num_cores} cores; wait until the machine is free and run again")
    threads = [sorted({turn.threads for turn in turns}) for turns in (first, other)]
    if threads[0] != threads[1] or len(threads[0]) != 1:
        found.append(f"one side ran on {threads[0]} threads and the other on {threads[1]}; give both the same number")
    return found


def off_profile(profile: Profile, rates: Rates, cpu_s: float) -> str | None:
    """Why the oracle is no fair opponent here; None where it takes about as long as it should."""
    expected = profile.expected_s(rates)
    if abs(cpu_s / expected - 1) <= TOLERANCE:
        return None
    return (
        f"the oracle took {cpu_s:.1f} s of processor time, expected {expected:.1f} s within {TOLERANCE:.0%} "
        f"({profile.total_s} s where products run at {BLOCK_RATE} and {HEAD_RATE} GFLOP/s, here {rates.block:.0f} and "
        f"{rates.head:.0f})"
    )


def matmul_rates(num_rows: int = 160, width: int = 512, block_dim: int = 2048, head_dim: int = 138_752) -> Rates:
    """Of one thread, whatever the number of threads set."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return Rates(
            block=_rate(num_rows, width, block_dim, repeats=200), head=_rate(num_rows, width, head_dim, repeats=4)
        )
    finally:
        torch.set_num_threads(threads)


def mean_rates(rates: Sequence[Rates]) -> Rates:
    """Of several readings."""
    return Rates(block=statistics.mean(rate.block for rate in rates), head=statistics.mean(rate.head for rate in rates))


def _rate(num_rows: int, width: int, out_dim: int, repeats: int) -> float:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(num_rows, width, generator=generator)
    weight = torch.randn(out_dim, width, generator=generator)
    F.linear(x, weight)
    started = time.process_time()
    for _ in range(repeats):
        F.linear(x, weight)
    return 2e-9 * num_rows * width * out_dim * repeats / (time.process_time() - started)


def surroundings() -> dict[str, object]:
    """What a figure depends on besides the code: versions, machine, commit."""
    return {
        "commit": commit(),
        "machine": machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cores": os.cpu_count(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def machine() -> str:
    """The processor's name and the number of cores, by which rows of the same machine are known."""
    name = platform.processor() or platform.machine()
    told = Path("/proc/cpuinfo")
    if told.exists():
        lines = [line for line in told.read_text(encoding="utf-8").splitlines() if line.startswith("model name")]
        name = lines[0].split(":", 1)[1].strip() if lines else name
    return f"{name}, {os.cpu_count()} cores"


def commit() -> str:
    """The commit of this tree; with a digest behind it where code differs from it."""
    head = _git("rev-parse", "--short=12", "HEAD").strip()
    changed = _git("diff", "HEAD", "--", "src", "benchmarks")
    return head + (f"+{hashlib.sha256(changed.encode()).hexdigest()[:8]}" if changed else "")


def _git(*words: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
    except OSError:  # a machine without git
        return ""
    return done.stdout if done.returncode == 0 else ""
