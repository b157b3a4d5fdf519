"""Every row of the report: what is true scores 1, what belongs to another example scores less."""

import zlib
from functools import cache
from itertools import count, islice

import pytest
import torch

from dynin.data.example import Example
from dynin.evaluation import suite
from dynin.evaluation.suite import SUITE
from dynin.media.audio import Audio
from dynin.media.image import to_pil
from dynin.pipeline.result import Result
from dynin.sequence.task import EMBEDDED_TASKS
from dynin.types import Modality

NUM_EXAMPLES = 6
SPOKEN = [name for name, row in SUITE.items() if Modality.SPEECH in EMBEDDED_TASKS[row.task].targets]


@cache
def examples_of(name: str) -> list[Example]:
    """The first held-out examples that count for a row, sentences in place of sounds."""
    row, world = SUITE[name], SUITE[name].world(5)
    drawn = (world.sentence(row.task, index) for index in count())
    return list(islice(filter(row.is_wanted, drawn), NUM_EXAMPLES))


def level_of(sentence: object) -> float:
    """A loudness that stands for a sentence."""
    return (zlib.crc32(str(sentence).encode()) & 0xFFFF) / 0x10000


def result_of(example: Example) -> Result:
    """What a perfect model would have made; a sound is as loud as its sentence says."""
    made = example.target
    text = made.get(Modality.TEXT)
    said = made.get(Modality.SPEECH)
    return Result(
        task=example.task,
        text=None if text is None else str(text).rsplit("</think>", 1)[-1],
        image=to_pil(made[Modality.IMAGE]) if Modality.IMAGE in made else None,
        video=made.get(Modality.VIDEO),
        audio=None if said is None else Audio(samples=torch.full((16000,), level_of(said)), rate_hz=16000),
        finish_reason="stop",
        seed=0,
        num_forwards=1,
        seconds=0.0,
    )


@pytest.fixture
def ears(monkeypatch):
    """A recogniser that knows each sentence by the loudness that `result_of` gave it."""
    said = [example.target[Modality.SPEECH] for name in SPOKEN for example in examples_of(name)]
    known = {level_of(sentence): sentence for sentence in said}
    monkeypatch.setattr(suite, "recognise", lambda audio, grammar: known[float(audio.samples[0])])


def test_every_task_of_the_table_has_a_row():
    assert {row.task for row in SUITE.values()} == set(EMBEDDED_TASKS)


@pytest.mark.parametrize("name", [name for name in SUITE if name not in SPOKEN])
def test_the_truth_is_right_and_another_example_is_not(name):
    examples = examples_of(name)
    results = [result_of(example) for example in examples]
    true = SUITE[name].judge(list(zip(examples, results, strict=True)))
    moved = SUITE[name].judge(list(zip(examples, results[1:] + results[:1], strict=True)))
    is_error = true.metric == "word error rate"
    assert true.score == (0 if is_error else 1)
    assert (moved.score > 0.3) if is_error else (moved.score < 0.7)
    assert true.n == NUM_EXAMPLES
    for floor in {"other_scene", "other_clip"} & true.beside.keys():
        assert true.beside[floor] < 0.7
        assert moved.beside[floor] == 1


def test_crossed_tasks_show_what_another_input_would_have_scored(ears):
    floors = {"s2i": "other_scene", "s2v": "other_clip", "i2s": "other_sentences_right"}
    floors |= dict.fromkeys(("v2s", "s2s"), "other_sentences_right")
    for name, floor in floors.items():
        pairs = [(example, result_of(example)) for example in examples_of(name)]
        score = SUITE[name].judge(pairs)
        assert score.beside.get("sentences_right", score.score) >= 3 * score.beside[floor], name


@pytest.mark.parametrize("name", SPOKEN)
def test_what_is_said_is_compared_with_what_should_be_said(name, ears):
    examples = examples_of(name)
    results = [result_of(example) for example in examples]
    score = SUITE[name].judge(list(zip(examples, results, strict=True)))
    assert score.score == 0
    assert score.beside["other_sentence"] > 0.3
    assert score.beside["sentences_right"] == 1
    assert score.beside["other_sentences_right"] < 0.5


def test_rows_of_the_third_stage_have_larger_pictures_and_longer_sentences():
    for usual, grown in (("t2i", "t2i_large"), ("i2t", "i2t_large")):
        sides = [
            example.condition.get(Modality.IMAGE, example.target.get(Modality.IMAGE)).shape[-1]
            for name in (usual, grown)
            for example in examples_of(name)
        ]
        assert sides == [64] * NUM_EXAMPLES + [128] * NUM_EXAMPLES
    for usual, grown in (("s2t", "s2t_long"), ("t2s", "t2s_long")):
        longest = max(example.truth["sentence"].num_words for example in examples_of(usual))
        assert all(example.truth["sentence"].num_words >= 2 * longest for example in examples_of(grown))


def test_long_speech_is_heard_under_a_grammar_of_its_own(monkeypatch):
    grammars = []
    monkeypatch.setattr(suite, "recognise", lambda audio, grammar: grammars.append(grammar) or "a dog")
    for name in ("t2s", "t2s_long"):
        examples = examples_of(name)
        SUITE[name].judge([(example, result_of(example)) for example in examples])
    assert ["then" in grammar for grammar in grammars if grammar] == [False] * NUM_EXAMPLES + [True] * NUM_EXAMPLES


def test_an_edit_that_was_not_done_is_wrong_though_all_else_is_kept():
    examples = [example for example in examples_of("i2i") if example.truth["edit"].operation != "background"]
    kept = [result_of(example) for example in examples]
    undone = [
        Result(
            task="i2i",
            image=to_pil(example.condition[Modality.IMAGE]),
            finish_reason="stop",
            seed=0,
            num_forwards=1,
            seconds=0.0,
        )
        for example in examples
    ]
    done = SUITE["i2i"].judge(list(zip(examples, kept, strict=True)))
    left = SUITE["i2i"].judge(list(zip(examples, undone, strict=True)))
    assert (done.score, left.score) == (1, 0)
    assert left.beside["psnr_outside_db"] > 90
