"""Sixteen requests of different tasks and lengths: through the step engine, and one after another.

Enters: the networks of a tier. Leaves: both ways to fulfil the requests, to be timed or compared. Does not know how
they are timed.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from decoding_cases import CASES, Sizes, Stage, Way
from torch import Tensor

from dynin.decoding.decoder import ParallelDecoder
from dynin.decoding.engine import Engine, EngineJob
from dynin.pipeline.denoiser import PolicyDenoiser
from dynin.pipeline.mixed import MixedDenoiser

RESOLVE_AT, AIM = 1.5, 2.5
REQUESTS: dict[str, list[tuple[str, Sizes]]] = {
    tier: [
        (
            family,
            Sizes(
                prompt_len=divided * prompt_len + number,
                num_new=divided * divided * 16 if family == "image" else divided * 2 * block_len,
                num_steps=num_steps,
                block_len=None if family == "image" else divided * block_len,
                temperature=0.0 if family == "text" else 1.0,
                guidance_scale=3.5 if family == "image" else 0.0,
            ),
        )
        for family, count, prompt_len, block_len, num_steps in (
            ("text", 8, 12, 16, 16),
            ("image", 4, 12, 0, 8),
            ("speech", 4, 12, 16, 16),
        )
        for number in range(count)
    ]
    for tier, divided in (("S", 1), ("M", 2))
}
"""By tier: what each request decodes; every prompt of a family is one longer than the one before."""


@dataclass(frozen=True, slots=True)
class Mix:
    """How the requests of each family are decoded."""

    ways: dict[str, Way]
    dtype: torch.dtype


def exact_mix() -> Mix:
    """As published, in float32."""
    return Mix({family: CASES[f"{family}-exact"].way for family in ("text", "image", "speech")}, torch.float32)


def cached_mix() -> Mix:
    """In bfloat16, text and speech with keys and values remembered."""
    way = CASES["text-cached"].way
    return Mix({**exact_mix().ways, "text": way, "speech": way}, torch.bfloat16)


def jobs(stage: Stage, mix: Mix) -> Iterator[EngineJob]:
    """The requests, with generators of their own."""
    allowed = {family: stage.allowed(family) for family in mix.ways}
    for number, (family, sizes) in enumerate(REQUESTS[stage.tier]):
        canvas, is_target = stage.canvas(family, sizes, seed=number)
        way = mix.ways[family]
        segment = stage.segment(family, way, sizes, is_target, None if way.all_ids else allowed[family])
        yield EngineJob(canvas=canvas, segments=[segment], generator=torch.Generator().manual_seed(number))


def one_after_another(stage: Stage, mix: Mix) -> Callable[[], list[Tensor]]:
    """Every request by itself; the ids of each."""
    model, mask_id = stage.quick(mix.dtype), stage.vocabulary["mask"]

    def run() -> list[Tensor]:
        return [
            ParallelDecoder(PolicyDenoiser(model), mask_id).run(job.canvas, job.segments, generator=job.generator).ids
            for job in jobs(stage, mix)
        ]

    return run


def together(stage: Stage, mix: Mix) -> Callable[[], list[Tensor]]:
    """All requests at once, step by step; the ids of each."""
    model, mask_id = stage.quick(mix.dtype), stage.vocabulary["mask"]

    def run() -> list[Tensor]:
        engine = Engine(MixedDenoiser(model), mask_id)
        numbers = [engine.submit(job) for job in jobs(stage, mix)]
        found: dict[int, Tensor] = {}
        while not engine.is_idle:
            for number in engine.step():
                status = engine.poll(number)
                if status.decoded is None:
                    raise RuntimeError(f"request {number} is {status.state}") from status.error
                found[number] = status.decoded.ids
        return [found[number] for number in numbers]

    return run


def same(first: list[Tensor], other: list[Tensor]) -> int:
    """How many requests came out the same."""
    return sum(torch.equal(one, two) for one, two in zip(first, other, strict=True))
