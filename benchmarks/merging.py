"""Memory and time of `dynin merge` on folders in the published layout.

    python benchmarks/merging.py --width 0.25 --shard-mb 300          # a quarter of the width, all layers, all rows
    python benchmarks/merging.py --hollow --method linear             # the 8B shape, inputs as holes in files

Enters: a share of the width. Leaves: a table, and out/merging.json: seconds and peak memory of a merge by every method,
each in a process of its own, beside the bytes of a shard and of a model. Memory is told twice: what the process itself
holds, and with it the pages of input files that the system has mapped and may take back. Does not know what the weights
mean: those of the base are zeros, those of the other model drawn.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import published
import torch

from dynin.merging.methods import METHODS, SPARSE
from dynin.model.config import PUBLISHED_8B
from dynin.repository import open_repository

MERGE = """
import sys
from dynin.merging import merge, recipe
base, other, place, method, density, shard = sys.argv[1:]
told = recipe.changed(
    recipe.find("modality-disentangled"), method=method, density=None if density == "1" else (float(density),)
)
request = merge.Request(base=base, others=(other,), recipe=told, max_shard_bytes=int(shard))
if place:
    merge.merge(request, merge.Path(place))
"""


def largest_shard(folder: Path) -> int:
    """Bytes of the largest weight file."""
    return max(shard.stat().st_size for shard in open_repository(folder).shards)


def run(base: Path, other: Path, place: Path | None, method: str, shard_bytes: int) -> dict[str, object]:
    """One merge in a process of its own; without a place, the process alone."""
    density = "0.3" if method in SPARSE else "1"
    arguments = [str(base), str(other), str(place or ""), method, density, str(shard_bytes)]
    started, used = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with subprocess.Popen([sys.executable, "-c", MERGE, *arguments]) as child:
        own = whole = 0
        while child.poll() is None:
            now = memory_kb(child.pid)
            own, whole = max(own, now.get("RssAnon", 0)), max(whole, now.get("VmHWM", 0))
            time.sleep(0.02)
    if child.returncode:
        raise SystemExit(f"{method}: the merge failed with status {child.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    row = {
        "method": method if place else "none",
        "wall_s": round(time.monotonic() - started, 1),
        "processor_s": round(after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime, 1),
        "own_peak_mb": own // 1024,
        "mapped_peak_mb": whole // 1024,
    }
    if place:
        row["output_shard_mb"] = largest_shard(place) // 2**20
        shutil.rmtree(place)
    return row


def memory_kb(pid: int) -> dict[str, int]:
    """What Linux says of a process; empty when it has just ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    parts = (line.split() for line in lines if line.startswith(("RssAnon", "VmHWM")))
    return {part[0].rstrip(":"): int(part[1]) for part in parts}


def main() -> None:
    """Write, merge, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--hollow", action="store_true", help="the 8B shape, both inputs without content")
    parser.add_argument("--shard-mb", type=int, default=4000)
    parser.add_argument("--method", action="append", choices=METHODS)
    parser.add_argument("--folder", type=Path, default=None, help="where folders of the models' size fit")
    parser.add_argument("--output", type=Path, default=Path("out/merging.json"))
    options = parser.parse_args()
    config = PUBLISHED_8B if options.hollow else published.scaled(options.width)
    published.SHARD_BYTES = options.shard_mb * 2**20
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        base, other = Path(place) / "base", Path(place) / "other"
        published.write_backbone(base, config, torch.bfloat16, is_hollow=True)
        published.write_backbone(other, config, torch.bfloat16, is_hollow=options.hollow)
        sizes = {
            "model_mb": open_repository(other).num_bytes // 2**20,
            "input_shard_mb": largest_shard(other) // 2**20,
        }
        print(json.dumps(sizes), flush=True)
        rows = [run(base, other, None, "linear", published.SHARD_BYTES)]
        print(json.dumps(rows[-1]), flush=True)
        for method in options.method or METHODS:
            rows.append(run(base, other, Path(place) / "merged", method, published.SHARD_BYTES))
            print(json.dumps(rows[-1]), flush=True)
    report = {"config": config.to_dict(), **sizes, "rows": rows}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
