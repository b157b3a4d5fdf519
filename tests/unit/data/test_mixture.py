"""Training rows by task, step and batch: they repeat themselves, and speech comes from the shard."""

from collections import Counter
from collections.abc import Mapping

import numpy as np
import pytest
import torch

from dynin import testing
from dynin.data.emoji_world.world import EmojiWorld
from dynin.data.mixture import Mixture
from dynin.data.rows import RowMaker
from dynin.data.utterances import Utterances
from dynin.data.variants import DRAWN
from dynin.errors import ConfigError
from dynin.sequence.layout import Assembler
from dynin.sequence.parse import parse
from dynin.sequence.task import EMBEDDED_TASKS
from dynin.types import Modality

TINY = testing.tiny()
SAID = {
    "a dog on a red background": "slt",
    "a cat left of a star on a red background": "awb",
    "a dog moves right on a white background": "slt",
    "what is two plus three": "awb",
    "two plus three is five": "slt",
}


def utterances() -> Utterances:
    """Five sentences; sentence k is three times code k."""
    codes = np.repeat(np.arange(len(SAID)), 3).astype(np.uint16)
    offsets = np.arange(0, len(codes) + 1, 3)
    return Utterances(texts=tuple(SAID), voices=tuple(SAID.values()), all_codes=codes, offsets=offsets)


def test_sentences_are_drawn_as_often_as_the_domain_says_their_form() -> None:
    shard, generator = utterances(), np.random.default_rng(0)
    drawn = Counter(shard.texts[shard.draw(generator)] for _ in range(4000))
    for text, weight in zip(shard.texts, shard.weights, strict=True):
        assert drawn[text] / 4000 == pytest.approx(weight, abs=0.03)
    spoken = Counter(shard.draw_target(generator) for _ in range(4000))
    assert {shard.voices[index] for index in spoken} == {"slt"}
    assert spoken[0] / spoken[4] == pytest.approx(shard.weights[0] / shard.weights[4], rel=0.2)


def mixture(**changes: object) -> Mixture:
    maker = RowMaker(
        assembler=Assembler(vocabulary=TINY.vocabulary, encode_text=TINY.tokenizers.text.encode),
        tasks=EMBEDDED_TASKS,
        image=TINY.tokenizers.image,
        whole_prob=1.0,
    )
    settings: Mapping[str, object] = {
        "world": EmojiWorld(0),
        "early_world": EmojiWorld(0, max_things=1),
        "maker": maker,
        "weights": {"t2i": 1.0},
        "rows_per_step": 4,
        "curriculum_steps": 0,
        "drop_prob": 0.0,
        "seed": 1,
        "utterances": utterances(),
    }
    return Mixture(**{**settings, **changes})


def test_a_step_has_rows_of_the_weighted_tasks_alone_and_repeats_itself():
    source = mixture(weights={"t2i": 3.0, "t2t": 1.0}, rows_per_step=40)
    first, again = source.rows(5), source.rows(5)
    names = [row.task.name for row in first]
    assert len(first) == 40
    assert set(names) == {"t2i", "t2t"}
    assert names.count("t2i") > names.count("t2t")
    assert all(torch.equal(one.ids, other.ids) for one, other in zip(first, again, strict=True))


@pytest.mark.parametrize("task", list(EMBEDDED_TASKS))
def test_rows_repeat_themselves_and_differ_between_steps(task):
    source = mixture()
    first, again = (source.rows_of(task, 3, step=3) for _ in range(2))
    assert all(torch.equal(one.ids, other.ids) for one, other in zip(first, again, strict=True))
    assert all(row.task.name == task for row in first)
    later = [source.rows_of(task, 3, step=step) for step in range(4, 9)]
    assert any(
        len(rows[0].ids) != len(first[0].ids) or not torch.equal(rows[0].ids, first[0].ids) for rows in later
    ) or (
        task == "s2s"  # the shard has one sum
    )


def test_a_sum_is_answered_by_the_recording_of_its_answer():
    row = mixture().rows_of("s2s", 1, step=0)[0]
    made = parse(TINY.vocabulary, row, row.ids)[Modality.SPEECH]
    assert made.values.tolist() == [4, 4, 4]


def test_only_the_target_voice_is_learned_to_be_spoken():
    for step in range(20):
        row = mixture().rows_of("t2s", 1, step=step)[0]
        assert parse(TINY.vocabulary, row, row.ids)[Modality.SPEECH].values[0].item() in (0, 2, 4)


def test_speech_without_a_shard_is_refused():
    with pytest.raises(ConfigError, match="speech_shard"):
        mixture(utterances=None).rows_of("s2t", 1, step=0)


def test_a_shard_without_an_answered_sum_is_refused():
    lonely = Utterances(
        texts=("what is two plus three",), voices=("slt",), all_codes=np.zeros(3, np.uint16), offsets=np.array([0, 3])
    )
    with pytest.raises(ConfigError, match="no spoken sum"):
        mixture(utterances=lonely).rows_of("s2s", 1, step=0)


@pytest.mark.parametrize(
    ("name", "marks"), [("t2t_thinking", (True,)), ("t2t_direct", (False,)), ("t2t", (True, False))]
)
def test_a_part_of_a_task_is_drawn_by_its_name(name, marks):
    worlds = {part: EmojiWorld(0, **DRAWN[part].world) for part in ("t2t_thinking", "t2t_direct")}
    rows = mixture(worlds=worlds).rows_of(name, 30, step=0)
    texts = [TINY.tokenizers.text.decode(row.ids[row.spans[0].slice()].tolist()) for row in rows]
    assert {row.task.name for row in rows} == {"t2t"}
    assert {text.endswith("/think") for text in texts} == set(marks)


def test_long_sounds_come_from_a_shard_of_their_own():
    long = Utterances(
        texts=("a dog on a red background then a cat on a red background",),
        voices=("slt",),
        all_codes=np.full(6, 9, np.uint16),
        offsets=np.array([0, 6]),
    )
    row = mixture(long_utterances=long).rows_of("t2s_long", 1, step=0)[0]
    assert parse(TINY.vocabulary, row, row.ids)[Modality.SPEECH].values.tolist() == [9] * 6
    with pytest.raises(ConfigError, match="long_speech_shard"):
        mixture().rows_of("s2t_long", 1, step=0)
