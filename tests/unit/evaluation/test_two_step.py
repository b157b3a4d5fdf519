"""Crossed tasks by way of text: perfect steps are right, what a step gets wrong is wrong, and a real model runs."""

import json
import shutil
import zlib
from collections.abc import Sequence
from functools import cache

import pytest
import torch

from dynin import testing
from dynin.cli.app import main
from dynin.data.example import Example
from dynin.errors import RequestError
from dynin.evaluation import suite, two_step
from dynin.evaluation.report import Score
from dynin.evaluation.runner import Wanted
from dynin.evaluation.suite import SUITE
from dynin.evaluation.two_step import NOTHING, PIPELINES, as_answered, as_asked
from dynin.media.audio import Audio
from dynin.media.image import to_pil
from dynin.pipeline.dynin import Dynin
from dynin.pipeline.request import Request
from dynin.pipeline.result import Result
from dynin.types import Modality

SEED, COUNT = 5, 4
ROOM = 0x10000


@cache
def examples_of(name: str) -> tuple[Example, ...]:
    """Held-out examples of a row, sentences in place of sounds."""
    world = SUITE[name].world(SEED)
    return tuple(world.sentence(name, index) for index in range(COUNT))


def loudness(words: str) -> float:
    """A loudness that stands for words."""
    return (zlib.crc32(words.encode()) % ROOM) / ROOM


class Perfect:
    """Does every step as well as can be, if it is told the right words; the other one is deaf and blind."""

    def __init__(self, name: str, *, writes: str | None = None) -> None:
        self.name, self.writes = name, writes
        self.asked: list[Request] = []

    def run_together(self, requests: Sequence[Request]) -> list[Result]:
        self.asked += requests
        return [self._made(request, examples_of(self.name)[request.seed - SEED]) for request in requests]

    def _made(self, request: Request, example: Example) -> Result:
        common = {"task": self.name, "finish_reason": "stop", "seed": request.seed, "seconds": 1.0}
        common |= {"num_forwards": 3, "num_tokens": 6, "num_columns": 10}
        told = str(example.condition.get(Modality.SPEECH, example.target.get(Modality.SPEECH)))
        if request.to == "text" and request.prompt is None:
            return Result(**common, text=told if self.writes is None else self.writes)
        if request.to == "text":
            return Result(**common, text=str(example.truth["sum"].results[-1]) if request.prompt == f"{told}?" else "0")
        if request.to == "speech":
            samples = torch.full((16000,), loudness(request.prompt))
            return Result(**common, audio=Audio(samples=samples, rate_hz=16000))
        shown = example.target if request.prompt == told else examples_of(self.name)[0].target
        if request.to == "image":
            return Result(**common, image=to_pil(shown[Modality.IMAGE]))
        return Result(**common, video=shown[Modality.VIDEO])


@pytest.fixture(scope="module")
def tiny():
    return testing.tiny()


def made(tiny: Dynin, model: Perfect, monkeypatch: pytest.MonkeyPatch, first: int = 0, **more: object) -> list[Result]:
    """The results of the steps, each done by a model of the test in place of the real one."""
    monkeypatch.setattr(Dynin, "run_together", lambda _, requests: model.run_together(requests))
    wanted = Wanted(seed=SEED, limit=COUNT, **more)
    return two_step.fulfil(tiny, examples_of(model.name)[first:], wanted, num_done=first, size_px=None)


def scored(tiny: Dynin, model: Perfect, monkeypatch: pytest.MonkeyPatch) -> Score:
    name = model.name
    said = {loudness(str(example.target.get(Modality.SPEECH))): example for example in examples_of(name)}

    def hear(audio: Audio, grammar: str | None) -> str:
        found = said.get(float(audio.samples[0]))
        return str(found.target[Modality.SPEECH]) if found else "a dog"

    monkeypatch.setattr(suite, "recognise", hear)
    results = made(tiny, model, monkeypatch)
    return SUITE[name].judge(list(zip(examples_of(name), results, strict=True)))


@pytest.mark.parametrize("name", PIPELINES)
def test_perfect_steps_are_right_and_steps_that_write_nothing_are_wrong(name, tiny, monkeypatch):
    score = scored(tiny, Perfect(name), monkeypatch)
    assert score.beside.get("sentences_right", score.score) == 1
    blind = Perfect(name, writes=" ")
    missed = scored(tiny, blind, monkeypatch)
    assert missed.beside.get("sentences_right", missed.score) < 0.5
    assert any(request.prompt and NOTHING in request.prompt for request in blind.asked)


@pytest.mark.parametrize("name", PIPELINES)
def test_steps_have_the_seed_of_their_example_and_add_up(name, tiny, monkeypatch):
    model = Perfect(name)
    results = made(tiny, model, monkeypatch, first=2, preset="fast")
    steps = len(PIPELINES[name])
    assert [request.seed for request in model.asked] == [SEED + 2, SEED + 3] * steps
    assert {request.preset for request in model.asked} == {"fast"}
    took = (steps * 3, steps * 6, steps * 10, steps * 1.0)
    assert {(each.num_forwards, each.num_tokens, each.num_columns, each.seconds) for each in results} == {took}


def test_a_spoken_sum_is_asked_with_its_mark_and_answered_in_its_own_words():
    assert as_asked(["what is two plus three"]) == "what is two plus three?"
    assert as_answered(["what is two plus three", "5"]) == "two plus three is five"
    assert as_answered(["what is two plus three?", "9999"]) == "two plus three is 9999"
    assert as_answered(["a dog", "no idea"]) == "a dog is no idea"


@pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed: apt-get install flite")
def test_the_command_scores_a_real_model_on_the_examples_of_the_direct_task(tmp_path, capsys):
    folder = testing.tiny_model(tmp_path / "tiny")
    more = ["--limit", "2", "--task", "s2i", "--seed", "3", "--steps", "1", "--model", str(folder), "--device", "cpu"]
    for name in ("emoji-world", "two-step"):
        assert main(["evaluate", name, *more, "--output", str(tmp_path / f"{name}.json")]) == 0
    direct, by_text = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("emoji-world", "two-step"))
    assert by_text["about"] == {**direct["about"], "title": "two-step"}
    assert by_text["tasks"]["s2i"].keys() == direct["tasks"]["s2i"].keys()
    assert by_text["tasks"]["s2i"]["forwards"] > direct["tasks"]["s2i"]["forwards"]
    assert main(["evaluate", "two-step", "--task", "t2i", "--output", str(tmp_path / "none.json")]) == 2
    assert "unknown figure 't2i'" in capsys.readouterr().err


def test_a_row_that_is_no_crossed_task_is_refused():
    with pytest.raises(RequestError, match=r"unknown figure 's2t'.*two steps make one of s2i, i2s, v2s, s2s, s2v"):
        two_step.require_rows(("s2i", "s2t"))
