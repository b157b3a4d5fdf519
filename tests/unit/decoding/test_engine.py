"""Many decodings at once: each comes out as it does alone, and ends without the others."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from toy_denoisers import ContextDenoiser

from dynin.decoding.canvas import Canvas, Segment
from dynin.decoding.decoder import ParallelDecoder
from dynin.decoding.engine import Engine, EngineJob, Limits, Status
from dynin.decoding.policy import DecodingPolicy
from dynin.decoding.query import OneByOne
from dynin.decoding.remask import LowConfidenceRemask, VerifyRemask
from dynin.errors import ConfigError, DecodingError, RequestError

NUM_IDS, MASK = 24, 23
ALLOWED = torch.arange(8, 22)
POLICIES = (
    DecodingPolicy(num_steps=6, block_len=3),
    DecodingPolicy(num_steps=4, temperature=1.0, noise_temperature=1.0, schedule="cosine"),
    DecodingPolicy(num_steps=5, guidance_scale=1.5, guidance_interval=(0.2, 1.0), temperature=0.5, score="entropy"),
    DecodingPolicy(num_steps=8, block_len=4, threshold=0.3),
    DecodingPolicy(num_steps=12, block_len=2, max_len=12),
    DecodingPolicy(num_steps=6, remask=LowConfidenceRemask(), score="random"),
    DecodingPolicy(num_steps=6, remask=VerifyRemask(bar=0.9)),
)


def job(seed: int, **options) -> EngineJob:
    """A job of one or two rows whose canvas, policy and random numbers follow from a seed."""
    generator = torch.Generator().manual_seed(seed)
    batch, length = 1 + seed % 2, int(torch.randint(4, 14, (1,), generator=generator))
    ids = torch.randint(0, 22, (batch, length), generator=generator)
    target = torch.rand(batch, length, generator=generator) < 0.6
    target[:, -1] = True
    policy = options.pop("policy", POLICIES[seed % len(POLICIES)])
    segment = Segment(
        name="out", is_target=target, allowed_ids=ALLOWED, policy=policy, stop_ids=(20,) if policy.max_len else ()
    )
    uncond = torch.zeros_like(ids) if policy.guidance_scale else None
    return EngineJob(
        canvas=Canvas(ids=ids.masked_fill(target, MASK), uncond_ids=uncond),
        segments=[segment],
        generator=[torch.Generator().manual_seed(seed + row) for row in range(batch)],
        **options,
    )


def alone(work: EngineJob) -> Tensor:
    """What a job comes out as by itself."""
    decoder = ParallelDecoder(ContextDenoiser(NUM_IDS), MASK)
    return decoder.run(work.canvas, work.segments, generator=work.generator).ids


def engine(denoiser=None, **limits) -> Engine:
    return Engine(OneByOne(denoiser or ContextDenoiser(NUM_IDS)), MASK, Limits(**limits))


def drain(going: Engine) -> dict[int, Status]:
    """Every final status, once nothing is left."""
    found = {}
    for _ in range(1000):
        found |= {number: going.poll(number) for number in going.step()}
        if going.is_idle:
            return found
    raise AssertionError("jobs do not end")


@given(st.lists(st.integers(0, 500), min_size=1, max_size=6), st.sampled_from([60, 120, 5000]), st.integers(1, 4))
@settings(deadline=None, max_examples=10)
def test_jobs_come_out_as_they_do_alone_whenever_they_arrive(seeds, max_columns, rhythm) -> None:
    going = engine(max_columns=max_columns, max_running=3 if max_columns == 120 else 64)
    left = [(seed, job(seed)) for seed in seeds]
    numbers, found = {}, {}
    while left or not going.is_idle:
        for seed, work in left[:rhythm]:
            numbers[going.submit(work)] = seed
        del left[:rhythm]
        found |= {number: going.poll(number) for number in going.step()}
    assert sorted(found) == sorted(numbers)
    for number, seed in numbers.items():
        assert found[number].state == "done"
        assert torch.equal(found[number].decoded.ids, alone(job(seed)))
        assert found[number].num_forwards == found[number].decoded.num_forwards


def test_a_pass_never_has_more_columns_than_allowed_and_nobody_starves() -> None:
    class Counting(OneByOne):
        passes: list[list[tuple[int, int]]] = []

        def answer_all(self, queries):
            self.passes.append([(query.keys[0], self.cost(query)) for query in queries])
            return super().answer_all(queries)

    going = Engine(Counting(ContextDenoiser(NUM_IDS)), MASK, Limits(max_columns=60))
    growing = DecodingPolicy(num_steps=12, block_len=6, max_len=24)
    for seed in range(6):
        going.submit(job(2 * seed, policy=growing))
    found = drain(going)
    assert all(status.state == "done" for status in found.values())
    assert all(sum(cost for _, cost in each) <= 100 for each in Counting.passes)
    assert any(len(each) < len(going_on) for each, going_on in _with_running(Counting.passes))
    for key in {key for each in Counting.passes for key, _ in each}:
        turns = [at for at, each in enumerate(Counting.passes) if key in dict(each)]
        assert max(after - before for before, after in zip(turns, turns[1:], strict=False)) <= 6


def _with_running(passes):
    """Each pass with the keys that had been seen before it and are seen after it."""
    for at, each in enumerate(passes):
        before = {key for other in passes[: at + 1] for key, _ in other}
        yield each, [key for key in before if any(key in dict(other) for other in passes[at:])]


def test_jobs_are_admitted_in_their_order() -> None:
    going = engine(max_running=1)
    numbers = [going.submit(job(seed)) for seed in (0, 7, 14)]
    ended: list[int] = []
    while not going.is_idle:
        ended += going.step()
    assert ended == numbers


def test_cancelling_takes_effect_with_the_next_pass() -> None:
    denoiser = ContextDenoiser(NUM_IDS)
    going = engine(denoiser)
    first, second, third = (going.submit(job(0)) for _ in range(3))
    going.step()
    assert denoiser.num_calls == 3
    going.cancel(second)
    assert going.poll(second).state == "cancelled"
    going.step()
    assert denoiser.num_calls == 5
    assert {status.state for status in drain(going).values()} == {"done"}
    assert first < second < third


def test_an_observer_may_cancel_its_own_job_and_others() -> None:
    going = engine()

    def stop_both(step) -> None:
        going.cancel(0)
        going.cancel(1)

    going.submit(job(0, observer=stop_both))
    going.submit(job(0))
    going.submit(job(0))
    assert going.step() == (0, 1)
    assert [going.poll(number).state for number in (0, 1, 2)] == ["cancelled", "cancelled", "running"]
    assert drain(going)[2].state == "done"


def test_cancelling_what_waits_or_has_ended_is_harmless() -> None:
    going = engine(max_running=1)
    first, second = going.submit(job(0)), going.submit(job(0))
    going.cancel(second)
    while not going.is_idle:
        going.step()
    going.cancel(first)
    assert going.poll(first).state == "done"
    assert going.poll(second).state == "cancelled"


class Broken(ContextDenoiser):
    """Says nonsense, or nothing, to whoever begins with a certain id."""

    def __init__(self, first_id: int, fault: str) -> None:
        super().__init__(NUM_IDS)
        self.first_id, self.fault = first_id, fault

    def __call__(self, ids, attend, rows, allowed):
        logits = super().__call__(ids, attend, rows, allowed)
        if int(ids[0, 0]) != self.first_id:
            return logits
        if self.fault == "raises":
            raise RuntimeError("out of memory")
        logits[-1, 3] = {"nan": torch.nan, "inf": torch.inf}[self.fault]
        return logits


@pytest.mark.parametrize("fault", ["nan", "inf", "raises"])
def test_a_fault_ends_the_job_that_has_it_alone(fault: str) -> None:
    def fixed(first_id: int) -> EngineJob:
        work = job(8)  # one row, sampled
        ids = work.canvas.ids.clone()
        ids[0, 0] = first_id
        target = work.segments[0].is_target.clone()
        target[0, 0] = False
        segment = Segment(name="out", is_target=target, allowed_ids=ALLOWED, policy=POLICIES[1])
        return EngineJob(canvas=Canvas(ids=ids), segments=[segment], generator=torch.Generator().manual_seed(1))

    going = engine(Broken(5, fault))
    numbers = [going.submit(fixed(first_id)) for first_id in (4, 5, 6)]
    found = drain(going)
    assert [found[number].state for number in numbers] == ["done", "failed", "done"]
    error = found[numbers[1]].error
    assert isinstance(error, RuntimeError if fault == "raises" else DecodingError)
    for number, first_id in ((numbers[0], 4), (numbers[2], 6)):
        assert torch.equal(found[number].decoded.ids, alone(fixed(first_id)))


def test_an_observer_that_raises_ends_its_job_alone() -> None:
    def fail(step) -> None:
        raise KeyError("nobody is listening")

    going = engine()
    numbers = going.submit(job(0, observer=fail)), going.submit(job(0))
    found = drain(going)
    assert [found[number].state for number in numbers] == ["failed", "done"]


def test_a_job_without_hidden_places_ends_in_its_first_step() -> None:
    work = job(0)
    full = EngineJob(canvas=Canvas(ids=work.canvas.ids.masked_fill(work.canvas.ids == MASK, 9)), segments=work.segments)
    going = engine()
    number = going.submit(full)
    assert going.step() == (number,)
    assert going.poll(number).num_forwards == 0


def test_a_final_status_is_told_once() -> None:
    going = engine()
    number = going.submit(job(0))
    assert going.poll(number).state == "waiting"
    while not going.is_idle:
        going.step()
    assert going.poll(number).is_final
    with pytest.raises(RequestError, match=f"no job {number}"):
        going.poll(number)
    with pytest.raises(RequestError, match="no job 77"):
        going.cancel(77)


def test_what_cannot_be_decoded_is_refused_when_it_is_submitted() -> None:
    going = engine(max_columns=30, max_waiting=2)
    with pytest.raises(RequestError, match=r"up to \d+ columns.*30 \(max_columns\)"):
        going.submit(job(4, policy=DecodingPolicy(num_steps=4, block_len=2, max_len=400)))
    work = job(1)
    with pytest.raises(RequestError, match="generator"):
        going.submit(EngineJob(canvas=work.canvas, segments=work.segments))
    plain = Segment(name="out", is_target=work.segments[0].is_target, allowed_ids=None, policy=POLICIES[0])
    with pytest.raises(RequestError, match="allows every id"):
        going.submit(EngineJob(canvas=work.canvas, segments=[plain]))
    going.submit(job(0))
    going.submit(job(0))
    with pytest.raises(RequestError, match="2 jobs are waiting"):
        going.submit(job(0))


def test_limits_below_one_are_refused() -> None:
    with pytest.raises(ConfigError, match="max_running is 0"):
        Limits(max_running=0)
