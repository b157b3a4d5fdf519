"""The published layout at full length: written with drawn weights, then used by the ordinary commands.

    python benchmarks/published.py --width 0.125 --steps 4         # 1/8 of the width, all layers, all rows
    python benchmarks/published.py --width 1 --dtype bfloat16 --device cuda --steps 0     # the 8B shape
    python benchmarks/published.py --headers                       # the 8B shape as files without content

Enters: a share of the width. Leaves: a table, and out/published.json: seconds and peak memory of `dynin generate` for
text to text, text to image (512 px), image to text and text to speech, each in a process of its own, with the picture
and speech tokenizers at full size, beside what `dynin plan` says. Of a process, the interpreter and its libraries count
too (`base_gb`, taken before the model is loaded); on CUDA the allocator's own peak is told. Does not know what the
weights mean: they are random, so only time and memory count.

With `--headers` nothing is run: shards of the full size are made as holes in files, their names and shapes compared
with the network's, and their bytes hashed as they stream past, which shows that loading needs no room for them.
"""

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from math import prod
from pathlib import Path

import torch
from safetensors.torch import save_file

from dynin import testing
from dynin.checkpoint import to_json
from dynin.media import audio, image
from dynin.model import published
from dynin.model.config import PUBLISHED_8B, ModelConfig
from dynin.model.convert import expected_shapes, published_names
from dynin.model.family import FAMILIES
from dynin.model.publish import published_config
from dynin.pipeline.outline import outline
from dynin.pipeline.plan import Work, plan
from dynin.repository import INDEX, open_repository
from dynin.tokenizers.emova import convert as emova
from dynin.tokenizers.emova.tokenizer import EmovaTokenizer
from dynin.tokenizers.magvit2 import convert as magvit2
from dynin.tokenizers.magvit2.tokenizer import Magvit2Tokenizer
from dynin.vocabulary import PUBLISHED

SHARD_BYTES = 4 * 10**9
NAMES = {torch.bfloat16: "BF16", torch.float32: "F32"}
REQUESTS = {
    "t2t": ["Why is the sky blue?", "--to", "text"],
    "t2i": ["a dog left of a red apple", "--to", "image", "--output", "{folder}/t2i.png"],
    "i2t": ["What is in the picture?", "--image", "{folder}/picture.png", "--to", "text"],
    "t2s": ["Hello there.", "--to", "speech", "--output", "{folder}/t2s.wav"],
    "s2t": ["--audio", "{folder}/sound.wav", "--to", "text"],
}


COMMAND = """
import json, pathlib, resource, sys
import torch
import dynin.cli.show, dynin.pipeline.folder
from dynin.cli.app import main
def held():
    status = pathlib.Path("/proc/self/status")
    if status.exists():  # the other account begins with what the process had that started this one
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
base = held()
status = main(sys.argv[1:])
device = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
print(json.dumps({"base": base, "peak": held(), "device": device}))
sys.exit(status)
"""
"""The ordinary command, and what its process held at most."""


def scaled(width: float) -> ModelConfig:
    """The published network at a share of its width; layers, rows and the width of a head stay."""
    heads = max(1, round(PUBLISHED_8B.num_heads * width))
    d_model = heads * PUBLISHED_8B.head_dim
    return replace(
        PUBLISHED_8B, d_model=d_model, num_heads=heads, num_kv_heads=heads, mlp_dim=round(PUBLISHED_8B.mlp_dim * width)
    )


def shards(config: ModelConfig, size: int) -> Iterator[dict[str, tuple[int, ...]]]:
    """Published names and shapes, as many to a shard as fit."""
    shapes = expected_shapes(config)
    shard: dict[str, tuple[int, ...]] = {}
    room = SHARD_BYTES
    for theirs, ours in published_names(config).items():
        num_bytes = prod(shapes[ours]) * size
        if shard and num_bytes > room:
            yield shard
            shard, room = {}, SHARD_BYTES
        shard[theirs] = shapes[ours]
        room -= num_bytes
    yield shard


def write_backbone(folder: Path, config: ModelConfig, dtype: torch.dtype, *, is_hollow: bool) -> None:
    """A folder in the published layout, one shard in memory at a time, or none where the shards are hollow."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    weight_map: dict[str, str] = {}
    for number, shapes in enumerate(shards(config, dtype.itemsize), start=1):
        name = f"model-{number:05d}.safetensors"
        if is_hollow:
            write_hollow(folder / name, shapes, dtype)
        else:
            drawn = {
                key: torch.ones(shape, dtype=dtype)
                if len(shape) == 1
                else torch.randn(shape, generator=generator, dtype=torch.float32).mul_(0.02).to(dtype)
                for key, shape in shapes.items()
            }
            save_file(drawn, folder / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(shapes, name)
    (folder / INDEX).write_bytes(to_json({"metadata": {}, "weight_map": weight_map}))
    values = published_config(config, PUBLISHED, FAMILIES["published"])
    (folder / published.CONFIG).write_bytes(to_json(values))
    (folder / "tokenizer.json").write_text(testing.published_text(PUBLISHED, 126_349))


def write_hollow(path: Path, shapes: dict[str, tuple[int, ...]], dtype: torch.dtype) -> None:
    """A safetensors file whose header is right and whose tensors are a hole that takes no room on the disk."""
    header: dict[str, object] = {}
    start = 0
    for name, shape in shapes.items():
        stop = start + prod(shape) * dtype.itemsize
        header[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + start)


def write_media(folder: Path) -> None:
    """Both media tokenizers at full size with drawn weights, and a picture and a sound."""
    generator = torch.Generator().manual_seed(1)
    for name, tokenizer in (("image", Magvit2Tokenizer()), ("speech", EmovaTokenizer())):
        with torch.no_grad():
            for parameter in tokenizer.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(0, parameter[0].numel() ** -0.5, generator=generator)
        place = folder / name
        place.mkdir()
        if isinstance(tokenizer, Magvit2Tokenizer):
            save_file(magvit2.to_published(tokenizer.state_dict()), place / "model.safetensors")
        else:
            emova.save(place, tokenizer.eval())
    image.write(folder / "picture.png", testing.small_picture(400))
    audio.write(folder / "sound.wav", testing.small_sound(4.0))


def run(folder: Path, task: str, device: str, steps: int) -> dict[str, object]:
    """One request by the ordinary command, in a process of its own."""
    words = [word.format(folder=folder) for word in REQUESTS[task]]
    command = [sys.executable, "-c", COMMAND, "generate", *words, "--model", str(folder), "--device", device, "--json"]
    command += ["--steps", str(steps)] if steps else []
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})
    if done.returncode:
        raise SystemExit(f"{task}: {done.stderr.strip().splitlines()[-1]}")
    told, memory = (json.loads(line) for line in done.stdout.strip().splitlines()[-2:])
    wall_s = time.monotonic() - started
    planned = plan(outline(folder), Work(task=task)).num_bytes
    return {
        "task": task,
        "wall_s": round(wall_s, 1),
        "load_and_write_s": round(wall_s - told["seconds"], 1),
        "generate_s": told["seconds"],
        "num_forwards": told["num_forwards"],
        "base_gb": round(memory["base"] / 1e9, 2),
        "peak_gb": round(memory["peak"] / 1e9, 2),
        "device_peak_gb": round(memory["device"] / 1e9, 2),
        "planned_gb": round(planned / 1e9, 2),
    }


def check_headers(folder: Path) -> dict[str, object]:
    """Names, shapes and hashes of a folder without holding its weights."""
    found = published.read(folder)
    started = time.monotonic()
    digests = {}
    for shard in found.repository.shards:
        with shard.open("rb") as file:
            digests[shard.name] = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return {
        "num_tensors": len(found.repository.tensors),
        "num_parameters": sum(prod(shape) for shape in open_repository(folder).shapes.values()),
        "num_bytes": found.repository.num_bytes,
        "hash_s": round(time.monotonic() - started, 1),
        "sha256": digests,
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def main() -> None:
    """Write, run, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=float, default=0.125)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=4, help="calls per picture or block; 0 for the published ones")
    parser.add_argument("--task", action="append", choices=list(REQUESTS))
    parser.add_argument("--headers", action="store_true")
    parser.add_argument("--output", type=Path, default=Path("out/published.json"))
    options = parser.parse_args()
    dtype = {"bfloat16": torch.bfloat16, "float32": torch.float32}[options.dtype]
    config = PUBLISHED_8B if options.headers else scaled(options.width)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "model"
        started = time.monotonic()
        write_backbone(folder, config, dtype, is_hollow=options.headers)
        if options.headers:
            rows = [check_headers(folder)]
        else:
            write_media(folder)
            print(f"written in {time.monotonic() - started:.0f} s, d_model {config.d_model}", flush=True)
            rows = []
            for task in options.task or list(REQUESTS):
                rows.append(run(folder, task, options.device, options.steps))
                print(json.dumps(rows[-1]), flush=True)
    report = {"config": config.to_dict(), "dtype": options.dtype, "device": options.device, "rows": rows}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
