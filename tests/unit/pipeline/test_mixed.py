"""Decodings that remember keys and values share passes with those that do not, and their full passes are spread."""

from collections.abc import Sequence

import pytest
import torch

from dynin.decoding.canvas import Canvas, Segment
from dynin.decoding.decoder import ParallelDecoder
from dynin.decoding.engine import Engine, EngineJob, Limits
from dynin.decoding.policy import DecodingPolicy
from dynin.decoding.query import Query
from dynin.decoding.refresh import Refresh
from dynin.errors import RequestError
from dynin.model.cached import cache_bytes
from dynin.model.config import ModelConfig
from dynin.model.transformer import Transformer, initialise
from dynin.pipeline.denoiser import PolicyDenoiser
from dynin.pipeline.mixed import MixedDenoiser

MASK, NUM_NEW, MAX_COLUMNS = 39, 12, 60
TEXT, SOUND = torch.arange(20), torch.arange(20, 38)
CONFIG = ModelConfig(d_model=32, num_heads=4, num_kv_heads=4, num_layers=2, mlp_dim=48, num_rows=40, max_len=64)


class Listening(MixedDenoiser):
    """Keeps what each pass was asked, and what it was said to cost."""

    def __init__(self, model: Transformer, *, max_cache_bytes: int | None = None) -> None:
        super().__init__(model, max_cache_bytes=max_cache_bytes)
        self.passes: list[list[tuple[int, bool]]] = []

    def answer_all(self, queries: Sequence[Query]):
        self.passes.append([(self.cost(query), self.cost(query) == query.ids.numel()) for query in queries])
        return super().answer_all(queries)


def network() -> Transformer:
    model = Transformer(CONFIG)
    initialise(model, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(10)
    return model.eval().requires_grad_(False)


def job(number: int) -> EngineJob:
    """Each of another length; one of four remembers nothing, and two kinds of ids are made."""
    prompt = torch.randint(0, 38, (1, 10 + number), generator=torch.Generator().manual_seed(number))
    ids = torch.cat([prompt, torch.full((1, NUM_NEW), MASK)], dim=1)
    policy = DecodingPolicy(num_steps=9, block_len=4, refresh=None if number % 4 == 3 else Refresh(every=3))
    segment = Segment(name="out", is_target=ids == MASK, allowed_ids=SOUND if number % 2 else TEXT, policy=policy)
    return EngineJob(canvas=Canvas(ids=ids), segments=[segment])


def test_full_passes_are_spread_and_every_job_comes_out_as_it_does_alone() -> None:
    model = network()
    denoiser = Listening(model)
    engine = Engine(denoiser, MASK, Limits(max_columns=MAX_COLUMNS))
    for number in range(8):
        engine.submit(job(number))
    found = {}
    while not engine.is_idle:
        found |= {number: engine.poll(number) for number in engine.step()}
    for number in range(8):
        work = job(number)
        alone = ParallelDecoder(PolicyDenoiser(model), MASK).run(work.canvas, work.segments)
        assert found[number].decoded.ids.tolist() == alone.ids.tolist()
        assert found[number].num_forwards == alone.num_forwards
    assert all(sum(cost for cost, _ in each) <= MAX_COLUMNS for each in denoiser.passes)
    assert any({is_full for _, is_full in each} == {True, False} for each in denoiser.passes)
    assert max(sum(is_full for _, is_full in each) for each in denoiser.passes) <= 3


def test_the_memory_of_jobs_that_ended_is_given_back() -> None:
    denoiser = MixedDenoiser(network())
    engine = Engine(denoiser, MASK)
    numbers = [engine.submit(job(number)) for number in (0, 1)]
    engine.step()
    held = denoiser._memory.num_bytes
    engine.cancel(numbers[0])
    assert 0 < denoiser._memory.num_bytes < held
    while not engine.is_idle:
        engine.step()
    assert denoiser._memory.num_bytes == 0


@pytest.mark.parametrize("num_rows", [1, 2, 3])
def test_jobs_wait_for_a_memory_that_others_hold_and_come_out_all_the_same(num_rows: int) -> None:
    model = network()
    room = cache_bytes(CONFIG, num_rows, 40, torch.float32)
    denoiser = Listening(model, max_cache_bytes=room)
    engine = Engine(denoiser, MASK)
    numbers = [engine.submit(job(number)) for number in range(7)]
    found, most = {}, 0
    while not engine.is_idle:
        found |= {number: engine.poll(number) for number in engine.step()}
        most = max(most, denoiser._memory.num_bytes)
    assert 0 < most <= room
    assert {status.state for status in found.values()} == {"done"}
    for number in numbers:
        work = job(number)
        alone = ParallelDecoder(PolicyDenoiser(model), MASK).run(work.canvas, work.segments)
        assert found[number].decoded.ids.tolist() == alone.ids.tolist()


def test_a_job_that_no_memory_will_ever_hold_is_refused_at_once() -> None:
    denoiser = MixedDenoiser(network(), max_cache_bytes=cache_bytes(CONFIG, 1, 40, torch.float32) - 1)
    engine = Engine(denoiser, MASK)
    with pytest.raises(RequestError, match="1 rows of up to 22 columns"):
        engine.submit(job(0))
    engine.submit(job(3))  # remembers nothing
    assert not engine.is_idle
