"""A step never asks its device for a number: no read, and no shape that depends on values."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from toy_denoisers import ContextDenoiser

from dynin.decoding.canvas import Canvas, Segment
from dynin.decoding.decoder import decoding
from dynin.decoding.policy import DecodingPolicy, published_image
from dynin.decoding.query import Query
from dynin.decoding.remask import LowConfidenceRemask

MASK, NUM_IDS = 23, 24
ALLOWED = torch.arange(8, 22)
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "repeat_interleave", "bincount")
PLANNED = {
    "greedy": DecodingPolicy(num_steps=8, block_len=8),
    "image": published_image(num_steps=6),
    "entropy": DecodingPolicy(num_steps=5, score="entropy", temperature=0.3, remask=LowConfidenceRemask()),
    "random": DecodingPolicy(num_steps=5, score="random", schedule="cosine"),
    "resting": DecodingPolicy(num_steps=6, guidance_scale=1.0, guidance_every=2),
    "halton": DecodingPolicy(num_steps=4, order="halton"),
}


class _Waits(TorchDispatchMode):
    """Notes every operation that waits for its device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        is_by_mask = name.startswith("index") and any(
            isinstance(part, torch.Tensor) and part.dtype == torch.bool for part in (args[1] if len(args) > 1 else [])
        )
        if name in WAITS or is_by_mask:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@contextmanager
def watched(patch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The operations that wait, as they happen."""
    waits = _Waits()
    read = torch.Tensor.tolist
    with patch.context() as inner, waits:
        inner.setattr(torch.Tensor, "tolist", lambda tensor: (waits.found.append("tolist"), read(tensor))[1])
        yield waits.found


def start(policy: DecodingPolicy):
    """A decoding of two rows with eight hidden places each, and its first query."""
    ids = torch.arange(24).view(2, 12).remainder(20)
    target = (torch.arange(12) >= 4).expand(2, -1)
    segment = Segment(name="out", is_target=target, allowed_ids=ALLOWED, policy=policy, grid=(2, 4))
    canvas = Canvas(ids=ids.masked_fill(target, MASK), uncond_ids=torch.zeros_like(ids))
    generators = [torch.Generator().manual_seed(row) for row in range(2)]
    going = decoding(canvas, [segment], mask_id=MASK, generator=generators)
    return going, next(going)


def steps(policy: DecodingPolicy, patch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What waited between an answer and the next query of the same block, step by step."""
    network = ContextDenoiser(NUM_IDS)
    going, query = start(policy)
    while True:
        logits = network(query.ids, query.attend, query.rows, query.allowed)
        with watched(patch) as found:
            try:
                following: Query | None = going.send(logits)
            except StopIteration:
                following = None
        if following is None:
            return
        if following.block == query.block:
            yield found
        query = following


@pytest.mark.parametrize("name", list(PLANNED))
def test_what_follows_its_plan_waits_for_nothing_inside_a_block(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = list(steps(PLANNED[name], monkeypatch))
    assert len(found) >= 3
    assert not any(found)


def test_what_does_not_reads_one_vector_between_two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    found = list(steps(DecodingPolicy(num_steps=8, threshold=0.9), monkeypatch))
    assert found
    assert all(each == ["tolist"] for each in found)
