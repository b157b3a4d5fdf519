"""Tier L: how fast the 8B shape decodes on one GPU, beside the published samplers and beside what the GPU allows.

    python benchmarks/decoding.py --tier L                                        # at most eight minutes
    python benchmarks/decoding.py --tier L --minutes 2.5                          # the rows of most worth come first
    python benchmarks/decoding.py --tier L --device cpu --width 0.0625 --rehearse # the same rows, small, on a processor

Enters: a device, a share of the width. Leaves: a table, and decoding-L.json in --output, written after each row. Does
not know quality: weights are drawn on the device, and how many places a step reveals is forced by the plan, so that
speed is measured as if a trained model had been that sure.

    steps     one pass and all around it: the reference's, ours in full, of a block with keys and values remembered
    text      tokens per second at 1, 3, 6 and 10 tokens per forward, refreshed per block or once, batch 1, 8 and 32
    image     1,024 codes with guidance: exact, and with fewer rows, steps and guided passes
    speech    512 units in blocks of 128: 64 and 32 steps, and how long the first block takes
    float8    the same with the blocks' matrices and what they multiply in 8 bits, the head in bfloat16
    passes    plain; graphed, recorded once and replayed; compiled, recorded of layers with joined operations

Floors follow from rates measured in the same run: the larger of arithmetic and bytes moved, launches not counted. Rows
come in the order of their worth. A row that fails says why and is followed by the next; where the minutes are up, the
rest is left out and said so, and a row that goes on for long after that ends the run.
"""

import argparse
import json
import os
import platform
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from decoding_gpu_rows import (
    MASK,
    Way,
    busiest,
    image,
    image_reference,
    reference_steps,
    sameness,
    speech,
    speech_reference,
    text,
    text_steps,
    waits,
)
from decoding_shapes import FLOAT8, Floors, Shape, draw_network, float8_copy, joined, measured_rates

from dynin.decoding.canvas import Canvas, Segment
from dynin.decoding.decoder import ParallelDecoder
from dynin.decoding.policy import DecodingPolicy, published_image
from dynin.decoding.refresh import Refresh
from dynin.decoding.trace import Step
from dynin.testing.oracle import PublishedNetwork
from dynin.types import Modality
from dynin.vocabulary import PUBLISHED

ENDS = {Modality.TEXT: ("eos",), Modality.IMAGE: (), Modality.SPEECH: ("eoa", "eos")}
GRACE_S = 10.0
"""Seconds after its minutes at which a run ends, whatever it does."""


class Bench:
    """One run: the networks, the clock, the rows."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Draw the network and read the device's rates."""
        self.started = time.monotonic()
        self.until = self.started + 60 * options.minutes
        self.device = torch.device(options.device)
        self.shape = Shape.rehearsed(options.width) if options.rehearse else Shape.whole(options.width)
        self.path: Path = options.output / "decoding-L.json"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.rows: list[dict[str, Any]] = []
        self.left_out: list[str] = []
        self.about: dict[str, Any] = {"network": self.shape.config.to_dict(), "torch": torch.__version__}
        self.about |= {"python": platform.python_version(), "device": platform.processor()}
        if self.device.type == "cuda":
            self.about["device"] = torch.cuda.get_device_name(self.device)
        watch = threading.Timer(60 * options.minutes + GRACE_S, self.give_up)
        watch.daemon = True
        watch.start()
        self.rates = measured_rates(self.device)
        self.about |= {"rates": self.rates, "rates_s": time.monotonic() - self.started}
        self.floors = Floors(self.shape, self.rates)
        self.model = draw_network(self.shape, self.device)
        self.oracle = PublishedNetwork.of(self.model)
        self.allowed = {name: PUBLISHED.allowed_ids(name, *ends).to(self.device) for name, ends in ENDS.items()}
        self.wait()
        self.about["ready_s"] = time.monotonic() - self.started

    def put(self, kind: str, what: str, work: Callable[[], dict[str, Any]], **about: Any) -> None:
        """Measure a row, write and print it; leave it out where time is up, and say what happened where it fails."""
        name = f"{kind} {what} {' '.join(f'{key} {value}' for key, value in about.items())}"
        if time.monotonic() > self.until:
            self.left_out.append(name)
            return
        row = {"kind": kind, "what": what, **about}
        started = time.monotonic()
        try:
            if self.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(self.device)
            row |= work()
            if self.device.type == "cuda":
                row["peak_gb"] = torch.cuda.max_memory_allocated(self.device) / 1e9
        except Exception as error:  # a row that fails must not cost the others
            row["failed"] = f"{type(error).__name__}: {str(error).strip()[:500]}"
            del error
            self.tidy()
        row["row_s"] = time.monotonic() - started
        if "ms" in row and "floor_ms" in row:
            row["share_of_floor"] = row["floor_ms"] / row["ms"]
        self.rows.append(row)
        self.write()
        print(line(row), flush=True)

    def tidy(self) -> None:
        """Give memory back after a failure, where the device still answers."""
        try:
            torch.cuda.empty_cache()  # nothing without a GPU
        except RuntimeError as error:
            print(f"the device is of no use any more: {str(error).splitlines()[0]}", flush=True)

    def write(self) -> None:
        """Everything so far, whole or not at all."""
        draft = self.path.with_suffix(".part")
        told = {**self.about, "left_out": self.left_out, "rows": self.rows}
        draft.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        draft.replace(self.path)

    def give_up(self) -> None:
        """End the run in the middle of a row."""
        print("bench: the minutes are long up; the row that ran is lost", flush=True)
        self.left_out.append("the row that ran when the minutes were long up, and those after it")
        self.write()
        sys.stdout.flush()
        os._exit(3)

    def wait(self) -> None:
        """Until the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def ms(self, run: Callable[[], object], often: int = 1, short_ms: float = float("inf")) -> float:
        """Median milliseconds of a run; once where it is not short."""
        taken: list[float] = []
        while len(taken) < often and (not taken or taken[0] < short_ms):
            self.wait()
            started = time.perf_counter()
            run()
            self.wait()
            taken.append(1e3 * (time.perf_counter() - started))
        return median(taken)

    def canvas(self, modality: Modality, batch: int, prompt_len: int, num_new: int) -> Canvas:
        """Drawn prompts before hidden places; pictures have an end marker and rows without condition."""
        generator = torch.Generator().manual_seed(0)
        words = torch.randint(0, PUBLISHED.text.stop, (batch, prompt_len), generator=generator)
        ids = torch.cat([words, torch.full((batch, num_new), MASK)], dim=1)
        if modality != Modality.IMAGE:
            return Canvas(ids=ids.to(self.device))
        ids = torch.cat([ids, torch.full((batch, 1), PUBLISHED["eoi"])], dim=1).to(self.device)
        uncond_ids = ids.clone()
        uncond_ids[:, : prompt_len - 4] = PUBLISHED.pad_id
        uncond_attend = uncond_ids != PUBLISHED.pad_id
        return Canvas(
            ids=ids, attend=torch.ones_like(uncond_attend), uncond_ids=uncond_ids, uncond_attend=uncond_attend
        )

    def decode(
        self,
        modality: Modality,
        canvas: Canvas,
        policy: DecodingPolicy,
        denoiser: Any,
        observer: Callable[[Step], None] | None = None,
    ) -> int:
        """Decode once; the number of forward passes."""
        segment = Segment(
            name=str(modality),
            is_target=canvas.ids == MASK,
            allowed_ids=self.allowed[modality],
            policy=policy,
        )
        generator = torch.Generator(self.device).manual_seed(0)
        decoder = ParallelDecoder(denoiser, MASK)
        return decoder.run(canvas, [segment], generator=generator, observer=observer).num_forwards


EXACT = published_image()
FAST = replace(EXACT, num_steps=12, guidance_interval=(0.5, 1.0), refresh=Refresh(every=4))


def first_rows(bench: Bench, plain: Way, graphed: Way) -> None:
    """Of the network as it is: every column once, at one sequence."""
    short = bench.shape.short_prompt
    reference_steps(bench, 1, short)
    text_steps(bench, plain, 1, short)
    text_steps(bench, graphed, 1, short)
    for per_forward in (10, 3):
        text(bench, plain, 1, short, per_forward)
        text(bench, graphed, 1, short, per_forward)
    text(bench, graphed, 1, short, 10, is_fresh=False)
    speech(bench, graphed, 1, 32)
    speech(bench, plain, 1, 32)
    image(bench, plain, 1, "exact", EXACT)
    image(bench, plain, 1, "fast", FAST)
    sameness(bench, plain, graphed)
    waits(bench, plain)
    waits(bench, graphed)
    busiest(bench, graphed)


def float8_rows(bench: Bench, plain: Way, graphed: Way) -> None:
    """The same in 8 bits."""
    short = bench.shape.short_prompt
    text_steps(bench, graphed, 1, short)
    for per_forward in (10, 3):
        text(bench, graphed, 1, short, per_forward)
    text(bench, graphed, 1, short, 10, is_fresh=False)
    speech(bench, graphed, 1, 32)
    image(bench, plain, 1, "exact", EXACT)
    image(bench, plain, 1, "fast", FAST)
    text(bench, plain, 1, short, 10)


def compiled_rows(bench: Bench, plain: Way, way: Way) -> None:
    """With joined operations: few, since each of their shapes is compiled."""
    short = bench.shape.short_prompt
    text_steps(bench, way, 1, short)
    text(bench, way, 1, short, 10)
    text(bench, way, 1, short, 3)
    text(bench, way, 1, short, 10, is_fresh=False)
    sameness(bench, plain, way)
    busiest(bench, way)


def batch_rows(bench: Bench, way: Way, batch: int) -> None:
    """Many sequences at once."""
    short = bench.shape.short_prompt
    text(bench, way, batch, short, 10)
    text(bench, way, batch, short, 10, is_fresh=False)
    text(bench, way, batch, short, 3)


def other_rows(bench: Bench, ways: dict[tuple[str, str], Way]) -> None:
    """What is left of the whole table."""
    short, long, batches = bench.shape.short_prompt, bench.shape.long_prompt, bench.shape.batches
    kept = [(way.about()["dtype"], way) for (_, passes), way in ways.items() if passes == "graphed"]
    reference_steps(bench, 1, long)
    for _, way in kept:
        text_steps(bench, way, 1, long)
        for per_forward in (10, 3):
            text(bench, way, 1, long, per_forward)
            text(bench, way, 1, long, per_forward, is_fresh=False)
    for batch in batches[1:]:
        reference_steps(bench, batch, short)
    for _, way in kept:
        batch_rows(bench, way, batches[1])
        speech(bench, way, 1, 64)
        speech(bench, way, batches[1], 64)
        for per_forward in (6, 1):
            for is_fresh in (True, False):
                text(bench, way, 1, short, per_forward, is_fresh=is_fresh)
    for (_, passes), way in ways.items():
        if passes == "plain":
            image(bench, way, 4, "exact", EXACT)
            image(bench, way, 4, "fast", FAST)
            for batch in batches:
                text_steps(bench, way, batch, short)
            text(bench, way, batches[-1], short, 1, is_fresh=False)


def line(row: dict[str, Any]) -> str:
    """A row for people."""
    keys = ("batch", "prompt", "refresh", "steps", "dtype", "passes")
    about = " ".join(f"{key} {row[key]}" for key in keys if key in row)
    told = f"{row['kind']:7}{row['what']:17}{about:64}"
    if "failed" in row:
        return f"{told}  {row['failed'].splitlines()[0]}"
    if "floor_ms" not in row:
        return told + " ".join(f"{key} {row[key]}" for key in row if key not in ("kind", "what", *keys))
    told += f"{row['ms']:10.2f} ms {row['floor_ms']:9.2f} ms floor {row['share_of_floor']:6.1%} of it"
    if "per_second" in row:
        told += f" {row['per_second']:9.1f} {row['unit']}"
    return told + (f" first block {row['first_block_ms']:.0f} ms" if "first_block_ms" in row else "")


def bench_gpu(options: argparse.Namespace) -> None:
    """All rows, in the order of their worth."""
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("bench: tier L needs a GPU; rehearse it with --device cpu --width 0.0625 --rehearse")
    torch._dynamo.config.recompile_limit = 64  # a shape each
    with torch.no_grad():
        bench = Bench(options)
        print(f"ready after {bench.about['ready_s']:.1f} s; rates {bench.rates}", flush=True)
        ways = {("bfloat16", passes): Way.of(bench.model, passes) for passes in ("plain", "graphed", "compiled")}
        first_rows(bench, ways["bfloat16", "plain"], ways["bfloat16", "graphed"])
        copies: list[Any] = []

        def copy() -> dict[str, Any]:
            quantise, told = joined(bench.device)
            copies.append(float8_copy(bench.model, quantise))
            return {"quantising": told}

        if "float8_tflops" in bench.rates:
            bench.put("about", FLOAT8, copy)
        if copies:
            ways |= {(FLOAT8, passes): Way.of(copies[0], passes) for passes in ("plain", "graphed", "compiled")}
            float8_rows(bench, ways[FLOAT8, "plain"], ways[FLOAT8, "graphed"])
        largest = bench.shape.batches[-1]
        batch_rows(bench, ways["bfloat16", "plain"], largest)
        if copies:
            batch_rows(bench, ways[FLOAT8, "plain"], largest)
        image_reference(bench, 1)
        speech_reference(bench, 1)
        for dtype in (FLOAT8, "bfloat16"):
            if (dtype, "compiled") in ways:
                compiled_rows(bench, ways[dtype, "plain"], ways[dtype, "compiled"])
        other_rows(bench, ways)
    bench.write()
    for name in bench.left_out:
        print(f"left out, the minutes are up: {name}")
