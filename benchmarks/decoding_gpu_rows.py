"""The rows of tier L: steps, texts, pictures, speech. `decoding_gpu` says in which order, and keeps the clock.

Enters: a bench, and which network is run which way. Leaves: a row each. Does not know what else is measured.
"""

import math
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from decoding_shapes import FLOAT8, holds_float8
from torch import Tensor

from dynin.decoding.policy import DecodingPolicy
from dynin.decoding.query import Query
from dynin.decoding.refresh import Refresh
from dynin.decoding.trace import Step
from dynin.model.transformer import Transformer
from dynin.pipeline.denoiser import PolicyDenoiser
from dynin.pipeline.graphs import StepGraphs
from dynin.testing.oracle_grid import GridSettings, Rows, decode_grid
from dynin.testing.oracle_speech import SpeechSettings, decode_speech
from dynin.testing.oracle_text import TextSettings, decode_text
from dynin.types import Modality
from dynin.vocabulary import PUBLISHED

if TYPE_CHECKING:
    from decoding_gpu import Bench

MASK = PUBLISHED["mask"]
BLOCK = {Modality.TEXT: 32, Modality.SPEECH: 128}
OFTEN = 3
"""Times that a step is timed, and a decoding of less than `SHORT_MS`; a longer one once. All are warmed up."""
SHORT_MS = 1500.0
LARGEST = 8192
"""Places of a block, over all rows, up to which passes are recorded here."""


@dataclass(slots=True, eq=False)
class Way:
    """A network, and how its remembering passes are run."""

    model: Transformer
    passes: str
    """"plain"; "graphed", recorded once and replayed; "compiled", recorded of layers whose operations were joined."""
    graphs: StepGraphs | None = None

    @classmethod
    def of(cls, model: Transformer, passes: str) -> "Way":
        """Nothing is recorded yet."""
        if passes == "plain":
            return cls(model, passes)
        return cls(model, passes, StepGraphs(model, max_places=LARGEST, compiles=passes == "compiled"))

    @property
    def is_float8(self) -> bool:
        """Whether the blocks' matrices are in 8 bits."""
        return holds_float8(self.model)

    def about(self) -> dict[str, str]:
        """What a row tells."""
        return {"dtype": FLOAT8 if self.is_float8 else "bfloat16", "passes": self.passes}

    def denoiser(self) -> PolicyDenoiser:
        """One for a decoding."""
        return PolicyDenoiser(self.model, graphs=self.graphs)


def blocks(num_new: int, block_len: int, steps_each: int, **more: Any) -> DecodingPolicy:
    """A policy whose plan alone says how many places a step reveals."""
    return DecodingPolicy(num_steps=steps_each * math.ceil(num_new / block_len), block_len=block_len, **more)


def reference_steps(bench: "Bench", batch: int, prompt_len: int) -> None:
    """A step of the published sampler of text."""
    num_new, block_len = bench.shape.text_len, bench.shape.block(BLOCK[Modality.TEXT])
    canvas, length = bench.canvas(Modality.TEXT, batch, prompt_len, num_new), prompt_len + num_new

    def run() -> dict[str, Any]:
        told = TextSettings(mask_id=MASK, num_new=num_new, num_steps=num_new, block_len=block_len, stop_after=1)
        step = lambda: decode_text(bench.oracle, canvas.ids[:, :prompt_len], told)  # noqa: E731
        step()
        return {"ms": bench.ms(step, OFTEN), "floor_ms": bench.floors.ms(batch * length, length, batch * length)}

    bench.put("step", "reference", run, batch=batch, prompt=prompt_len, dtype="bfloat16", passes="published")


def text_steps(bench: "Bench", way: Way, batch: int, prompt_len: int) -> None:
    """Steps of a block with memory: the first, which computes everything, and the others.

    Both follow from decodings of few and of many steps a block, so that a step's work may begin before the last one's
    is done, as it does in earnest.
    """
    num_new, block_len = bench.shape.text_len, bench.shape.block(BLOCK[Modality.TEXT])
    canvas, length = bench.canvas(Modality.TEXT, batch, prompt_len, num_new), prompt_len + num_new
    about = {"batch": batch, "prompt": prompt_len, **way.about()}
    few, many = 2, min(block_len, 6)
    num_blocks = num_new // block_len

    def taken(steps_each: int) -> float:
        policy = blocks(num_new, block_len, steps_each, refresh=Refresh(per_block=True))
        return bench.ms(lambda: bench.decode(Modality.TEXT, canvas, policy, way.denoiser()), OFTEN, SHORT_MS)

    found: list[tuple[float, float]] = []

    def both() -> tuple[float, float]:
        if not found:
            taken(few)
            first, second = taken(few), taken(many)
            within = (second - first) / (num_blocks * (many - few))
            found.append((first / num_blocks - (few - 1) * within, within))
        return found[0]

    def refreshed() -> dict[str, Any]:
        floor = bench.floors.ms(batch * length, length, batch * block_len, is_float8=way.is_float8)
        return {"ms": both()[0], "floor_ms": floor}

    def within() -> dict[str, Any]:
        floor = bench.floors.block_ms(batch, block_len, length, is_float8=way.is_float8)
        return {"ms": both()[1], "floor_ms": floor}

    bench.put("step", "refresh", refreshed, **about)
    bench.put("step", "block", within, **about)


def _short_text(bench: "Bench", way: Way, steps_each: int) -> Callable[[], object]:
    """A decoding of one sequence with a short prompt, run twice before."""
    num_new, block_len = bench.shape.text_len, bench.shape.block(BLOCK[Modality.TEXT])
    canvas = bench.canvas(Modality.TEXT, 1, bench.shape.short_prompt, num_new)
    policy = blocks(num_new, block_len, steps_each, refresh=Refresh(per_block=True))
    run = lambda: bench.decode(Modality.TEXT, canvas, policy, way.denoiser())  # noqa: E731
    for _ in range(2):
        run()
    return run


def sameness(bench: "Bench", plain: Way, other: Way) -> None:
    """How far the logits of one way are from those of another, question by question of the same decoding."""

    def run() -> dict[str, Any]:
        num_new, block_len = bench.shape.text_len, bench.shape.block(BLOCK[Modality.TEXT])
        canvas = bench.canvas(Modality.TEXT, 1, bench.shape.short_prompt, num_new)
        policy = blocks(num_new, block_len, 4, refresh=Refresh(per_block=True))
        sides = plain.denoiser(), other.denoiser()
        far: list[Tensor] = []

        class Both:
            """Asks both, goes on with the first."""

            def answer(self, query: Query) -> Tensor:
                """The first one's logits."""
                first, second = (side.answer(query).float() for side in sides)
                same = (first.argmax(dim=1) == second.argmax(dim=1)).float().mean()
                far.append(torch.stack([(first - second).abs().amax(), first.std(), same]))
                return first

        bench.decode(Modality.TEXT, canvas, policy, Both())
        largest, spread, same = torch.stack(far).float().cpu().unbind(dim=1)
        told = {"largest_difference": float(largest.max()), "standard_deviation": float(spread.mean())}
        return {**told, "same_choice": float(same.mean()), "is_finite": bool(largest.isfinite().all())}

    bench.put("about", "sameness", run, **other.about())


def waits(bench: "Bench", way: Way) -> None:
    """Where the decoding waits for the device, and how often in one of three steps a block."""

    def run() -> dict[str, Any]:
        decode = _short_text(bench, way, 3)
        if bench.device.type != "cuda":
            return {"waits": "only a GPU tells"}
        bench.wait()
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                decode()
            finally:
                torch.cuda.set_sync_debug_mode("default")
        places = Counter(f"{Path(item.filename).name}:{item.lineno}" for item in told)
        return {"waits": dict(places.most_common(40))}

    bench.put("about", "waits", run, **way.about())


def busiest(bench: "Bench", way: Way) -> None:
    """What the device spends its time on in a decoding of eight steps a block."""

    def run() -> dict[str, Any]:
        decode = _short_text(bench, way, 8)
        kinds = [torch.profiler.ProfilerActivity.CPU]
        if bench.device.type == "cuda":
            kinds = [torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=kinds) as profile:
            decode()
            bench.wait()
        found = []
        for event in profile.key_averages():
            spent = getattr(event, "self_device_time_total", 0.0) or event.self_cpu_time_total
            found.append((round(spent / 1e3, 3), event.count, event.key[:120]))
        found.sort(reverse=True)
        return {"busiest_ms_count_name": found[:30]}

    bench.put("about", "busiest", run, **way.about())


def text(bench: "Bench", way: Way, batch: int, prompt_len: int, per_forward: int, *, is_fresh: bool = True) -> None:
    """Tokens per second with so many tokens a forward pass, keys and values made anew per block or once."""
    num_new, block_len = bench.shape.text_len, bench.shape.block(BLOCK[Modality.TEXT])
    steps_each = max(1, round(block_len / per_forward))
    policy = blocks(num_new, block_len, steps_each, refresh=Refresh(per_block=is_fresh))
    canvas, length = bench.canvas(Modality.TEXT, batch, prompt_len, num_new), prompt_len + num_new

    def run() -> dict[str, Any]:
        decode = lambda: bench.decode(Modality.TEXT, canvas, policy, way.denoiser())  # noqa: E731
        warm = replace(policy, num_steps=min(2, steps_each) * (num_new // block_len))
        bench.decode(Modality.TEXT, canvas, warm, way.denoiser())
        count: list[int] = []
        taken = bench.ms(lambda: count.append(decode()), OFTEN, SHORT_MS)
        num_full = num_new // block_len if is_fresh else 1
        full = bench.floors.ms(batch * length, length, batch * block_len, is_float8=way.is_float8)
        part = bench.floors.block_ms(batch, block_len, length, is_float8=way.is_float8)
        told = {"tokens_per_forward": num_new / count[0], "per_second": 1e3 * batch * num_new / taken, "unit": "tok/s"}
        return {"ms": taken, "floor_ms": num_full * full + (count[0] - num_full) * part, **told}

    about = {"batch": batch, "prompt": prompt_len, "refresh": "block" if is_fresh else "once"}
    bench.put("text", f"{per_forward} a forward", run, **about, **way.about())


def image(bench: "Bench", way: Way, batch: int, what: str, policy: DecodingPolicy) -> None:
    """Pictures with guidance; the floor is that of exact decoding in as many steps."""
    num_new, prompt_len = bench.shape.image_len, bench.shape.short_prompt
    canvas, length = bench.canvas(Modality.IMAGE, batch, prompt_len, num_new), prompt_len + num_new + 1

    def run() -> dict[str, Any]:
        bench.decode(Modality.IMAGE, canvas, replace(policy, num_steps=2), way.denoiser())
        taken = bench.ms(lambda: bench.decode(Modality.IMAGE, canvas, policy, way.denoiser()), OFTEN, SHORT_MS)
        floor = bench.floors.ms(
            2 * batch * length, length, 2 * batch * num_new * 0.64, len(PUBLISHED.image), is_float8=way.is_float8
        )
        floor *= policy.num_steps
        return {"ms": taken, "floor_ms": floor, "per_second": 1e3 * batch / taken, "unit": "images/s"}

    bench.put("image", what, run, batch=batch, steps=policy.num_steps, **way.about())


def image_reference(bench: "Bench", batch: int) -> None:
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

    bench.put("step", "image reference", run, batch=batch, dtype="bfloat16", passes="published")


def speech(bench: "Bench", way: Way, batch: int, num_steps: int) -> None:
    """Speech with memory, and how long its first block takes."""
    num_new, prompt_len = bench.shape.speech_len, bench.shape.short_prompt
    block_len = bench.shape.block(BLOCK[Modality.SPEECH])
    canvas, length = bench.canvas(Modality.SPEECH, batch, prompt_len, num_new), prompt_len + num_new
    num_blocks = math.ceil(num_new / block_len)
    steps_each = max(1, num_steps // num_blocks)
    policy = blocks(num_new, block_len, steps_each, temperature=1.0, refresh=Refresh(per_block=True))

    def run() -> dict[str, Any]:
        warm = replace(policy, num_steps=min(2, steps_each) * num_blocks)
        bench.decode(Modality.SPEECH, canvas, warm, way.denoiser())
        first: list[float] = []
        started = time.perf_counter()

        def note(step: Step) -> None:
            if not first and step.block > 0:
                first.append(1e3 * (time.perf_counter() - started))

        bench.decode(Modality.SPEECH, canvas, policy, way.denoiser(), observer=note)
        taken = bench.ms(lambda: bench.decode(Modality.SPEECH, canvas, policy, way.denoiser()), OFTEN, SHORT_MS)
        num_classes = len(PUBLISHED.speech)
        full = bench.floors.ms(batch * length, length, batch * block_len, num_classes, is_float8=way.is_float8)
        part = bench.floors.block_ms(batch, block_len, length, num_classes, is_float8=way.is_float8)
        return {
            "ms": taken,
            "floor_ms": num_blocks * (full + (steps_each - 1) * part),
            "first_block_ms": first[0] if first else taken,
            "per_second": 1e3 * batch * num_new / 25 / taken,
            "unit": "x real time",
        }

    bench.put("speech", "remembered", run, batch=batch, steps=num_steps, **way.about())


def speech_reference(bench: "Bench", batch: int) -> None:
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

    bench.put("step", "speech reference", run, batch=batch, dtype="bfloat16", passes="published")
