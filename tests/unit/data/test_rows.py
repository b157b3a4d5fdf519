"""Training rows: the right codes in the right places, the same ones every time."""

import numpy as np
import pytest
import torch

from dynin.data.emoji_world.world import EmojiWorld
from dynin.data.mixture import Mixture
from dynin.data.rows import RowMaker, cut_to_block
from dynin.data.utterances import Utterances
from dynin.errors import ConfigError, MediaError, RequestError
from dynin.sequence.layout import Assembler
from dynin.sequence.parse import parse
from dynin.sequence.task import EMBEDDED_TASKS
from dynin.tokenizers.small.image import SmallImageConfig, SmallImageTokenizer
from dynin.types import Modality
from dynin.vocabulary import EMBEDDED

TEXT, IMAGE, VIDEO, SPEECH = Modality.TEXT, Modality.IMAGE, Modality.VIDEO, Modality.SPEECH
SENTENCES = (
    "a dog left of a cat on a red background",
    "a cat below a dog on a blue background",
    "a dog moves right on a white background",
    "what is two plus three",
    "two plus three is five",
    "the dog moves left",
)


@pytest.fixture(scope="module")
def maker() -> RowMaker:
    torch.manual_seed(0)
    return RowMaker(
        assembler=Assembler(vocabulary=EMBEDDED, encode_text=lambda text: list(text.encode())),
        tasks=EMBEDDED_TASKS,
        image=SmallImageTokenizer(SmallImageConfig()),
    )


@pytest.fixture(scope="module")
def utterances() -> Utterances:
    voices = ["slt", "awb"] * len(SENTENCES)
    texts = [text for text in SENTENCES for _ in range(2)]
    offsets = np.arange(len(texts) + 1) * 5
    return Utterances(texts=texts, voices=voices, all_codes=np.arange(offsets[-1], dtype=np.uint16), offsets=offsets)


@pytest.fixture
def mixture(maker, utterances) -> Mixture:
    return Mixture(
        world=EmojiWorld(0),
        early_world=EmojiWorld(0, max_things=1),
        maker=maker,
        weights={"t2i": 1.0},
        rows_per_step=4,
        curriculum_steps=2,
        drop_prob=0.1,
        seed=0,
        utterances=utterances,
    )


@pytest.mark.parametrize("task", sorted(EMBEDDED_TASKS))
def test_every_task_gives_rows_and_the_same_ones_again(mixture, task):
    first, again = (mixture.rows_of(task, 4, step=5) for _ in range(2))
    assert len(first) == 4
    for one, other in zip(first, again, strict=True):
        assert one.task.name == task
        assert bool(one.is_target.any())
        assert torch.equal(one.ids, other.ids)
        assert not bool((one.ids == EMBEDDED["mask"]).any())
    other = mixture.rows_of(task, 4, step=6)
    assert any(not torch.equal(one.ids, two.ids) for one, two in zip(first, other, strict=True))


def test_a_picture_in_a_row_is_the_picture_of_the_example(maker):
    example = EmojiWorld(0).example("t2i", 3)
    (row,) = maker.rows([example], np.random.default_rng(0), drop_prob=0.0)
    expected = maker.image.encode(example.target[IMAGE][None])[0]
    assert torch.equal(parse(EMBEDDED, row, row.ids)[IMAGE].values, expected)


def test_frames_of_a_video_follow_one_another(maker):
    example = EmojiWorld(0).example("t2v", 3)
    (row,) = maker.rows([example], np.random.default_rng(0), drop_prob=0.0)
    expected = maker.image.encode(example.target[VIDEO].frames).flatten()
    assert torch.equal(parse(EMBEDDED, row, row.ids)[VIDEO].values, expected)


def test_an_emptied_condition_leaves_the_target_alone(maker):
    example = EmojiWorld(0).example("t2i", 3)
    (kept,) = maker.rows([example], np.random.default_rng(0), drop_prob=0.0)
    (emptied,) = maker.rows([example], np.random.default_rng(0), drop_prob=1.0)
    span = kept.span(TEXT, is_target=False)
    assert bool((emptied.ids[span.slice()] == EMBEDDED["ipad"]).all())
    assert torch.equal(emptied.ids[emptied.is_target], kept.ids[kept.is_target])


def test_a_cut_row_ends_with_its_block_and_hides_nothing_before_it(maker):
    text = "x" * 40
    row = maker.assembler.assemble(EMBEDDED_TASKS["t2t"], {TEXT: "hi"}, {TEXT: text}, {TEXT: 48})
    lengths = set()
    for seed in range(20):
        cut = cut_to_block(row, np.random.default_rng(seed))
        assert int(cut.is_target.sum()) == 16
        assert bool(cut.is_target[-16:].all())
        assert torch.equal(cut.ids, row.ids[: len(cut.ids)])
        lengths.add(len(row.ids) - len(cut.ids))
    assert lengths == {0, 16, 32}


def test_a_picture_row_is_never_cut(maker):
    row = maker.assembler.assemble(EMBEDDED_TASKS["t2i"], {TEXT: "hi"}, {IMAGE: torch.arange(16)})
    assert cut_to_block(row, np.random.default_rng(0)) is row


def test_speech_that_is_read_aloud_is_the_target_voice(mixture, utterances):
    targets = {tuple(utterances.codes(index).tolist()) for index in range(0, len(utterances.texts), 2)}
    for step in range(5):
        for row in mixture.rows_of("t2s", 4, step=step):
            if int(row.is_target.sum()) and row.ids[-1] == EMBEDDED["eos"]:
                assert tuple(parse(EMBEDDED, row, row.ids)[SPEECH].values.tolist()) in targets


def test_speech_without_a_shard_says_how_to_make_one(maker):
    silent = Mixture(
        world=EmojiWorld(0), early_world=EmojiWorld(0), maker=maker, weights={"s2t": 1.0},
        rows_per_step=1, curriculum_steps=0, drop_prob=0.0, seed=0,
    )  # fmt: skip
    with pytest.raises(ConfigError, match="speech_shard"):
        silent.rows_of("s2t", 1, step=0)


def test_a_shard_is_sorted_by_what_its_sentences_tell(utterances):
    assert utterances.by_kind["picture"].tolist() == [0, 1, 2, 3]
    assert utterances.by_kind["canonical picture"].tolist() == [0, 1]
    assert utterances.by_kind["video"].tolist() == [4, 5]
    assert utterances.by_kind["sum"].tolist() == [6, 7]
    assert utterances.target_by_kind["video"].tolist() == [4]
    assert utterances.find_target("two plus three is five") == 8
    assert utterances.find_target("nobody says this") is None


def test_a_shard_survives_its_file_and_a_missing_one_is_named(tmp_path, utterances):
    path = tmp_path / "codes.npz"
    np.savez(
        path, text=np.array(utterances.texts), voice=np.array(utterances.voices),
        codes=utterances.all_codes, offsets=utterances.offsets,
    )  # fmt: skip
    assert Utterances.read(path).codes(3).tolist() == [15, 16, 17, 18, 19]
    with pytest.raises(MediaError, match=r"none\.npz is no shard"):
        Utterances.read(tmp_path / "none.npz")


def test_an_empty_kind_is_refused():
    empty = Utterances(texts=["hm"], voices=["slt"], all_codes=np.zeros(1, np.uint16), offsets=np.array([0, 1]))
    with pytest.raises(RequestError, match="no utterance of kind 'sum'"):
        empty.draw(np.random.default_rng(0), "sum")
