"""Decodings as generators, driven by either kind of denoiser."""

import pytest
import torch
from toy_denoisers import ContextDenoiser

from dynin.decoding.canvas import Canvas, Segment
from dynin.decoding.decoder import ParallelDecoder, decoding
from dynin.decoding.policy import DecodingPolicy
from dynin.decoding.query import Query
from dynin.errors import RequestError

MASK, STOP, NUM_IDS = 19, 18, 20
ALLOWED = torch.arange(19)
TARGET = torch.tensor([[False, True, True, True, True], [False, False, True, True, False]])
IDS = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]]).masked_fill(TARGET, MASK)
POLICY = DecodingPolicy(num_steps=4, block_len=2)


def segment(policy: DecodingPolicy = POLICY, name: str = "out") -> Segment:
    return Segment(name=name, is_target=TARGET, allowed_ids=ALLOWED, policy=policy)


class Listener:
    """Answers whole queries, and keeps them."""

    def __init__(self) -> None:
        self.network = ContextDenoiser(NUM_IDS)
        self.queries: list[Query] = []

    def answer(self, query: Query) -> torch.Tensor:
        self.queries.append(query)
        return self.network(query.ids, query.attend, query.rows, query.allowed)


def test_a_denoiser_of_whole_queries_decodes_as_a_plain_callable_does() -> None:
    listener = Listener()
    whole = ParallelDecoder(listener, MASK).run(Canvas(ids=IDS), [segment()])
    plain = ParallelDecoder(ContextDenoiser(NUM_IDS), MASK).run(Canvas(ids=IDS), [segment()])
    assert torch.equal(whole.ids, plain.ids)
    assert whole.num_forwards == plain.num_forwards == len(listener.queries)


def test_queries_tell_rows_block_step_and_window_when_rows_have_finished() -> None:
    listener = Listener()
    ParallelDecoder(listener, MASK).run(Canvas(ids=IDS), [segment()])
    told = [(query.keys, query.block, query.step, query.span) for query in listener.queries]
    assert told == [((0, 1), 0, 0, (0, 2)), ((0, 1), 0, 1, (0, 2)), ((0,), 1, 0, (2, 4)), ((0,), 1, 1, (2, 4))]
    assert listener.queries[0].window.columns.tolist() == [[1, 2], [2, 3]]
    assert listener.queries[2].window.columns.tolist() == [[3, 4]]
    assert all(query.allowed is ALLOWED and query.segment == "out" for query in listener.queries)


def test_a_guided_query_holds_each_row_twice() -> None:
    listener = Listener()
    policy = DecodingPolicy(num_steps=2, guidance_scale=1.0, guidance_interval=(0.5, 1.0))
    uncond = torch.zeros_like(IDS)
    ParallelDecoder(listener, MASK).run(Canvas(ids=IDS, uncond_ids=uncond), [segment(policy)])
    first, second = listener.queries
    assert (first.is_guided, len(first.ids), len(first.keys)) == (False, 2, 2)
    assert (second.is_guided, len(second.ids), len(second.keys)) == (True, 4, 2)
    half = len(second.rows) // 2
    assert torch.equal(second.rows[half:], second.rows[:half] + IDS.numel())


def test_a_faulty_canvas_is_refused_before_the_first_query_is_wanted() -> None:
    with pytest.raises(RequestError, match="guidance_scale"):
        decoding(Canvas(ids=IDS), [segment(DecodingPolicy(num_steps=1, guidance_scale=1.0))], mask_id=MASK)
