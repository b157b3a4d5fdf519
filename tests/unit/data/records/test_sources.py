"""What training draws: every row once in an epoch, equal draws equal examples, weights kept, nothing empty."""

import itertools
import json
import logging
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynin.data.emoji_world.world import EmojiWorld
from dynin.data.example import Example
from dynin.data.mixture import Mixture
from dynin.data.records import order, sources
from dynin.data.records.blend import STEPS_TOGETHER, WORLD, Blend, drawn_before
from dynin.data.records.jsonl import JsonLines
from dynin.data.records.sources import Shuffled, SourceConfig, StreamExamples, open_source
from dynin.errors import ConfigError, DataError
from dynin.media import image
from dynin.testing import small_picture
from dynin.types import Modality

TEXT, IMAGE = Modality.TEXT, Modality.IMAGE


class Words:
    """Examples that are their position."""

    def __init__(self, count: int, task: str = "t2t") -> None:
        self.name = "words"
        self.count = count
        self.task = task

    def __len__(self) -> int:
        return self.count

    def fingerprint(self) -> str:
        return f"{self.task} {self.count}"

    def example(self, position: int) -> Example:
        if self.task == "t2i":
            return Example(task="t2i", condition={TEXT: str(position)}, target={IMAGE: torch.full((16,), position)})
        return Example(task="t2t", condition={TEXT: str(position)}, target={TEXT: "x"})


class Stream:
    """A file that can be read in its own order only."""

    def __init__(self, path: Path) -> None:
        self.inner = JsonLines.of(path)
        self.name = self.inner.name
        self.num_read = 0

    def records(self, start: int = 0):
        for record in self.inner.records(start):
            self.num_read += 1
            yield record


def write(folder: Path, count: int, bad: tuple[int, ...] = ()) -> Path:
    lines = []
    for index in range(count):
        parts = [{"type": "text", "text": f"number {index}"}]
        roles = ("user", "bot") if index in bad else ("user", "assistant")
        lines.append(json.dumps({"messages": [{"role": role, "content": parts} for role in roles]}))
    (folder / "rows.jsonl").write_text("\n".join(lines))
    return folder / "rows.jsonl"


def lines_of(examples: list[Example]) -> list[int]:
    return [example.truth.key for example in examples]


@given(st.integers(1, 50), st.integers(0, 3), st.integers(0, 2**31))
def test_an_epoch_draws_every_row_once(count, epoch, seed):
    draws = range(epoch * count, (epoch + 1) * count)
    assert sorted(order.position(draw, count, seed) for draw in draws) == list(range(count))


def test_epochs_differ_and_seeds_do():
    orders = [
        [order.position(epoch * 20 + draw, 20, seed) for draw in range(20)] for seed in (0, 1) for epoch in (0, 1)
    ]
    assert len(set(map(tuple, orders))) == 4


def test_a_source_without_rows_is_refused():
    with pytest.raises(DataError, match="words: holds no row"):
        Shuffled(examples=Words(0), seed=0)


@pytest.fixture
def short_blocks(monkeypatch):
    monkeypatch.setattr(sources, "BLOCK_RECORDS", 8)


@pytest.mark.parametrize("count", [1, 7, 8, 24, 29])
def test_a_stream_gives_every_row_once_in_an_epoch_and_equal_draws_after_a_jump(tmp_path, encoder, short_blocks, count):
    path = write(tmp_path, count)
    whole = StreamExamples(Stream(path), encoder, on_bad="stop", seed=5)
    seen = lines_of(whole.take(0, 3 * count))
    for epoch in range(3):
        assert sorted(seen[epoch * count : (epoch + 1) * count]) == list(range(1, count + 1))
    for start in (0, 1, count, 2 * count + count // 2):
        resumed = StreamExamples(Stream(path), encoder, on_bad="stop", seed=5)
        assert (
            lines_of(resumed.take(start, start + 3))
            == (seen + lines_of(whole.take(3 * count, 3 * count + 9)))[start : start + 3]
        )


def test_a_stream_is_read_once_in_an_epoch(tmp_path, encoder, short_blocks):
    stream = Stream(write(tmp_path, 40))
    source = StreamExamples(stream, encoder, on_bad="stop", seed=0)
    for start in range(0, 40, 4):
        source.take(start, start + 4)
    assert stream.num_read <= 41


def test_a_faulty_row_of_a_stream_stops_or_leaves_its_draw_empty(tmp_path, encoder, short_blocks, caplog):
    path = write(tmp_path, 30, bad=(3, 20))
    with pytest.raises(DataError, match=r"line \d+, field messages\[1\]\.role.*--set data.NAME.on_bad=skip"):
        StreamExamples(Stream(path), encoder, on_bad="stop", seed=0).take(0, 30)
    with caplog.at_level(logging.WARNING):
        kept = StreamExamples(Stream(path), encoder, on_bad="skip", seed=0).take(0, 30)
    assert sorted(lines_of(kept)) == [line for line in range(1, 31) if line not in (4, 21)]
    assert "left out" in caplog.text


def test_an_empty_stream_is_an_error(tmp_path, encoder):
    (tmp_path / "rows.jsonl").write_text("\n")
    with pytest.raises(DataError, match="holds no row"):
        StreamExamples(Stream(tmp_path / "rows.jsonl"), encoder, on_bad="stop", seed=0).take(0, 1)


def test_a_file_stops_at_its_first_fault_or_gives_the_good_rows(tmp_path, encoder, caplog):
    path = write(tmp_path, 20, bad=(4, 9))
    with pytest.raises(
        DataError, match=r"line 5, field messages\[1\]\.role: .*1 more fault;.*--set data.NAME.on_bad=skip"
    ):
        open_source(SourceConfig(path=str(path)), encoder, seed=0)
    source = open_source(SourceConfig(path=str(path), on_bad="skip"), encoder, seed=0)
    assert "2 of 20 rows left out" in caplog.text
    assert sorted(lines_of(source.take(0, 18))) == [line for line in range(1, 21) if line not in (5, 10)]


def test_a_file_that_changed_since_it_was_checked_is_named(tmp_path, encoder):
    image.write(tmp_path / "a.png", small_picture(64))
    given, made = [{"type": "text", "text": "x"}], [{"type": "image", "path": "a.png"}]
    row = {"messages": [{"role": "user", "content": given}, {"role": "assistant", "content": made}]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    source = open_source(SourceConfig(path=str(tmp_path / "rows.jsonl")), encoder, seed=0)
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match=r"no such file.*it was good when the run began"):
        source.take(0, 1)


def test_an_unknown_way_is_refused():
    with pytest.raises(ConfigError, match="'on_bad' is 'drop'"):
        SourceConfig(path="x", on_bad="drop")


# ---- several sources -------------------------------------------------------------------------------------------------


def blend_world(encoder) -> Mixture:
    return Mixture(
        world=EmojiWorld(0), early_world=EmojiWorld(0), maker=encoder.maker(whole_prob=0.5), weights={"t2i": 1.0},
        rows_per_step=9, curriculum_steps=0, drop_prob=0.1, seed=0,
    )  # fmt: skip


def blend(encoder, weights: dict[str, float], *, world: bool = False, rows_per_step: int = 6) -> Blend:
    maker = encoder.maker(whole_prob=0.5)
    return Blend(
        sources={"a": Shuffled(examples=Words(10), seed=1), "b": Shuffled(examples=Words(7, "t2i"), seed=2)},
        weights=weights,
        maker=maker,
        rows_per_step=rows_per_step,
        drop_prob=0.5,
        seed=0,
        world=blend_world(encoder) if world else None,
    )


def test_equal_steps_give_equal_rows_in_any_order_of_asking(encoder):
    weights = {"a": 1.0, "b": 2.0, WORLD: 1.0}
    one = blend(encoder, weights, world=True)
    forward = {step: one.rows(step) for step in range(6)}
    other = blend(encoder, weights, world=True)
    for step in (5, 0, 3):
        rows = other.rows(step)
        assert len(rows) == 6
        for mine, theirs in zip(rows, forward[step], strict=True):
            assert mine.task.name == theirs.task.name
            assert torch.equal(mine.ids, theirs.ids)
            assert torch.equal(mine.is_target, theirs.is_target)


def test_each_row_of_a_step_is_known_by_file_and_line(encoder, tmp_path):
    words = blend(encoder, {"a": 1.0})
    path = write(tmp_path, 9)
    own = open_source(SourceConfig(path=str(path)), encoder, seed=0)
    whole = replace(words, sources={"own": own}, weights={"own": 1.0, WORLD: 1.0}, world=blend_world(encoder))
    rows = whole.rows(3)
    assert {row.task.name for row in rows} == {"t2i", "t2t"}
    for row in rows:
        if row.task.name == "t2t":
            number = int(re.fullmatch(rf"{re.escape(str(path))}, line (\d+)", row.name).group(1)) - 1
            span = row.span(TEXT, is_target=False)
            assert f"number {number} " in encoder.tokenizers.text.decode(row.ids[span.slice()].tolist())


def test_every_row_of_a_source_comes_once_in_an_epoch_whatever_the_steps(encoder):
    whole = blend(encoder, {"b": 1.0, "a": 3.0})
    seen = Counter()
    for step in range(40):
        for row in whole.rows(step):
            if row.task.name == "t2i":
                span = row.span(IMAGE, is_target=True)
                seen[int(row.ids[span.start]) - encoder.vocabulary.image.start] += 1
    assert set(seen) == set(range(7))
    assert max(seen.values()) - min(seen.values()) <= 1


@settings(deadline=None, max_examples=20)
@given(st.lists(st.floats(0.05, 1), min_size=1, max_size=4), st.integers(1, 9), st.integers(0, 2**20))
def test_what_is_drawn_before_a_step_adds_up_and_follows_the_weights(weights, rows_per_step, seed):
    shares = tuple(np.array(weights) / sum(weights))
    ends = [0, 1, 5, STEPS_TOGETHER - 1, STEPS_TOGETHER, STEPS_TOGETHER + 1, 4 * STEPS_TOGETHER]
    before = [drawn_before(seed, shares, rows_per_step, step) for step in ends]
    for step, counts in zip(ends, before, strict=True):
        assert int(counts.sum()) == step * rows_per_step
    for one, later in itertools.pairwise(before):
        assert bool((later >= one).all())
    assert np.abs(before[-1] / before[-1].sum() - shares).max() < 0.05


def test_other_data_weights_or_seeds_have_another_fingerprint(encoder, tmp_path):
    image.write(tmp_path / "a.png", small_picture(64))
    given, made = [{"type": "text", "text": "x"}], [{"type": "image", "path": "a.png"}]
    row = {"messages": [{"role": "user", "content": given}, {"role": "assistant", "content": made}]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))

    def told(seed: int = 0, weights: tuple[float, float] = (1.0, 1.0)) -> str:
        own = open_source(SourceConfig(path=str(tmp_path / "rows.jsonl")), encoder, seed=seed)
        words = blend(encoder, {"a": 1.0})
        weighed = dict(zip(("own", "a"), weights, strict=True))
        return replace(words, sources={**words.sources, "own": own}, weights=weighed).fingerprint()

    before = told()
    assert told() == before
    assert len({before, told(seed=1), told(weights=(2.0, 1.0))}) == 3
    image.write(tmp_path / "a.png", -small_picture(64))
    assert told() != before


def test_a_late_step_is_known_at_once(encoder):
    assert len(blend(encoder, {"a": 1.0, "b": 1.0}).rows(2_000_000)) == 6


def test_rows_that_make_text_keep_their_condition_and_others_lose_it_now_and_then(encoder):
    whole = blend(encoder, {"a": 1.0, "b": 1.0}, rows_per_step=60)
    dropped = Counter()
    for row in whole.rows(0):
        span = row.span(TEXT, is_target=False)
        dropped[row.task.name] += bool((row.ids[span.slice()] == encoder.vocabulary["ipad"]).all())
    assert dropped["t2t"] == 0
    assert dropped["t2i"] > 5


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({}, "the mixture is empty"),
        ({"a": 0.0}, "the mixture is empty"),
        ({"a": 1.0, "x": 1.0}, "'x', which is no source"),
        ({WORLD: 1.0}, f"{WORLD!r}, which is no source"),
        ({"a": -1.0}, "give a number from 0"),
        ({"a": float("nan")}, "give a number from 0"),
    ],
)
def test_a_mixture_of_which_nothing_can_be_drawn_is_refused(encoder, weights, words):
    with pytest.raises(ConfigError, match=words):
        blend(encoder, weights)


def test_a_step_whose_rows_are_all_faulty_is_an_error(tmp_path, encoder):
    stream = StreamExamples(Stream(write(tmp_path, 4, bad=(0, 1, 2, 3))), encoder, on_bad="skip", seed=0)
    whole = Blend(
        sources={"s": stream}, weights={"s": 1.0}, maker=encoder.maker(), rows_per_step=2, drop_prob=0.0, seed=0
    )
    with pytest.raises(DataError, match="all 2 rows of step 0 are faulty"):
        whole.rows(0)
