"""Passes of fixed shapes answer as the plain ones do, whatever a policy does with the canvas."""

from dataclasses import dataclass, replace

import pytest
import torch

from dynin.decoding.canvas import Canvas, Segment
from dynin.decoding.decoder import ParallelDecoder
from dynin.decoding.parallel import EntropyBound
from dynin.decoding.policy import Ahead, DecodingPolicy
from dynin.decoding.query import Query
from dynin.decoding.refresh import Refresh
from dynin.decoding.remask import LowConfidenceRemask, VerifyRemask
from dynin.model.config import ModelConfig
from dynin.model.transformer import Transformer, initialise
from dynin.pipeline.denoiser import PolicyDenoiser
from dynin.pipeline.graphs import StepGraphs

MASK, STOP = 39, 5
PLAIN = DecodingPolicy(num_steps=20, block_len=8)
POLICIES = {
    "per block": replace(PLAIN, refresh=Refresh(per_block=True)),
    "once": replace(PLAIN, refresh=Refresh()),
    "every third": replace(PLAIN, refresh=Refresh(every=3)),
    "drawn": replace(PLAIN, refresh=Refresh(), temperature=1.0, sampling="inverse"),
    "what is sure": replace(PLAIN, refresh=Refresh(), commit=EntropyBound(bound=0.5)),
    "looking ahead": replace(PLAIN, refresh=Refresh(), ahead=Ahead(num_blocks=1, bar=0.05)),
    "hidden again": replace(PLAIN, refresh=Refresh(), remask=LowConfidenceRemask()),
    "early stop": replace(PLAIN, refresh=Refresh(), early_stop=True),
    "growing": replace(PLAIN, refresh=Refresh(), max_len=32),
    "guided": replace(PLAIN, refresh=Refresh(per_block=True), guidance_scale=1.0, guidance_every=2),
}


@pytest.fixture(scope="module")
def model() -> Transformer:
    sizes = {"d_model": 32, "num_heads": 4, "num_kv_heads": 2, "mlp_dim": 64, "max_len": 128}
    network = Transformer(ModelConfig(num_layers=2, num_rows=MASK + 1, **sizes)).requires_grad_(False)
    initialise(network, torch.Generator().manual_seed(0))
    for matrix in (part for part in network.parameters() if part.ndim > 1):
        matrix.mul_(8.0)  # so that answers differ from place to place
    return network


@dataclass
class Both:
    """Asks both, holds them against each other, goes on with the plain answer."""

    plain: PolicyDenoiser
    other: PolicyDenoiser
    num_queries: int = 0

    def answer(self, query: Query) -> torch.Tensor:
        expected, found = self.plain.answer(query), self.other.answer(query)
        torch.testing.assert_close(found, expected, atol=2e-4, rtol=2e-4)
        self.num_queries += 1
        return expected


def canvas_of(num_rows: int, *, is_padded: bool = False, length: int = 40) -> tuple[Canvas, torch.Tensor]:
    """Rows of which each has its own number of hidden places at the end."""
    generator = torch.Generator().manual_seed(1)
    column = torch.arange(length)
    is_target = (column >= 12).repeat(num_rows, 1)
    for row in range(1, num_rows):
        is_target[row, 10 * row + 10 :] = False
    ids = torch.randint(6, MASK, is_target.shape, generator=generator).masked_fill(is_target, MASK)
    attend = (column >= torch.arange(num_rows)[:, None] + 2) if is_padded else None
    uncond = torch.randint(6, MASK, is_target.shape, generator=generator)
    return Canvas(ids=ids, attend=attend, uncond_ids=uncond), is_target


def decode(model: Transformer, graphs: StepGraphs, policy: DecodingPolicy, canvas: Canvas, is_target: torch.Tensor):
    """One decoding by both."""
    both = Both(PolicyDenoiser(model), PolicyDenoiser(model, graphs=graphs))
    segments = [Segment(name="a", is_target=is_target, allowed_ids=torch.arange(MASK), policy=policy, stop_ids=(STOP,))]
    generators = [torch.Generator().manual_seed(row) for row in range(len(canvas.ids))]
    ParallelDecoder(both, MASK).run(canvas, segments, generator=generators)
    assert both.num_queries > 3
    return both


@pytest.mark.parametrize("is_padded", [False, True])
@pytest.mark.parametrize("num_rows", [1, 3])
@pytest.mark.parametrize("name", list(POLICIES))
def test_every_pass_of_a_decoding_gives_the_plain_logits(model, name, num_rows, is_padded) -> None:
    graphs = StepGraphs(model, records=False)
    canvas, is_target = canvas_of(num_rows, is_padded=is_padded)
    decode(model, graphs, POLICIES[name], canvas, is_target)
    assert graphs.buckets
    assert min(bucket.num_computed for bucket in graphs.buckets) < 64  # not everything, every time


def test_one_decoding_after_another_finds_nothing_of_the_one_before(model) -> None:
    graphs = StepGraphs(model, records=False)
    for num_rows, is_padded in ((1, True), (3, False), (1, False), (3, True)):
        canvas, is_target = canvas_of(num_rows, is_padded=is_padded)
        decode(model, graphs, POLICIES["once"], canvas, is_target)


def test_a_length_that_fills_its_bucket_needs_no_mask(model) -> None:
    graphs = StepGraphs(model, records=False)
    decode(model, graphs, POLICIES["per block"], *canvas_of(1, length=64))
    assert {bucket.is_limited for bucket in graphs.buckets} == {False}
    assert {bucket.num_computed for bucket in graphs.buckets} == {16, 64}


def test_two_decodings_that_take_turns_are_both_right_again_after_a_full_pass(model) -> None:
    graphs = StepGraphs(model, records=False)
    canvas, is_target = canvas_of(1)
    first = PolicyDenoiser(model, graphs=graphs)
    second = PolicyDenoiser(model, graphs=graphs)
    plain = PolicyDenoiser(model)
    queries: list[Query] = []

    class Turns:
        def answer(self, query: Query) -> torch.Tensor:
            expected = plain.answer(replace(query, refresh=Refresh(every=1)))
            for denoiser in (first, second):
                torch.testing.assert_close(denoiser.answer(query), expected, atol=2e-4, rtol=2e-4)
            queries.append(query)
            return expected

    segment = Segment(name="a", is_target=is_target, allowed_ids=torch.arange(MASK), policy=POLICIES["once"])
    ParallelDecoder(Turns(), MASK).run(canvas, [segment])
    assert len(queries) > 10


@pytest.mark.parametrize(
    "policy",
    [
        replace(PLAIN, refresh=Refresh(drift=0.5)),
        replace(PLAIN, refresh=Refresh(vicinity=2)),
        replace(PLAIN, refresh=Refresh(), remask=VerifyRemask(bar=0.5)),
        replace(PLAIN, refresh=Refresh(), block_len=28),
    ],
)
def test_what_does_not_fit_goes_the_plain_way(model, policy) -> None:
    graphs = StepGraphs(model, records=False, max_places=20)
    decode(model, graphs, policy, *canvas_of(1))
    assert not graphs.buckets


def test_effort_counts_the_seats_of_the_bucket(model) -> None:
    graphs = StepGraphs(model, records=False)
    both = decode(model, graphs, POLICIES["per block"], *canvas_of(1))
    assert both.other.effort(0).num_passes == both.plain.effort(0).num_passes == both.num_queries
    assert both.other.effort(0).num_columns >= both.plain.effort(0).num_columns


@pytest.mark.skipif(not torch.cuda.is_available(), reason="recordings need a GPU")
@pytest.mark.parametrize("name", list(POLICIES))
def test_recordings_give_the_plain_logits(model, name) -> None:
    network = Transformer(model.config)
    network.load_state_dict(model.state_dict())
    device = torch.device("cuda")
    network = network.to(device).requires_grad_(False)
    graphs = StepGraphs(network)
    canvas, is_target = canvas_of(3)
    canvas = Canvas(ids=canvas.ids.to(device), uncond_ids=canvas.uncond_ids.to(device))
    both = Both(PolicyDenoiser(network), PolicyDenoiser(network, graphs=graphs))
    allowed = torch.arange(MASK, device=device)
    segment = Segment(name="a", is_target=is_target.to(device), allowed_ids=allowed, policy=POLICIES[name])
    generators = [torch.Generator(device).manual_seed(row) for row in range(3)]
    ParallelDecoder(both, MASK).run(canvas, [segment], generator=generators)
    assert graphs.buckets
