"""Requests whose passes are recorded come out as others do, alone and in the engine, within a bound of memory."""

from dataclasses import replace

import pytest
import torch

from dynin import testing
from dynin.decoding.canvas import Canvas, Segment
from dynin.decoding.decoder import ParallelDecoder
from dynin.decoding.engine import Engine, EngineJob, Limits
from dynin.decoding.policy import DecodingPolicy
from dynin.decoding.query import Query
from dynin.decoding.refresh import Refresh
from dynin.errors import ConfigError
from dynin.model.config import ModelConfig
from dynin.model.transformer import Transformer, initialise
from dynin.pipeline.batch import RequestEngine
from dynin.pipeline.denoiser import PolicyDenoiser
from dynin.pipeline.dynin import Dynin
from dynin.pipeline.graphs import StepGraphs
from dynin.pipeline.mixed import MixedDenoiser
from dynin.pipeline.presets import NONE
from dynin.pipeline.request import Request
from dynin.pipeline.seats import seats_bytes
from dynin.types import Modality

MASK, NUM_NEW = 39, 12
CONFIG = ModelConfig(d_model=32, num_heads=4, num_kv_heads=4, num_layers=1, mlp_dim=48, num_rows=40, max_len=256)
REMEMBERED = DecodingPolicy(num_steps=6, block_len=4, refresh=Refresh(every=3))
SHORT = DecodingPolicy(num_steps=3, block_len=4, refresh=Refresh(every=3))


class Listening(StepGraphs):
    """Keeps which rows were answered."""

    def __init__(self, model: Transformer, **wishes: int) -> None:
        super().__init__(model, records=False, **wishes)
        self.answered: list[tuple[int, ...]] = []

    def answer(self, query: Query, owner: object) -> torch.Tensor:
        self.answered.append(query.keys)
        return super().answer(query, owner)


@pytest.fixture(scope="module")
def network() -> Transformer:
    model = Transformer(CONFIG).requires_grad_(False)
    initialise(model, torch.Generator().manual_seed(0))
    for matrix in (part for part in model.parameters() if part.ndim == 2):
        matrix.mul_(10)
    return model.eval()


@pytest.fixture(scope="module")
def decided() -> Dynin:
    """A tiny model that tells places apart by more than rounding, and remembers keys and values for a few steps."""
    model = testing.tiny()
    with torch.no_grad():
        for matrix in (part for part in model.model.parameters() if part.ndim == 2):
            matrix.mul_(8.0)
    picture = DecodingPolicy(num_steps=4, refresh=Refresh(every=2), guidance_scale=1.0)
    text = DecodingPolicy(num_steps=4, block_len=8, max_len=16, refresh=Refresh(per_block=True))
    policies = {**model.policies, Modality.IMAGE: picture, Modality.TEXT: text}
    return replace(model, policies=policies, presets=NONE)


def job(number: int, policy: DecodingPolicy = REMEMBERED, prompt_len: int = 10) -> EngineJob:
    """Each of another length, over a list of ids of its own."""
    prompt = torch.randint(0, 38, (1, prompt_len + number), generator=torch.Generator().manual_seed(number))
    ids = torch.cat([prompt, torch.full((1, NUM_NEW), MASK)], dim=1)
    segment = Segment(name="out", is_target=ids == MASK, allowed_ids=torch.arange(20), policy=policy)
    return EngineJob(canvas=Canvas(ids=ids), segments=[segment])


def alone(network: Transformer, work: EngineJob, graphs: StepGraphs | None = None) -> list[list[int]]:
    denoiser = PolicyDenoiser(network, graphs=graphs)
    return ParallelDecoder(denoiser, MASK).run(work.canvas, work.segments).ids.tolist()


def finish(engine: Engine) -> dict[int, list[list[int]]]:
    found = {}
    while not engine.is_idle:
        for number in engine.step():
            status = engine.poll(number)
            found[number] = status.decoded.ids.tolist() if status.decoded is not None else []
    return found


def test_requests_come_out_as_without_recordings_and_share_them(decided: Dynin) -> None:
    graphs = Listening(decided.model)
    recorded = replace(decided, graphs=graphs)
    for to in ("image", "text"):
        request = Request(prompt="a dog", to=to, seed=1)
        expected = decided.run(request)
        made = recorded.run(request)
        assert made.text == expected.text
        assert (made.image is None) == (expected.image is None)
        assert made.image is None or made.image.tobytes() == expected.image.tobytes()
        assert made.num_forwards == expected.num_forwards
        buckets = graphs.buckets
        recorded.run(request)
        assert graphs.buckets == buckets  # the second request has other tensors, but asks for nothing new
    assert graphs.answered
    graphs.answered.clear()
    replace(recorded, policies={Modality.IMAGE: DecodingPolicy(num_steps=2)}).generate("a dog", to="image")
    assert not graphs.answered


def test_the_engine_replays_the_request_that_was_there_alone(decided: Dynin) -> None:
    graphs = Listening(decided.model)
    engine = RequestEngine(replace(decided, graphs=graphs))
    requests = [Request(prompt=prompt, to="image", seed=2) for prompt in ("a dog", "two red stars")]
    first = engine.submit(requests[0])
    engine.step()
    second = engine.submit(requests[1])
    found = {}
    while not engine.is_idle:
        found |= {number: engine.poll(number).result for number in engine.step()}
    for number, request in zip((first, second), requests, strict=True):
        assert found[number].image.tobytes() == decided.run(request).image.tobytes()
    assert {keys[0] for keys in graphs.answered} == {0}
    assert len(graphs.answered) == found[first].num_forwards


def test_who_begins_alone_is_replayed_to_its_end_and_who_comes_later_is_packed(network: Transformer) -> None:
    graphs = Listening(network)
    engine = Engine(MixedDenoiser(network, graphs=graphs), MASK)
    engine.submit(job(0))
    engine.step()
    engine.submit(job(1))
    assert finish(engine) == {number: alone(network, job(number)) for number in range(2)}
    assert set(graphs.answered) == {(0,)}
    assert len(graphs.answered) == 6
    engine.submit(job(2))  # the seats are free again
    assert finish(engine) == {2: alone(network, job(2))}
    assert graphs.answered[6:] == [(2,)] * 6


def test_who_does_not_begin_alone_stays_packed_when_the_others_have_gone(network: Transformer) -> None:
    graphs = Listening(network)
    engine = Engine(MixedDenoiser(network, graphs=graphs), MASK)
    engine.submit(job(0, SHORT))
    engine.submit(job(1))
    assert finish(engine) == {0: alone(network, job(0, SHORT)), 1: alone(network, job(1))}
    assert not graphs.answered


def test_a_cancelled_request_leaves_its_seats(network: Transformer) -> None:
    graphs = Listening(network)
    engine = Engine(MixedDenoiser(network, graphs=graphs), MASK)
    number = engine.submit(job(0))
    engine.step()
    engine.cancel(number)
    engine.submit(job(1))
    assert finish(engine) == {1: alone(network, job(1))}
    assert set(graphs.answered) == {(0,), (1,)}


def test_a_replayed_pass_costs_its_window_and_not_the_whole(network: Transformer) -> None:
    denoiser = MixedDenoiser(network, graphs=Listening(network))
    costs = []

    class Counting(Engine):
        def _cost(self, entry) -> int:
            cost = super()._cost(entry)
            if entry.query is not None and entry.query.step == 1:
                costs.append(cost)
            return cost

    engine = Counting(denoiser, MASK, Limits(max_columns=22))
    engine.submit(job(0))
    finish(engine)
    assert min(costs) == 4  # the places of a block


def test_memory_of_shapes_stays_within_its_bound_and_decodings_come_out_all_the_same(network: Transformer) -> None:
    room = 2 * seats_bytes(CONFIG, (1, 128), torch.float32)
    graphs = Listening(network, max_bytes=room)
    for prompt_len in (10, 70, 40):
        work = job(0, SHORT, prompt_len=prompt_len)
        assert alone(network, work, graphs) == alone(network, work)
        assert 0 < graphs._seats.num_bytes <= room
        lengths = {bucket.num_columns for bucket in graphs.buckets}
        assert lengths <= {64, 128}
    count = len(graphs.answered)
    work = job(0, SHORT, prompt_len=180)  # 192 columns take more than half
    assert alone(network, work, graphs) == alone(network, work)
    assert len(graphs.answered) == count


def test_shapes_used_longest_ago_are_given_up_with_their_recordings(network: Transformer) -> None:
    graphs = Listening(network, max_bytes=2 * seats_bytes(CONFIG, (1, 192), torch.float32))
    for prompt_len in (10, 70, 150):
        alone(network, job(0, SHORT, prompt_len=prompt_len), graphs)
        assert {bucket.num_columns for bucket in graphs.buckets} >= {-(-(prompt_len + NUM_NEW) // 64) * 64}
    assert {bucket.num_columns for bucket in graphs.buckets} == {128, 192}


def test_recordings_of_another_network_and_devices_that_record_nothing_are_refused(tiny: Dynin) -> None:
    with pytest.raises(ConfigError, match="another network"):
        replace(tiny, graphs=StepGraphs(testing.tiny(1).model))
    with pytest.raises(ConfigError, match="the network is on cpu, which records no passes"):
        tiny.recorded()
