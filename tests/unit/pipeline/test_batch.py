"""Requests of any kind together: each gets what it gets alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dynin import testing
from dynin.decoding.engine import Limits
from dynin.decoding.policy import DecodingPolicy
from dynin.decoding.refresh import Refresh
from dynin.errors import DecodingError, RequestError
from dynin.pipeline.batch import RequestEngine
from dynin.pipeline.dynin import Dynin
from dynin.pipeline.request import Request
from dynin.pipeline.result import Result
from dynin.types import Modality

TEXT, IMAGE, VIDEO, SPEECH = Modality


def requests() -> list[Request]:
    """Of several tasks, lengths, seeds and wishes, one of them with an observer's trace."""
    return [
        Request(prompt="a dog", to="image", seed=3, steps=4),
        Request(prompt="two red apples", to="image", seed=4, steps=3, guidance=2.0),
        Request(prompt="What is in the picture?", image=testing.small_picture(), to="text", steps=1),
        Request(prompt="a star", to="speech", seed=5, steps=1),
        Request(prompt="a dog", to="image", seed=3, steps=2, trace=True),
        Request(audio=testing.small_sound(0.5), to="text", steps=1),
    ]


def same(first: Result, second: Result) -> bool:
    """Whether two results hold the same media."""
    return (
        first.text == second.text
        and first.finish_reason == second.finish_reason
        and (first.image is None) == (second.image is None)
        and (first.image is None or bool((np.asarray(first.image) == np.asarray(second.image)).all()))
        and (first.audio is None) == (second.audio is None)
        and (first.audio is None or first.audio.samples.shape == second.audio.samples.shape)
    )


def test_requests_of_different_tasks_get_what_they_get_alone(tiny: Dynin) -> None:
    engine = RequestEngine(tiny)
    together = engine.run(requests())
    assert engine.is_idle
    for request, result in zip(requests(), together, strict=True):
        alone = tiny.run(request)
        assert same(result, alone)
        assert (result.num_forwards, result.num_columns) == (alone.num_forwards, alone.num_columns)
        assert (result.trace is None) == (alone.trace is None)
    assert len(together[4].trace) == 2


def test_requests_that_remember_share_passes_too(tiny: Dynin) -> None:
    policy = DecodingPolicy(num_steps=6, refresh=Refresh(every=2))
    remembering = replace(tiny, policies={**tiny.policies, IMAGE: policy})
    prompts = ["a dog", "two red apples"]
    work = [Request(prompt=prompt, to="image", seed=seed, preset="exact") for seed, prompt in enumerate(prompts)]
    work.append(Request(prompt="a star", to="speech", seed=5, steps=1))
    for request, result in zip(work, RequestEngine(remembering).run(work), strict=True):
        alone = remembering.run(request)
        assert same(result, alone)
        assert result.num_forwards == alone.num_forwards
        assert result.num_columns >= alone.num_columns  # where all are computed in full, up to the longest row


def test_a_request_arrives_is_told_of_and_is_cancelled_while_others_go_on(tiny: Dynin) -> None:
    seen = []
    engine = RequestEngine(tiny)
    first = engine.submit(Request(prompt="a dog", to="image", steps=4), seen.append)
    engine.step()
    second = engine.submit(Request(prompt="a cat", to="image", steps=4))
    engine.step()
    assert len(seen) == 2
    engine.cancel(first)
    assert engine.poll(first).state == "cancelled"
    assert engine.poll(second).state == "running"
    while not engine.is_idle:
        ended = engine.step()
    assert ended == (second,)
    assert engine.poll(second).result.num_forwards == 4
    assert len(seen) == 2


def test_bad_requests_are_refused_when_they_are_submitted(tiny: Dynin) -> None:
    engine = RequestEngine(tiny, Limits(max_columns=40))
    with pytest.raises(RequestError, match="smell"):
        engine.submit(Request(prompt="a dog", to="smell"))
    with pytest.raises(RequestError, match="max_columns"):
        engine.submit(Request(prompt="a dog", to="image"))
    assert engine.is_idle


def test_a_network_of_no_numbers_fails_requests_and_not_the_engine() -> None:
    broken = testing.tiny(seed=1)
    engine = RequestEngine(broken)
    with torch.no_grad():
        broken.model.norm.weight.fill_(torch.nan)
    with pytest.raises(DecodingError, match="not finite"):
        engine.run([Request(prompt="a dog", to="image", steps=2) for _ in range(2)])
    assert engine.is_idle
    with torch.no_grad():
        broken.model.norm.weight.fill_(1.0)
    assert engine.run([Request(prompt="a dog", to="image", steps=2)])[0].image is not None


def test_media_that_cannot_be_made_fail_their_request(tiny: Dynin, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = RequestEngine(tiny)
    number = engine.submit(Request(prompt="a dog", to="image", steps=1))
    engine.step()

    def fail(*given) -> None:
        raise MemoryError("no room for the picture")

    monkeypatch.setattr(type(tiny.tokenizers), "decode", fail)
    status = engine.poll(number)
    assert status.state == "failed"
    assert isinstance(status.error, MemoryError)
