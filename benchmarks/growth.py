"""How the cost of a decoding grows: with what is made, what was given before it, sequences at once, and frames.

Enters: a tier of `decoding_cases`, the quantity that grows. Leaves: processor seconds, columns and passes for each
length, computed in full at each pass and remembered, as a table and as JSON. Does not know the published samplers.

    python benchmarks/growth.py --tier M                  # a minute or two of one core
    python benchmarks/growth.py --tier S --axis frames

Weights are drawn, so that how many places a pass reveals is fixed by the plan: what grows is what a pass costs and how
many there are. One thread, float32, nothing drawn but codes of frames.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from decoding_cases import SEED, Sizes, Stage, cached, exact_image, exact_speech

from dynin.decoding.canvas import Canvas, Segment
from dynin.decoding.decoder import ParallelDecoder
from dynin.decoding.policy import DecodingPolicy
from dynin.decoding.refresh import Refresh
from dynin.pipeline.denoiser import PolicyDenoiser

ROOT = Path(__file__).resolve().parents[1]
FRAME_CODES = 64
FRAME_STEPS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """How much one decoding is."""

    family: str
    sizes: Sizes
    batch: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What one decoding took."""

    axis: str
    value: int
    way: str
    cpu_s: float
    num_columns: int
    """Computed by the network, over all sequences, both branches of guidance counted."""
    num_passes: int
    load: float
    """Load average of the minute before."""


def _text(prompt_len: int, num_new: int) -> Sizes:
    """Text in blocks of 32, 16 places a pass."""
    return Sizes(prompt_len=prompt_len, num_new=num_new, num_steps=num_new // 16, block_len=32)


def _frames(number: int) -> Sizes:
    """Frames of one video, decoded together under guidance."""
    return Sizes(
        prompt_len=32, num_new=number * FRAME_CODES, num_steps=FRAME_STEPS, temperature=1.0, guidance_scale=3.5
    )


AXES: Mapping[str, Mapping[int, Point]] = {
    "new": {count: Point(family="text", sizes=_text(32, count)) for count in (64, 128, 256, 512)},
    "prompt": {count: Point(family="text", sizes=_text(count, 64)) for count in (32, 128, 512, 1024)},
    "batch": {count: Point(family="text", sizes=_text(32, 64), batch=count) for count in (1, 2, 4, 8)},
    "frames": {count: Point(family="image", sizes=_frames(count)) for count in (1, 2, 4, 8)},
}
"""Ids made; ids given before them; sequences decoded at once; frames made at once."""


def remembered_frames(sizes: Sizes) -> DecodingPolicy:
    """Keys and values remembered, made anew at every fourth pass: places are hidden everywhere until the end."""
    return replace(exact_image(sizes), refresh=Refresh(every=4), sampling="inverse")


WAYS: Mapping[str, Mapping[str, Callable[[Sizes], DecodingPolicy]]] = {
    "text": {"full": exact_speech, "remembered": cached},
    "image": {"full": exact_image, "remembered": remembered_frames},
}
"""By family: everything computed at each pass, or keys and values remembered."""


def measure(stage: Stage, axis: str, value: int, way: str) -> Cost:
    """One decoding."""
    point = AXES[axis][value]
    rows = [stage.canvas(point.family, point.sizes, seed=seed) for seed in range(point.batch)]
    uncond_ids = [canvas.uncond_ids for canvas, _ in rows if canvas.uncond_ids is not None]
    canvas = Canvas(
        ids=torch.cat([canvas.ids for canvas, _ in rows]), uncond_ids=torch.cat(uncond_ids) if uncond_ids else None
    )
    segment = Segment(
        name=point.family,
        is_target=torch.cat([is_target for _, is_target in rows]),
        allowed_ids=stage.allowed(point.family),
        policy=WAYS[point.family][way](point.sizes),
    )
    denoiser = PolicyDenoiser(stage.quick())
    decoder = ParallelDecoder(denoiser, stage.vocabulary["mask"])
    generator = torch.Generator().manual_seed(SEED)
    started = time.process_time()
    decoded = decoder.run(canvas, [segment], generator=generator)
    return Cost(
        axis=axis,
        value=value,
        way=way,
        cpu_s=round(time.process_time() - started, 3),
        num_columns=sum(denoiser.effort(row).num_columns for row in range(point.batch)),
        num_passes=decoded.num_forwards,
        load=round(os.getloadavg()[0], 1),
    )


def measured(stage: Stage, axes: list[str]) -> Iterator[Cost]:
    """All decodings of some axes, after one that is thrown away."""
    measure(stage, axes[0], min(AXES[axes[0]]), "full")
    for axis in axes:
        for value in AXES[axis]:
            for way in ("full", "remembered"):
                yield measure(stage, axis, value, way)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tier", choices=("S", "M"), default="M")
    parser.add_argument("--axis", choices=tuple(AXES), nargs="+", default=list(AXES))
    parser.add_argument("--output", type=Path, default=ROOT / "out" / "bench")
    told = parser.parse_args()
    torch.set_num_threads(1)
    stage = Stage(told.tier)
    costs = []
    print(f"{'axis':8}{'value':>7}  {'way':12}{'passes':>7}{'columns':>9}{'cpu s':>9}{'load':>6}")
    for cost in measured(stage, told.axis):
        costs.append(cost)
        print(
            f"{cost.axis:8}{cost.value:7}  {cost.way:12}{cost.num_passes:7}{cost.num_columns:9,}"
            f"{cost.cpu_s:9.2f}{cost.load:6}",
            flush=True,
        )
    told.output.mkdir(parents=True, exist_ok=True)
    path = told.output / f"growth-{told.tier}.json"
    head = {"tier": told.tier, "threads": 1, "torch": torch.__version__, "costs": [asdict(cost) for cost in costs]}
    path.write_text(json.dumps(head, indent=1) + "\n", encoding="utf-8")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
