"""The published layout at full length: written with drawn weights, then used as the ordinary commands use it.

    python benchmarks/published.py --width 0.125 --steps 4         # 1/8 of the width, all layers, all rows
    python benchmarks/published.py --width 1 --device cuda --together     # the 8B shape on one GPU
    python benchmarks/published.py --headers                       # the 8B shape as files without content

Enters: a share of the width. Leaves: a table, and published.json in --out: seconds and peak memory by stage for text to
text, text to image (512 px), image to text, text to speech and speech to text, with the picture and speech tokenizers
at full size, beside what `dynin plan` says. Does not know what the weights mean: they are random, so only time and
memory count. Table and file grow with every task, so that what was reached stays when the time is up.

Each task is `dynin generate` in a process of its own. With --together the network is loaded once for all of them, which
spares reading it again; each task then has its media tokenizers read anew, its peak is counted from what is held, and
`dynin generate` runs once at the end, for text to text in four calls a block. Memory of a process is its resident
memory above what its interpreter and libraries took before the model (`base_gb`), of a CUDA device what the allocator
gave out.

With `--headers` nothing is run: shards of the full size are made as holes in files, their names and shapes compared
with the network's, and their bytes hashed as they stream past, which shows that loading needs no room for them.
"""

import argparse
import gc
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import torch
from drawn import scaled, write_backbone, write_media
from watch import Watch, process_peak

from dynin import repository, testing
from dynin.decoding.decoder import ParallelDecoder
from dynin.errors import DyninError
from dynin.media import audio, image
from dynin.model import published
from dynin.model.config import PUBLISHED_8B
from dynin.pipeline import encoding, folder
from dynin.pipeline.dynin import Dynin
from dynin.pipeline.outline import outline
from dynin.pipeline.plan import Plan, Work, plan
from dynin.pipeline.request import Request
from dynin.repository import open_repository
from dynin.tokenizers.bundle import Tokenizers

GIVEN_PX, GIVEN_S = 400, 4.0
REQUESTS: dict[str, dict[str, Any]] = {
    "t2i": {"prompt": "a dog left of a red apple", "to": "image"},
    "t2t": {"prompt": "Why is the sky blue?", "to": "text"},
    "s2t": {"audio": "sound.wav", "to": "text"},
    "t2s": {"prompt": "Hello there.", "to": "speech"},
    "i2t": {"prompt": "What is in the picture?", "image": "picture.png", "to": "text"},
}
OUTPUTS = {"image": ["--output", "made.png"], "speech": ["--output", "made.wav"], "text": []}
STAGES = ("hash", "load", "read tokenizers", "tokenize", "decode", "detokenize")


def watch(device: torch.device) -> Watch:
    """The stages of a request, watched from here on."""
    found = Watch(device)
    found.around(repository, "verify", "hash")
    found.around(folder, "load", "load")
    found.around(Tokenizers, "prepare", "read tokenizers")
    found.around(Tokenizers, "encode", "tokenize")
    found.around(Tokenizers, "decode", "detokenize")
    found.around(ParallelDecoder, "run", "decode")
    return found


def kind(options: argparse.Namespace) -> str:
    """Of the device."""
    return torch.device(options.device).type


def row_of(task: str, seen: Watch, base: int, num_forwards: int, planned: Plan) -> dict[str, Any]:
    """What a task took, beside its plan."""
    rise = seen.whole - base
    decode_s = seen.seconds.get("decode", 0.0)
    return {
        "task": task,
        "seconds": {stage: round(seen.seconds.get(stage, 0.0), 2) for stage in STAGES},
        "num_forwards": num_forwards,
        "s_a_call": round(decode_s / max(1, num_forwards), 4),
        "base_gb": round(base / 1e9, 3),
        "peak_gb": round(rise / 1e9, 3),
        "peaks_gb": {stage: round((peak - base) / 1e9, 3) for stage, peak in seen.peaks.items()},
        "process_gb": round((process_peak() if seen.device.type == "cuda" else seen.whole) / 1e9, 2),
        "planned_gb": round(planned.num_bytes / 1e9, 3),
        "parts_gb": {part.name: round(part.num_bytes / 1e9, 3) for part in (*planned.always, *planned.in_turn)},
        "ratio": round(planned.num_bytes / max(1, rise), 3),
    }


def child(task: str, place: Path, options: argparse.Namespace) -> None:
    """The ordinary command, watched; prints one line of figures behind its own."""
    from dynin.cli.app import main as command

    import_all(task, options)
    request = REQUESTS[task]
    words = ["generate", *([request["prompt"]] if "prompt" in request else []), "--to", request["to"]]
    for name in ("audio", "image"):
        words += [f"--{name}", str(place / request[name])] if name in request else []
    words += [str(place / word) if word.startswith("made") else word for word in OUTPUTS[request["to"]]]
    words += ["--model", str(place), "--device", options.device, "--json"]
    words += ["--steps", str(options.steps)] if options.steps else []
    seen = watch(torch.device(options.device))
    seen.clear()
    base = seen.whole if seen.device.type == "cpu" else 0
    seen.clear()
    if status := command(words):
        raise SystemExit(status)
    print(json.dumps(row_of(task, seen, base, 0, plan(outline(place), Work(task=task, device=kind(options))))))


def import_all(task: str, options: argparse.Namespace) -> None:
    """Import what the command imports on its way, and start the kernels: no part of what a model takes."""
    import dynin.cli.show  # noqa: F401

    with tempfile.TemporaryDirectory() as place:
        tiny = testing.tiny_published(Path(place) / "tiny")
        folder.load(tiny, device=options.device).run(given("t2t", 1))
    if "s" in task:
        from dynin.tokenizers.emova import convert

        convert.expected_shapes()
    gc.collect()


def apart(task: str, place: Path, options: argparse.Namespace, steps: int) -> dict[str, Any]:
    """One request by the ordinary command, in a process of its own."""
    words = ["--child", task, "--at", str(place), "--device", options.device, "--steps", str(steps)]
    started = time.monotonic()
    done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        return {"task": task, "error": done.stderr.strip()[-500:]}
    told, row = (json.loads(line) for line in done.stdout.strip().split("\n")[-2:])
    row |= {"num_forwards": told["num_forwards"], "wall_s": round(time.monotonic() - started, 1)}
    return row | {"s_a_call": round(row["seconds"]["decode"] / max(1, told["num_forwards"]), 4)}


def given(task: str, steps: int) -> Request:
    """A request with its media as values."""
    values = {key: value for key, value in REQUESTS[task].items() if key not in ("audio", "image")}
    if "image" in REQUESTS[task]:
        values["image"] = testing.small_picture(GIVEN_PX)
    if "audio" in REQUESTS[task]:
        values["audio"] = testing.small_sound(GIVEN_S)
    return Request(**values, steps=steps or None)


def loaded(place: Path, options: argparse.Namespace, seen: Watch) -> tuple[Dynin, dict[str, Any]]:
    """The model, read once and warm, and what reading it took."""
    device = torch.device(options.device)
    model = folder.load(place, device=device, weights=options.weights)
    reading_gb = round(seen.whole / 1e9, 2)
    started = time.monotonic()
    model.run(given("t2t", 1))
    row = {
        "task": "loading",
        "seconds": {stage: round(seen.seconds[stage], 2) for stage in ("hash", "load")},
        "warm_up_s": round(time.monotonic() - started, 2),
        "peak_gb": reading_gb,
        "process_gb": round(process_peak() / 1e9, 2),
    }
    return model, row


def together(model: Dynin, task: str, place: Path, options: argparse.Namespace, seen: Watch) -> dict[str, Any]:
    """One request by a network that is there already, its media tokenizers read anew."""
    fresh = encoding.read(place, device=torch.device(options.device)).tokenizers
    seen.clear()
    started = time.monotonic()
    try:
        result = replace(model, tokenizers=fresh).run(given(task, options.steps))
    except (DyninError, RuntimeError) as error:
        return {"task": task, "error": f"{type(error).__name__}: {error}"[:500]}
    planned = plan(outline(place), Work(task=task, weights=options.weights, device=kind(options)))
    return row_of(task, seen, 0, result.num_forwards, planned) | {"wall_s": round(time.monotonic() - started, 2)}


def check_headers(place: Path) -> dict[str, object]:
    """Names, shapes and hashes of a folder without holding its weights."""
    found = published.read(place)
    started = time.monotonic()
    digests = {}
    for shard in found.repository.shards:
        with shard.open("rb") as file:
            digests[shard.name] = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return {
        "task": "headers",
        "num_tensors": len(found.repository.tensors),
        "num_parameters": sum(prod(shape) for shape in open_repository(place).shapes.values()),
        "num_bytes": found.repository.num_bytes,
        "hash_s": round(time.monotonic() - started, 1),
        "sha256": digests,
        "peak_gb": round(process_peak() / 1e9, 2),
    }


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    if "error" in row or "planned_gb" not in row:
        return json.dumps(row)
    stages = "".join(f"{row['seconds'][stage]:17.2f}" for stage in STAGES)
    memory = f"{row['peak_gb']:9.3f}{row['planned_gb']:9.3f}{row['ratio']:7.2f}{row['process_gb']:9.2f}"
    return f"{row['task']:10}{stages}{row['num_forwards']:7}{row['s_a_call']:9.4f}{memory}"


def write(place: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The folder, unless it is there already, and how long it took."""
    dtype = {"bfloat16": torch.bfloat16, "float32": torch.float32}[options.dtype]
    config = PUBLISHED_8B if options.headers else scaled(options.width)
    started = time.monotonic()
    if (place / published.CONFIG).exists():
        return {"task": "writing", "note": "was there already"}
    write_backbone(place, config, dtype, is_hollow=options.headers, device=options.device)
    backbone_s = time.monotonic() - started
    if not options.headers:
        write_media(place)
        image.write(place / "picture.png", testing.small_picture(GIVEN_PX))
        if not options.together:
            audio.write(place / "sound.wav", testing.small_sound(GIVEN_S))
    if options.device.startswith("cuda"):
        torch.cuda.empty_cache()
    num_bytes = sum(path.stat().st_size for path in place.rglob("*.safetensors"))
    times = {"network_s": round(backbone_s, 1), "all_s": round(time.monotonic() - started, 1)}
    return {"task": "writing", **times, "gb": round(num_bytes / 1e9, 2), "d_model": config.d_model}


def main() -> None:
    """Write, run, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=float, default=0.125)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--weights", default="", choices=["", "int8"], help="as they are held; with --together")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=4, help="calls per picture or block; 0 for the published ones")
    parser.add_argument("--task", action="append", choices=list(REQUESTS))
    parser.add_argument("--together", action="store_true", help="load once for all tasks")
    parser.add_argument("--limit", type=float, default=1e9, help="with --together: no task is begun after so many s")
    parser.add_argument("--headers", action="store_true")
    parser.add_argument("--at", type=Path, help="write the model there and leave it; used if it is there already")
    parser.add_argument("--out", type=Path, default=Path("out"), help="a folder, for published.json")
    parser.add_argument("--child", choices=list(REQUESTS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.at, options)
        return
    about = {name: value for name, value in vars(options).items() if isinstance(value, str | int | float)}
    if options.device.startswith("cuda"):
        about["device"] = torch.cuda.get_device_name(options.device)
    rows: list[dict[str, Any]] = []
    report = {**about, "torch": torch.__version__, "threads": torch.get_num_threads(), "rows": rows}

    def tell(row: dict[str, Any]) -> None:
        rows.append(row)
        print(line(row), flush=True)
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "published.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")

    with tempfile.TemporaryDirectory() if options.at is None else nullcontext(options.at.parent) as parent:
        place = Path(parent) / "model" if options.at is None else options.at
        tell(write(place, options))
        run(place, options, tell)


def run(place: Path, options: argparse.Namespace, tell: Callable[[dict[str, Any]], None]) -> None:
    """All that is to be run, and for which there is time."""
    started = time.monotonic()
    if options.headers:
        tell(check_headers(place))
        return
    titles = "".join(f"{stage + ' s':>17}" for stage in STAGES)
    print(f"{'task':10}{titles}{'calls':>7}{'s/call':>9}{'peak GB':>9}{'planned':>9}{'ratio':>7}{'process':>9}")
    tasks = options.task or list(REQUESTS)
    if not options.together:
        for task in tasks:
            tell(apart(task, place, options, options.steps))
        return
    seen = watch(torch.device(options.device))
    model, row = loaded(place, options, seen)
    tell(row)
    for task in tasks:
        is_late = time.monotonic() - started > options.limit
        tell({"task": task, "error": "no time left"} if is_late else together(model, task, place, options, seen))
    del model
    if options.device.startswith("cuda"):
        torch.cuda.empty_cache()
    tell(apart("t2t", place, options, 4) | {"task": "command"})


if __name__ == "__main__":
    main()
