"""Tier L: how fast the 8B shape decodes on one GPU, beside the published samplers and beside what the GPU allows.

    python benchmarks/decoding.py --tier L                                        # at most eight minutes
    python benchmarks/decoding.py --tier L --device cpu --width 0.0625 --rehearse # the same rows, small, on a processor

Enters: a device, a share of the width. Leaves: a table, and decoding-L.json in --output, written after each row. Does
not know quality: weights are drawn on the device, and how many places a step reveals is forced by the plan, so that
speed is measured as if a trained model had been that sure.

    steps     one pass and all around it: the reference's, ours in full, of a block with keys and values remembered
    text      tokens per second at 1, 3, 6 and 10 tokens per forward, refreshed per block or once, batch 1, 8 and 32
    image     1,024 codes with guidance: exact, and with fewer rows, steps and guided passes
    speech    512 units in blocks of 128: 64 and 32 steps, and how long the first block takes
    float8    the same with the blocks' matrices and what they multiply in 8 bits, the head in bfloat16

Floors follow from rates measured in the same run: the larger of arithmetic and bytes moved, launches not counted. Rows
come in the order of their worth; where the minutes are up, the rest is left out and said so.
"""

import argparse
import json
import math
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from decoding_shapes import FLOAT8, Floors, Shape, draw_network, float8_copy, holds_float8, measured_rates
from torch import Tensor

from dynin.decoding.canvas import Canvas, Segment
from dynin.decoding.decoder import ParallelDecoder
from dynin.decoding.policy import DecodingPolicy, published_image
from dynin.decoding.query import Query
from dynin.decoding.refresh import Refresh
from dynin.decoding.trace import Step
from dynin.model.transformer import Transformer
from dynin.pipeline.denoiser import PolicyDenoiser
from dynin.testing.oracle import PublishedNetwork
from dynin.testing.oracle_grid import GridSettings, Rows, decode_grid
from dynin.testing.oracle_speech import SpeechSettings, decode_speech
from dynin.testing.oracle_text import TextSettings, decode_text
from dynin.types import Modality
from dynin.vocabulary import PUBLISHED

MASK = PUBLISHED["mask"]
BLOCK = {Modality.TEXT: 32, Modality.SPEECH: 128}
ENDS = {Modality.TEXT: ("eos",), Modality.IMAGE: (), Modality.SPEECH: ("eoa", "eos")}
OFTEN = 3
"""Times that a step is timed; a whole decoding once, after the same one in fewer steps to warm up."""


class Bench:
    """One run: the networks, the clock, the rows."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Draw the network and read the device's rates."""
        self.device = torch.device(options.device)
        self.until = time.monotonic() + 60 * options.minutes
        self.shape = Shape.rehearsed(options.width) if options.rehearse else Shape.whole(options.width)
        self.path: Path = options.output / "decoding-L.json"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.rows: list[dict[str, Any]] = []
        self.left_out: list[str] = []
        self.rates = measured_rates(self.device)
        self.floors = Floors(self.shape, self.rates)
        self.model = draw_network(self.shape, self.device)
        self.oracle = PublishedNetwork.of(self.model)
        self.allowed = {name: PUBLISHED.allowed_ids(name, *ends).to(self.device) for name, ends in ENDS.items()}

    def put(self, kind: str, what: str, work: Callable[[], dict[str, Any]], **about: Any) -> None:
        """Measure a row, write and print it; leave it out where time is up or memory is short."""
        name = f"{kind} {what} {' '.join(f'{key} {value}' for key, value in about.items())}"
        if time.monotonic() > self.until:
            self.left_out.append(name)
            return
        try:
            found = work()
        except torch.cuda.OutOfMemoryError:
            found = {"out_of_memory": True}
        torch.cuda.empty_cache()  # nothing without a GPU
        row = {"kind": kind, "what": what, **about, **found}
        if "ms" in row and "floor_ms" in row:
            row["share_of_floor"] = row["floor_ms"] / row["ms"]
        self.rows.append(row)
        self.write()
        print(line(row), flush=True)

    def write(self) -> None:
        """Everything so far."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else platform.processor()
        about = {"device": name, "torch": torch.__version__, "python": platform.python_version(), "rates": self.rates}
        about |= {"network": self.shape.config.to_dict(), "left_out": self.left_out}
        self.path.write_text(json.dumps({**about, "rows": self.rows}, indent=1) + "\n", encoding="ascii")

    def wait(self) -> None:
        """Until the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def ms(self, run: Callable[[], object], often: int = 1) -> float:
        """Median milliseconds of a run."""
        taken = []
        for _ in range(often):
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
        model: Transformer | None = None,
        observer: Callable[[Step], None] | None = None,
        denoiser: Any = None,
    ) -> int:
        """Decode once; the number of forward passes."""
        segment = Segment(
            name=str(modality),
            is_target=canvas.ids == MASK,
            allowed_ids=self.allowed[modality],
            policy=policy,
        )
        generator = torch.Generator(self.device).manual_seed(0)
        denoiser = denoiser or PolicyDenoiser(model or self.model)
        decoder = ParallelDecoder(denoiser, MASK)
        return decoder.run(canvas, [segment], generator=generator, observer=observer).num_forwards


class Watched:
    """Notes how long each step takes, from one query to the next, the device's work included."""

    def __init__(self, bench: Bench, model: Transformer) -> None:
        self._bench, self._inner = bench, PolicyDenoiser(model)
        self.steps: list[tuple[bool, float]] = []
        """Whether a step began a block, and when it was asked."""

    def answer(self, query: Query) -> Tensor:
        """Pass a query on."""
        self._bench.wait()
        self.steps.append((query.step == 0, 1e3 * time.perf_counter()))
        return self._inner.answer(query)

    def medians(self) -> tuple[float, float]:
        """Milliseconds of steps that begin a block, the first of all left out, and of the others."""
        taken: tuple[list[float], list[float]] = ([], [])
        for (begins, start), (_, end) in zip(self.steps[1:], self.steps[2:], strict=False):
            taken[not begins].append(end - start)
        return median(taken[0] or [math.nan]), median(taken[1] or [math.nan])


def blocks(num_new: int, block_len: int, steps_each: int, **more: Any) -> DecodingPolicy:
    """A policy whose plan alone says how many places a step reveals."""
    return DecodingPolicy(num_steps=steps_each * math.ceil(num_new / block_len), block_len=block_len, **more)


def text_steps(bench: Bench, batch: int, prompt_len: int) -> None:
    """The reference's step, ours in full, and those of a block with memory."""
    num_new, block_len = bench.shape.text_len, bench.shape.block(BLOCK[Modality.TEXT])
    canvas, length = bench.canvas(Modality.TEXT, batch, prompt_len, num_new), prompt_len + num_new
    about = {"batch": batch, "prompt": prompt_len}

    def reference() -> dict[str, Any]:
        told = TextSettings(mask_id=MASK, num_new=num_new, num_steps=num_new, block_len=block_len, stop_after=1)
        run = lambda: decode_text(bench.oracle, canvas.ids[:, :prompt_len], told)  # noqa: E731
        run()
        return {"ms": bench.ms(run, OFTEN), "floor_ms": bench.floors.ms(batch * length, length, batch * length)}

    bench.put("step", "reference", reference, **about)

    def watched() -> tuple[float, float]:
        steps = Watched(bench, bench.model)
        refresh = Refresh(per_block=True)
        bench.decode(Modality.TEXT, canvas, blocks(num_new, block_len, 8, refresh=refresh), denoiser=steps)
        return steps.medians()

    found: list[tuple[float, float]] = []

    def refreshed() -> dict[str, Any]:
        found.append(watched())
        return {"ms": found[0][0], "floor_ms": bench.floors.ms(batch * length, length, batch * block_len)}

    def within() -> dict[str, Any]:
        if not found:
            found.append(watched())
        return {
            "ms": found[0][1],
            "floor_ms": bench.floors.block_ms(batch, block_len, length),
        }

    bench.put("step", "refresh", refreshed, **about)
    bench.put("step", "block", within, **about)


def text(bench: Bench, model: Transformer, batch: int, prompt_len: int, per_forward: int, *, is_fresh: bool) -> None:
    """Tokens per second with so many tokens a forward pass, keys and values made anew per block or once."""
    num_new, block_len = bench.shape.text_len, bench.shape.block(BLOCK[Modality.TEXT])
    steps_each = max(1, round(block_len / per_forward))
    policy = blocks(num_new, block_len, steps_each, refresh=Refresh(per_block=is_fresh))
    canvas, length = bench.canvas(Modality.TEXT, batch, prompt_len, num_new), prompt_len + num_new
    is_float8 = holds_float8(model)

    def run() -> dict[str, Any]:
        bench.decode(Modality.TEXT, canvas, replace(policy, num_steps=num_new // block_len), model)
        count: list[int] = []
        taken = bench.ms(lambda: count.append(bench.decode(Modality.TEXT, canvas, policy, model)))
        num_full = num_new // block_len if is_fresh else 1
        full = bench.floors.ms(batch * length, length, batch * block_len, is_float8=is_float8)
        part = bench.floors.block_ms(batch, block_len, length, is_float8=is_float8)
        tokens = batch * num_new
        told = {"tokens_per_forward": num_new / count[0], "per_second": 1e3 * tokens / taken, "unit": "tok/s"}
        return {"ms": taken, "floor_ms": num_full * full + (count[0] - num_full) * part, **told}

    about = {"batch": batch, "prompt": prompt_len, "refresh": "block" if is_fresh else "once"}
    bench.put("text", f"{per_forward} a forward", run, dtype=FLOAT8 if is_float8 else "bfloat16", **about)


def image(bench: Bench, model: Transformer, batch: int, what: str, policy: DecodingPolicy) -> None:
    """Pictures with guidance; the floor is that of exact decoding in as many steps."""
    num_new, prompt_len = bench.shape.image_len, bench.shape.short_prompt
    canvas, length = bench.canvas(Modality.IMAGE, batch, prompt_len, num_new), prompt_len + num_new + 1
    is_float8 = holds_float8(model)

    def run() -> dict[str, Any]:
        bench.decode(Modality.IMAGE, canvas, replace(policy, num_steps=2), model)
        taken = bench.ms(lambda: bench.decode(Modality.IMAGE, canvas, policy, model))
        floor = bench.floors.ms(
            2 * batch * length, length, 2 * batch * num_new * 0.64, len(PUBLISHED.image), is_float8=is_float8
        )
        floor *= policy.num_steps
        return {"ms": taken, "floor_ms": floor, "per_second": 1e3 * batch / taken, "unit": "images/s"}

    bench.put("image", what, run, batch=batch, steps=policy.num_steps, dtype=FLOAT8 if is_float8 else "bfloat16")


def image_reference(bench: Bench, batch: int) -> None:
    """A step of the published sampler of pictures."""
    num_new, prompt_len = bench.shape.image_len, bench.shape.short_prompt
    canvas, length = bench.canvas(Modality.IMAGE, batch, prompt_len, num_new), prompt_len + num_new + 1
    assert canvas.attend is not None
    rows = Rows(ids=canvas.ids, attend=canvas.attend, uncond_ids=canvas.uncond_ids, uncond_attend=canvas.uncond_attend)
    told = GridSettings(
        mask_id=MASK,
        num_places=num_new,
        first_id=PUBLISHED.image.start,
        num_classes=len(PUBLISHED.image),
        num_steps=1,
        guidance_scale=3.5,
        prefix_len=prompt_len,
    )

    def run() -> dict[str, Any]:
        step = lambda: decode_grid(bench.oracle, rows, told, generator=torch.Generator(bench.device))  # noqa: E731
        step()
        floor = bench.floors.ms(2 * batch * length, length, 2 * batch * length)
        return {"ms": bench.ms(step, OFTEN), "floor_ms": floor}

    bench.put("step", "image reference", run, batch=batch)


def speech(bench: Bench, model: Transformer, batch: int, num_steps: int) -> None:
    """Speech with memory, and how long its first block takes."""
    num_new, prompt_len = bench.shape.speech_len, bench.shape.short_prompt
    block_len = bench.shape.block(BLOCK[Modality.SPEECH])
    canvas, length = bench.canvas(Modality.SPEECH, batch, prompt_len, num_new), prompt_len + num_new
    num_blocks = math.ceil(num_new / block_len)
    steps_each = max(1, num_steps // num_blocks)
    policy = blocks(num_new, block_len, steps_each, temperature=1.0, refresh=Refresh(per_block=True))
    is_float8 = holds_float8(model)

    def run() -> dict[str, Any]:
        bench.decode(Modality.SPEECH, canvas, replace(policy, num_steps=num_blocks), model)
        first: list[float] = []
        started = time.perf_counter()

        def note(step: Step) -> None:
            if not first and step.block > 0:
                first.append(1e3 * (time.perf_counter() - started))

        bench.decode(Modality.SPEECH, canvas, policy, model, observer=note)
        taken = bench.ms(lambda: bench.decode(Modality.SPEECH, canvas, policy, model))
        num_classes = len(PUBLISHED.speech)
        full = bench.floors.ms(batch * length, length, batch * block_len, num_classes, is_float8=is_float8)
        part = bench.floors.block_ms(batch, block_len, length, num_classes, is_float8=is_float8)
        return {
            "ms": taken,
            "floor_ms": num_blocks * (full + (steps_each - 1) * part),
            "first_block_ms": first[0] if first else taken,
            "per_second": 1e3 * batch * num_new / 25 / taken,
            "unit": "x real time",
        }

    bench.put("speech", "remembered", run, batch=batch, steps=num_steps, dtype=FLOAT8 if is_float8 else "bfloat16")


def speech_reference(bench: Bench, batch: int) -> None:
    """A step of the published sampler of speech."""
    num_new, prompt_len = bench.shape.speech_len, bench.shape.short_prompt
    canvas, length = bench.canvas(Modality.SPEECH, batch, prompt_len, num_new), prompt_len + num_new
    told = SpeechSettings(
        mask_id=MASK,
        first_id=PUBLISHED.speech.start,
        num_codes=len(PUBLISHED.speech),
        end_ids=(PUBLISHED["eoa"], PUBLISHED["eos"]),
        max_new=num_new,
        num_steps=1,
        block_len=num_new,
        temperature=1.0,
    )
    attend = torch.ones_like(canvas.ids, dtype=torch.bool)

    def run() -> dict[str, Any]:
        step = lambda: decode_speech(  # noqa: E731
            bench.oracle, canvas.ids, attend, told, generator=torch.Generator(bench.device)
        )
        step()
        return {"ms": bench.ms(step, OFTEN), "floor_ms": bench.floors.ms(batch * length, length, batch * length)}

    bench.put("step", "speech reference", run, batch=batch)


def everything(bench: Bench, model: Transformer, batch: int) -> None:
    """The rows of one form of the weights and one size of batches; pictures come alone or in fours."""
    exact = published_image()
    fast = replace(exact, num_steps=12, guidance_interval=(0.5, 1.0), refresh=Refresh(every=4))
    is_alone = batch == 1
    for prompt_len in (bench.shape.short_prompt, bench.shape.long_prompt)[: 2 if is_alone else 1]:
        for per_forward in (10, 6, 3, 1):
            for is_fresh in (True, False):
                text(bench, model, batch, prompt_len, per_forward, is_fresh=is_fresh)
    if batch == bench.shape.batches[-1] and len(bench.shape.batches) > 2:
        return
    for num_steps in (64, 32):
        speech(bench, model, batch, num_steps)
    for what, policy in (("exact", exact), ("fast", fast)):
        image(bench, model, 1 if is_alone else 4, what, policy)


def line(row: dict[str, Any]) -> str:
    """A row for people."""
    about = " ".join(f"{key} {row[key]}" for key in ("batch", "prompt", "refresh", "steps", "dtype") if key in row)
    told = f"{row['kind']:7}{row['what']:18}{about:48}"
    if "ms" not in row:
        return told + "  out of memory"
    told += f"{row['ms']:10.2f} ms  {row['floor_ms']:9.2f} ms floor  {row['share_of_floor']:6.1%} of it"
    if "per_second" in row:
        told += f"  {row['per_second']:9.1f} {row['unit']}"
    return told + (f"  first block {row['first_block_ms']:.0f} ms" if "first_block_ms" in row else "")


def bench_gpu(options: argparse.Namespace) -> None:
    """All rows, in the order of their worth."""
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("bench: tier L needs a GPU; rehearse it with --device cpu --width 0.0625 --rehearse")
    with torch.no_grad():
        bench = Bench(options)
        print(f"rates {bench.rates}", flush=True)
        batches = bench.shape.batches
        text_steps(bench, batches[0], bench.shape.short_prompt)
        everything(bench, bench.model, batches[0])
        copy = float8_copy(bench.model) if "float8_tflops" in bench.rates else None
        if copy is not None:
            everything(bench, copy, batches[0])
        text_steps(bench, batches[0], bench.shape.long_prompt)
        for batch in batches[1:]:
            text_steps(bench, batch, bench.shape.short_prompt)
        image_reference(bench, 1)
        speech_reference(bench, 1)
        for model in (bench.model, copy):
            for batch in batches[1:] if model is not None else ():
                everything(bench, model, batch)
    bench.write()
    for name in bench.left_out:
        print(f"left out, the minutes are up: {name}")
