"""Models in the published layout with drawn weights, for benchmarks: any width, all rows, the media tokenizers whole.

Enters: the sizes of a network, a folder. Leaves: the folder as a download of the published model would look, checksums
included. Does not know what is done with it. Tensors are drawn one by one on the device that is named and written as
they are drawn, several shards at a time, so that a machine with a GPU writes 16 GB in seconds.
"""

import hashlib
import json
import math
import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import prod
from pathlib import Path

import torch
from safetensors.torch import save_file

from dynin import testing
from dynin.checkpoint import to_json
from dynin.model import published
from dynin.model.config import PUBLISHED_8B, ModelConfig
from dynin.model.convert import expected_shapes, published_names
from dynin.model.family import FAMILIES
from dynin.model.publish import published_config
from dynin.repository import INDEX, SUMS, sha256
from dynin.tokenizers.emova import convert as emova
from dynin.tokenizers.emova.tokenizer import EmovaTokenizer
from dynin.tokenizers.magvit2 import convert as magvit2
from dynin.tokenizers.magvit2.tokenizer import Magvit2Tokenizer
from dynin.vocabulary import PUBLISHED

SHARD_BYTES = 4 * 10**9
MOST_SHARDS_AT_ONCE = 5
LONGEST_PIECE = 14
FRAMES_PER_CODE = 3.4
"""That a code is spoken for, as long as the 40 ms which it was heard for: drawn weights would hold it for one."""
NAMES = {torch.bfloat16: "BF16", torch.float32: "F32"}


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


def write_backbone(
    folder: Path, config: ModelConfig, dtype: torch.dtype, *, is_hollow: bool = False, device: str = "cpu"
) -> None:
    """A folder in the published layout.

    Args:
        is_hollow: Leave the tensors out: files of the right length and header that take no room on the disk, and no
            checksums, as there is nothing to vouch for.
        device: Where numbers are drawn.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = {f"model-{number:05d}.safetensors": part for number, part in enumerate(shards(config, dtype.itemsize), 1)}

    def write(numbered: tuple[int, str]) -> str:
        number, name = numbered
        path, shapes = folder / name, parts[name]
        return _hollow(path, shapes, dtype) if is_hollow else _drawn(path, shapes, dtype, torch.device(device), number)

    with ThreadPoolExecutor(min(MOST_SHARDS_AT_ONCE, os.cpu_count() or 1)) as pool:
        sums = dict(zip(parts, pool.map(write, enumerate(parts)), strict=True))
    weight_map = {tensor: name for name, part in parts.items() for tensor in part}
    (folder / INDEX).write_bytes(to_json({"metadata": {}, "weight_map": weight_map}))
    (folder / published.CONFIG).write_bytes(to_json(published_config(config, PUBLISHED, FAMILIES["published"])))
    (folder / "tokenizer.json").write_text(_full_text(), encoding="utf-8")
    if not is_hollow:
        sums |= {name: sha256(folder / name) for name in (INDEX, published.CONFIG, "tokenizer.json")}
        _write_sums(folder, sums)


def write_media(folder: Path) -> None:
    """The published picture and speech tokenizers at full size, with drawn weights, in a model's folder."""
    generator = torch.Generator().manual_seed(0)
    for name, tokenizer in (("image", Magvit2Tokenizer()), ("speech", EmovaTokenizer())):
        with torch.no_grad():
            for parameter in tokenizer.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(0, parameter[0].numel() ** -0.5, generator=generator)
        if isinstance(tokenizer, EmovaTokenizer):
            last = tokenizer.vocoder.duration_predictor.flows[0]
            with torch.no_grad():
                last.translate.fill_(-math.log(FRAMES_PER_CODE))
                last.log_scale.zero_()
        place = folder / name
        place.mkdir()
        if isinstance(tokenizer, Magvit2Tokenizer):
            save_file(magvit2.to_published(tokenizer.state_dict()), place / "model.safetensors")
        else:
            emova.save(place, tokenizer.eval())
        _write_sums(place, {path.name: sha256(path) for path in sorted(place.iterdir())})


def _write_sums(folder: Path, sums: dict[str, str]) -> None:
    (folder / SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in sums.items()), encoding="ascii")


def _full_text() -> str:
    """A text tokenizer with as many pieces and merges as the published one has: as many ids allowed, as much memory."""
    values = json.loads(testing.published_text(PUBLISHED, 126_349))
    pieces, merges = values["model"]["vocab"], values["model"]["merges"]
    drawn, names, short = random.Random(0), list(pieces), list(pieces)  # noqa: S311 - nothing secret
    while len(pieces) < len(PUBLISHED.text):
        first, second = drawn.choice(names), drawn.choice(short)
        if first + second not in pieces and len(first + second) <= LONGEST_PIECE:
            pieces[first + second] = len(pieces)
            names.append(first + second)
            merges.append([first, second])
    return json.dumps(values)


def _header(shapes: dict[str, tuple[int, ...]], dtype: torch.dtype) -> tuple[bytes, int]:
    """The head of a safetensors file, and how many bytes follow it."""
    header: dict[str, object] = {}
    start = 0
    for name, shape in shapes.items():
        stop = start + prod(shape) * dtype.itemsize
        header[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, start


def _hollow(path: Path, shapes: dict[str, tuple[int, ...]], dtype: torch.dtype) -> str:
    """A safetensors file whose tensors are a hole that takes no room on the disk."""
    head, length = _header(shapes, dtype)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + length)
    return ""


def _drawn(path: Path, shapes: dict[str, tuple[int, ...]], dtype: torch.dtype, device: torch.device, seed: int) -> str:
    """A safetensors file of normal numbers and of ones for norms; its SHA-256, taken as it is written."""
    generator = torch.Generator(device).manual_seed(seed)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        head, _ = _header(shapes, dtype)
        file.write(head)
        digest.update(head)
        for shape in shapes.values():
            value = torch.ones(shape, dtype=dtype, device=device)
            if len(shape) > 1:
                value.normal_(0, 0.02, generator=generator)
            content = value.cpu().view(torch.uint8).numpy().reshape(-1).data
            file.write(content)
            digest.update(content)
    return digest.hexdigest()
