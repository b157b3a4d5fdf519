"""How long the tokenizers take beside the same networks written plainly: `python benchmarks/codecs.py`.

Enters: settings; weights and inputs are drawn. Leaves: a table, and out/codecs.json. Does not know what is fast
enough. A further case is one function that returns what is to be timed, and its row in `CASES`.

The contestants of a case take turns in one process, A B B A, so that a machine that slows down slows down all of them.
Processor time is counted beside the time on the clock. A ratio is told only where it means something: on the clock if
the machine had nothing else to do when the program started, of processor time if the two halves of the turns agree.
"""

import argparse
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dynin.media.audio import Audio
from dynin.tokenizers.emova.tokenizer import EmovaTokenizer
from dynin.tokenizers.magvit2.tokenizer import PUBLISHED, Magvit2Tokenizer

MAX_LOAD = 0.3
"""Load average a processor, before anything is timed, up to which times on the clock are compared."""
MAX_SPREAD = 0.1
"""Disagreement between the halves of the turns up to which processor times are compared."""

Network = TypeVar("Network", bound=nn.Module)
Contestants = Mapping[str, Callable[[], Tensor]]
"""What is timed, by name; the first is what the others are compared with, in time and in what they return."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """One run."""

    cpu_s: float
    wall_s: float


@torch.no_grad()
def drawn(network: Network) -> Network:
    """The same network with weights drawn by their sizes, the same at every call."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()
        elif parameter.ndim > 1:
            parameter.normal_(0, parameter[0].numel() ** -0.5, generator=generator)
    return network.eval().requires_grad_(False)


def laid_out(tokenizer: Magvit2Tokenizer, dtype: torch.dtype) -> Magvit2Tokenizer:
    """The same weights as `convert.load` lays them out."""
    with torch.device("meta"):
        copy = Magvit2Tokenizer()
    copy.load_state_dict({name: value.clone() for name, value in tokenizer.state_dict().items()}, assign=True)
    return copy.to(dtype=dtype).to(memory_format=torch.channels_last).eval().requires_grad_(False)


def magvit2_encode(size_px: int) -> Contestants:
    """A picture to codes."""
    tokenizer = drawn(Magvit2Tokenizer())
    picture = torch.rand((1, 3, size_px, size_px), generator=torch.Generator().manual_seed(1)) * 2 - 1
    single, half = laid_out(tokenizer, torch.float32), laid_out(tokenizer, torch.bfloat16)
    return {
        "plain": lambda: tokenizer.quantize.codes(plain_encode(tokenizer.state_dict(), picture)),
        "float32": lambda: single.encode(picture),
        "bfloat16": lambda: half.encode(picture),
    }


def magvit2_decode(size_px: int) -> Contestants:
    """Codes to a picture."""
    tokenizer = drawn(Magvit2Tokenizer())
    grid = tokenizer.grid(size_px, size_px)
    codes = torch.randint(tokenizer.codebook_size, (1, math.prod(grid)), generator=torch.Generator().manual_seed(1))
    single, half = laid_out(tokenizer, torch.float32), laid_out(tokenizer, torch.bfloat16)
    return {
        "plain": lambda: plain_decode(tokenizer.state_dict(), tokenizer.quantize.signs(codes, grid)),
        "float32": lambda: single.decode_unclamped(codes, grid),
        "bfloat16": lambda: half.decode_unclamped(codes, grid),
    }


def emova_encode(_size_px: int) -> Contestants:
    """Ten seconds of sound to codes."""
    tokenizer = drawn(EmovaTokenizer())
    samples = torch.rand(10 * tokenizer.input_rate_hz, generator=torch.Generator().manual_seed(1)) - 0.5
    audio = Audio(samples=samples, rate_hz=tokenizer.input_rate_hz)
    return {"float32": lambda: tokenizer.encode(audio)}


def emova_decode(_size_px: int) -> Contestants:
    """The codes of five seconds to sound, of which these weights make three."""
    tokenizer = drawn(EmovaTokenizer())
    codes = torch.randint(tokenizer.codebook_size, (125,), generator=torch.Generator().manual_seed(1))
    return {"float32": lambda: tokenizer.decode(codes).samples}


CASES: Mapping[str, Callable[[int], Contestants]] = {
    "magvit2-encode": magvit2_encode,
    "magvit2-decode": magvit2_decode,
    "emova-encode": emova_encode,
    "emova-decode": emova_decode,
}
"""Each is given the side of pictures in pixels."""


# --- the network written plainly, from its published description ------------------------------------------------------


def plain_encode(state: Mapping[str, Tensor], pixels: Tensor) -> Tensor:
    """Pixels to the latent."""
    x = conv(state, "encoder.conv_in", pixels)
    last = len(PUBLISHED.encoder_blocks) - 1
    for level, num_blocks in enumerate(PUBLISHED.encoder_blocks):
        for block in range(num_blocks):
            x = residual(state, f"encoder.down.{level}.block.{block}", x)
        if level < last:
            x = conv(state, f"encoder.down.{level}.downsample.conv", F.pad(x, (0, 1, 0, 1)), stride=2, padding=0)
    x = act(state, "encoder.norm_out", middle(state, "encoder.mid", x))
    return conv(state, "encoder.quant_conv", conv(state, "encoder.conv_out", x), padding=0)


def plain_decode(state: Mapping[str, Tensor], signs: Tensor) -> Tensor:
    """Signs to pixels."""
    x = conv(state, "decoder.conv_in", conv(state, "decoder.post_quant_conv", signs, padding=0))
    x = middle(state, "decoder.mid", x)
    for level, num_blocks in reversed(list(enumerate(PUBLISHED.decoder_blocks))):
        for block in range(num_blocks):
            x = residual(state, f"decoder.up.{level}.block.{block}", x)
        if level > 0:
            x = conv(state, f"decoder.up.{level}.upsample.conv", F.interpolate(x, scale_factor=2.0, mode="nearest"))
    return conv(state, "decoder.conv_out", act(state, "decoder.norm_out", x))


def middle(state: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    """A residual block, attention among all places, a residual block."""
    x = residual(state, f"{name}.block_1", x)
    normed = F.group_norm(x, 32, state[f"{name}.attn_1.norm.weight"], state[f"{name}.attn_1.norm.bias"], 1e-6)
    query, key, value = (conv(state, f"{name}.attn_1.{part}", normed, padding=0).flatten(2) for part in "qkv")
    weights = (query.transpose(1, 2) @ key * query.shape[1] ** -0.5).softmax(-1)  # B YX YX
    mixed = (weights @ value.transpose(1, 2)).transpose(1, 2).reshape(x.shape)
    return residual(state, f"{name}.block_2", x + conv(state, f"{name}.attn_1.proj_out", mixed, padding=0))


def residual(state: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    """Norm, SiLU and convolution twice, beside a shortcut."""
    hidden = conv(state, f"{name}.conv1", act(state, f"{name}.norm1", x))
    hidden = conv(state, f"{name}.conv2", act(state, f"{name}.norm2", hidden))
    shortcut = f"{name}.nin_shortcut"
    return (conv(state, shortcut, x, padding=0) if f"{shortcut}.weight" in state else x) + hidden


def act(state: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    """Norm and SiLU."""
    normed = F.group_norm(x, 32, state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)
    return normed * torch.sigmoid(normed)


def conv(state: Mapping[str, Tensor], name: str, x: Tensor, stride: int = 1, padding: int = 1) -> Tensor:
    """A convolution."""
    return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], stride=stride, padding=padding)


# --- timing -----------------------------------------------------------------------------------------------------------


def take_turns(contestants: Contestants, num_rounds: int) -> dict[str, list[Turn]]:
    """Every contestant twice a round, forwards and backwards."""
    turns: dict[str, list[Turn]] = {name: [] for name in contestants}
    for _ in range(num_rounds):
        for name in (*contestants, *reversed(contestants)):
            cpu_s, wall_s = time.process_time(), time.perf_counter()
            contestants[name]()
            turns[name].append(Turn(cpu_s=time.process_time() - cpu_s, wall_s=time.perf_counter() - wall_s))
    return turns


def speedup(first: list[Turn], other: list[Turn], is_quiet: bool) -> dict[str, float | None]:
    """How many times as fast the other is; None where that cannot be told."""
    halves = [
        median(turn.cpu_s for turn in first[half::2]) / median(turn.cpu_s for turn in other[half::2]) for half in (0, 1)
    ]
    is_steady = max(halves) <= (1 + MAX_SPREAD) * min(halves)
    wall = median(turn.wall_s for turn in first) / median(turn.wall_s for turn in other)
    return {"cpu": sum(halves) / 2 if is_steady else None, "wall": wall if is_quiet else None}


def likeness(first: Tensor, other: Tensor) -> str:
    """How far two results agree."""
    if not first.is_floating_point():
        return f"{float((first == other).float().mean()):.1%} of codes equal"
    return f"differs by {float((first - other).abs().max() / first.abs().max()):.1e} of the range"


@torch.no_grad()
def compare(name: str, contestants: Contestants, num_rounds: int, is_quiet: bool) -> dict[str, object]:
    """Time a case, print a line a contestant and return what was measured."""
    results = {contestant: run() for contestant, run in contestants.items()}
    turns = take_turns(contestants, num_rounds)
    first = next(iter(contestants))
    report: dict[str, object] = {}
    for contestant, taken in turns.items():
        line = f"{name:15} {contestant:9}"
        line += (
            f" {median(turn.cpu_s for turn in taken):6.2f} s cpu {median(turn.wall_s for turn in taken):6.2f} s wall"
        )
        measured: dict[str, object] = {"turns": [asdict(turn) for turn in taken]}
        if contestant != first:
            ratios = speedup(turns[first], taken, is_quiet)
            told = [f"{f'{ratio:.2f} x' if ratio else 'no ratio'} {kind}" for kind, ratio in ratios.items()]
            measured |= {"speedup": ratios, "likeness": likeness(results[first], results[contestant])}
            line += f"  {', '.join(told)}; {measured['likeness']}"
        print(line, flush=True)
        report[contestant] = measured
    return report


def main() -> None:
    """Time the chosen cases and write everything that was measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--case", choices=CASES, action="append", help="this one; may be repeated; default all")
    parser.add_argument("--size", type=int, default=256, help="side of pictures in pixels, a multiple of 16")
    parser.add_argument("--rounds", type=int, default=3, help="each times every contestant twice")
    parser.add_argument("--output", type=Path, default=Path("out/codecs.json"))
    options = parser.parse_args()
    load, limit = os.getloadavg()[0], MAX_LOAD * (os.cpu_count() or 1)
    print(f"{torch.get_num_threads()} threads on {os.cpu_count()} processors, load average {load:.2f} before the start")
    if load > limit:
        print(f"the machine has other work: no ratio of times on the clock above a load average of {limit:.1f}")
    report: dict[str, object] = {"load_before": load, "threads": torch.get_num_threads(), "size_px": options.size}
    for name in options.case or CASES:
        report[name] = compare(name, CASES[name](options.size), options.rounds, load <= limit)
    report["load_after"] = os.getloadavg()[0]
    print(f"load average {report['load_after']:.2f} at the end")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=2) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
