"""The masked-diffusion model as VIRST's video-language model."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given as given_lengths
from hypothesis import strategies as st
from torch.testing import assert_close

from dynin.errors import ConfigError, RequestError
from dynin.testing import tiny
from dynin.training.config import LoraConfig
from dynin.virst.backbone.dynin import DyninBackbone, alike
from dynin.virst.backbone.protocol import Backbone, Clips, Sentences
from dynin.virst.config import BackboneConfig

ADAPTED = BackboneConfig(lora=LoraConfig(rank=2))
WHOLE = BackboneConfig(network={"num_layers": 1}, lora=LoraConfig())


def backbone(config: BackboneConfig = ADAPTED, *, num_st: int = 3, has_distinct_st: bool = True) -> DyninBackbone:
    return DyninBackbone(tiny(), config, num_st=num_st, has_distinct_st=has_distinct_st, seed=0, origin="here")


def clips(counts: tuple[int, ...], seed: int = 0) -> Clips:
    frames = torch.rand(len(counts), max(counts), 3, 64, 64, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return Clips(frames=frames, is_frame=torch.arange(max(counts)) < torch.tensor(counts)[:, None])


def given(made: DyninBackbone, rows: int) -> torch.Tensor:
    return made.st_embeddings().expand(rows, -1, -1)


def test_it_meets_the_protocol():
    made = backbone()
    assert isinstance(made, Backbone)
    assert (made.width, made.num_st, made.frame_px, made.origin()) == (32, 3, 64, "here")
    assert made.max_frames == (512 - 3 - 128) // 16


@torch.no_grad()
def test_a_batch_of_sentences_and_videos_gives_what_each_gives_alone():
    made, batch = backbone(), clips((3, 1, 2))
    texts = ("the dog", "the star that turns back after the bar", "an apple", "what leaves first?")
    videos = (0, 2, 1, 0)
    states = made.read(batch, Sentences(texts=texts, videos=videos), given(made, 4)).st_states
    assert states.shape == (4, 3, 32)
    for row, (text, video) in enumerate(zip(texts, videos, strict=True)):
        count = batch.num_frames[video]
        own = Clips(frames=batch.frames[video : video + 1, :count], is_frame=batch.is_frame[video : video + 1, :count])
        alone = made.read(own, Sentences(texts=(text,), videos=(0,)), given(made, 1)).st_states
        assert_close(alone[0], states[row], atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("config", [ADAPTED, replace(ADAPTED, reader_width=16, reader_details=True)])
def test_frames_that_were_prepared_are_looked_at_no_more(config):
    config = replace(config, frame_px=64)
    made, batch = backbone(config), clips((3, 1, 2))
    sentences = Sentences(texts=("the dog", "a star", "it", "what leaves first?"), videos=(0, 2, 1, 0))
    expected = made.read(batch, sentences, given(made, 4))
    prepared = replace(batch, prepared=tuple(made.prepare(batch)), frames=torch.zeros_like(batch.frames))
    found = made.read(prepared, sentences, given(made, 4))
    assert torch.equal(found.st_states, expected.st_states)
    assert torch.equal(found.cells.states, expected.cells.states)
    other = made.read(replace(batch, frames=torch.zeros_like(batch.frames)), sentences, given(made, 4))
    assert not torch.equal(other.st_states, expected.st_states)
    moved = prepared.to("cpu").prepared
    assert all(torch.equal(one, other) for one, other in zip(moved, prepared.prepared, strict=True))
    with pytest.raises(RequestError, match="2 prepared videos were given with 3"):
        replace(prepared, prepared=prepared.prepared[:2])


def test_frames_of_another_size_or_too_many_are_refused_before_they_are_prepared():
    made = backbone()
    with pytest.raises(RequestError, match=r"up to 33 frames of 64 x 64 px were given; .* up to 32 of 64 x 64"):
        made.prepare(clips((33,)))
    with pytest.raises(RequestError, match="of 32 x 64 px"):
        made.prepare(Clips(frames=torch.zeros(1, 1, 3, 64, 32), is_frame=torch.ones(1, 1, dtype=torch.bool)))


@torch.no_grad()
def test_stills_do_not_go_through_the_network_at_the_length_of_a_video(monkeypatch):
    made, batch = backbone(), clips((5, 1, 1))
    shapes, states = [], made.model.states
    monkeypatch.setattr(made.model, "states", lambda x, seen: shapes.append(tuple(x.shape[:2])) or states(x, seen))
    made.read(batch, Sentences(texts=("the dog", "a star", "the dog"), videos=(1, 0, 2)), given(made, 3))
    (num_videos, long), (num_stills, short) = shapes
    assert (num_videos, num_stills) == (1, 2)
    assert short < 2 * 16 < 5 * 16 < long  # 16 codes a frame


@given_lengths(st.lists(st.integers(1, 300), min_size=1, max_size=20))
def test_rows_of_a_group_are_not_padded_by_more_than_a_quarter(lengths):
    groups = alike(lengths)
    assert sorted(row for rows in groups for row in rows) == list(range(len(lengths)))
    for rows in groups:
        assert min(lengths[row] for row in rows) >= 0.75 * max(lengths[row] for row in rows)


@torch.no_grad()
def test_what_comes_out_depends_on_the_frames_their_order_the_sentence_and_the_embeddings_given():
    made, batch = backbone(), clips((2,))
    asked = Sentences(texts=("the dog",), videos=(0,))
    first = made.read(batch, asked, given(made, 1)).st_states
    backwards = Clips(frames=batch.frames.flip(1), is_frame=batch.is_frame)
    for other in (
        made.read(clips((2,), seed=1), asked, given(made, 1)),
        made.read(backwards, asked, given(made, 1)),
        made.read(batch, Sentences(texts=("the star",), videos=(0,)), given(made, 1)),
        made.read(batch, asked, given(made, 1) + 0.1),
    ):
        assert not torch.allclose(other.st_states, first, atol=1e-5)


def test_one_pass_gives_gradients_to_adapters_and_embeddings_and_leaves_the_start_alone():
    made = backbone()
    with torch.no_grad():  # the second factors start at nothing, and let nothing through to the first ones
        for name, value in made.named_parameters():
            if ".lora_B" in name:
                value.fill_(0.01)
    asked = Sentences(texts=("the dog", "the star"), videos=(0, 0))
    made.read(clips((2,)), asked, given(made, 2)).st_states.square().sum().backward()
    learned = {name for name, value in made.named_parameters() if value.grad is not None and value.grad.any()}
    assert learned == {name for name, value in made.named_parameters() if value.requires_grad}
    assert learned == {name for name in made.state_dict() if made.is_learned(name)}
    assert "st_embed" in learned


def test_a_network_from_scratch_learns_as_a_whole():
    made = backbone(WHOLE)
    assert len(made.model.blocks) == 1
    assert all(value.requires_grad and made.is_learned(name) for name, value in made.named_parameters())


def test_st_tokens_share_one_embedding_where_the_settings_say_so():
    made = backbone(has_distinct_st=False)
    assert made.st_embed.shape == (1, 32)
    assert made.st_embeddings().shape == (3, 32)


def test_answers_are_hidden_in_part_and_foretold_in_training_alone():
    made, batch = backbone(), clips((1,))
    asked = Sentences(texts=("what is it?", "the dog"), videos=(0, 0), answers=("a dog on blue", None))
    assert made.read(batch, asked, given(made, 2)).text is None
    scores = made.read(batch, asked, given(made, 2), torch.Generator().manual_seed(0)).text
    assert scores is not None
    assert scores.num_rows == 1
    assert len(scores.targets) == len(scores.logits) >= 1
    assert_close(scores.weights.sum(), torch.tensor(1.0))
    text = made._base.tokenizers.text
    assert set(scores.targets.tolist()) <= {*text.encode("a dog on blue"), 300}  # the end token is behind all text


def test_a_row_that_is_too_long_is_refused_with_what_to_do():
    made = backbone()
    with pytest.raises(RequestError, match=r"sentence 0 with the 1 frames .* the model has 512; shorten"):
        made.read(clips((1,)), Sentences(texts=("dog " * 400,), videos=(0,)), given(made, 1))


def test_frames_of_a_side_that_cannot_be_encoded_are_refused():
    with pytest.raises(ConfigError, match=r"frame_px' is 50"):
        backbone(BackboneConfig(frame_px=50, lora=LoraConfig()))


def test_faulty_batches_are_refused():
    with pytest.raises(RequestError, match="at least one frame of every video"):
        Clips(frames=torch.zeros(1, 2, 3, 4, 4), is_frame=torch.tensor([[False, True]]))
    with pytest.raises(RequestError, match="sentence 1 is empty"):
        Sentences(texts=("a dog", "  "), videos=(0, 0))
    with pytest.raises(RequestError, match="2 sentences, 1 numbers of videos"):
        Sentences(texts=("a dog", "a star"), videos=(0,))
