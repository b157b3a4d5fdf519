"""How much memory decoding takes above the weights, the oracle's beside ours.

Enters: a tier. Leaves: megabytes. Does not know how anything is decoded.

Torch tells of no allocations on a CPU, so a process of its own is watched from outside: it draws the weights and, for
each way, decodes once so that kernels and their threads are there, notes what it holds (VmRSS), sets its high-water
mark back (/proc/self/clear_refs) and decodes once more; what the mark (VmHWM) rose by is the peak above the weights.
What glibc keeps of freed pieces would hide a part: the process runs with a limit of 128 KB for that
(MALLOC_MMAP_THRESHOLD_). A few steps are enough, since the first step of a block, where most is hidden, takes the most.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from decoding_cases import FAMILIES, Sizes, Stage, oracle, ours
from decoding_forced import all_cases
from watch import forget_process_peak, process_peak

TILES = "tiles"
"""What output tables keep beside themselves, those of all ways and dtypes together."""


def measure(tier: str) -> dict[str, Any]:
    """Peaks of the oracle of each family and of every way of ours; none where the system does not tell."""
    if not Path("/proc/self/clear_refs").exists():
        return {
            "peaks": [],
            "tiles_mb": 0.0,
            "method": "none: only Linux tells a process's high-water mark and sets it back",
        }
    found = _in_a_process(tier)
    peaks = [
        {
            "family": case.family,
            "way": name,
            "oracle_mb": found[case.family] / 1e6,
            "ours_mb": found[name] / 1e6,
            "share": found[name] / found[case.family],
        }
        for name, case in all_cases().items()
    ]
    method = "VmHWM of a process above VmRSS with weights, their tiles among them, after one decoding"
    return {"peaks": peaks, "tiles_mb": found[TILES] / 1e6, "method": method}


def few_steps(sizes: Sizes) -> Sizes:
    """One step a block, two where there are no blocks."""
    num_blocks = 1 if sizes.block_len is None else sizes.num_new // sizes.block_len
    return replace(sizes, num_steps=max(2, num_blocks), oracle_steps=2)


def held() -> int:
    """Bytes that this process holds now."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def _in_a_process(tier: str) -> dict[str, int]:
    """Peaks in bytes: of ways of ours by their name, of the oracle by its family."""
    command = [sys.executable, __file__, "--tier", tier]
    environment: Mapping[str, str] = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**17)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"memory on tier {tier}: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


class _Short(Stage):
    """A stage with as few steps as there can be."""

    def sizes(self, family: str) -> Sizes:
        return few_steps(FAMILIES[family].sizes[self.tier])


def peak_of(run: Callable[[], object]) -> int:
    """Bytes above what is held between two runs."""
    run()
    gc.collect()
    before = held()
    forget_process_peak()
    run()
    return process_peak() - before


def main() -> None:
    """Decode in each way, watched."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tier", required=True)
    stage = _Short(parser.parse_args().tier)
    torch.set_num_threads(1)
    found = {name: peak_of(ours(stage, case.family, case.way)) for name, case in all_cases().items()}
    found |= {family: peak_of(oracle(stage, family)) for family in FAMILIES}
    print(json.dumps({**found, TILES: stage.tile_bytes}))


if __name__ == "__main__":
    main()
