from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from dynin.errors import RequestError
from dynin.virst.backbone.protocol import Backbone, Clips, Sentences
from dynin.virst.backbone.videochat.config import VideoChatConfig
from dynin.virst.backbone.videochat.model import VideoChat, draw

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def frames(*counts, px=16, seed=0):
    """Videos of so many frames; where there is no frame stands noise."""
    most = max(counts)
    drawn = torch.rand(len(counts), most, 3, px, px, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return Clips(frames=drawn, is_frame=torch.arange(most)[None] < torch.tensor(counts)[:, None])


def only(clips, video):
    count = clips.num_frames[video]
    return Clips(frames=clips.frames[video : video + 1, :count], is_frame=torch.ones(1, count, dtype=torch.bool))


@torch.no_grad()
def states(model, clips, *rows, st=None):
    sentences = Sentences(texts=tuple(text for text, _ in rows), videos=tuple(video for _, video in rows))
    given = model.st_embeddings().expand(len(rows), -1, -1) if st is None else st
    return model.read(clips, sentences, given).st_states


def test_it_is_a_backbone(model):
    assert isinstance(model, Backbone)
    assert model.st_embeddings().shape == (model.num_st, model.width)


def test_rows_of_several_videos_come_out_as_they_do_alone(model):
    clips = frames(3, 8, 1)
    rows = [("a dog", 1), ("the one that turns back after the bar", 0), ("which?", 2), ("cat", 1)]
    together = states(model, clips, *rows)
    for index, (text, video) in enumerate(rows):
        torch.testing.assert_close(together[index : index + 1], states(model, only(clips, video), (text, 0)), **CLOSE)


@torch.no_grad()
def test_frames_that_were_prepared_do_not_go_through_the_tower_again(model):
    clips = frames(3, 8, 1)
    rows = [("a dog", 1), ("which?", 2), ("cat", 1)]
    prepared = replace(clips, prepared=tuple(model.prepare(clips)), frames=torch.zeros_like(clips.frames))
    assert torch.equal(states(model, prepared, *rows), states(model, clips, *rows))


def test_sentences_videos_and_the_order_of_frames_are_told_apart(model):
    clips = frames(4, 4)
    base = states(model, clips, ("a dog", 0))
    turned = Clips(frames=clips.frames.flip(1), is_frame=clips.is_frame)
    for other in (
        states(model, clips, ("a cat", 0)),
        states(model, clips, ("a dog", 1)),
        states(model, turned, ("a dog", 0)),
    ):
        assert float((other - base).abs().max()) > 1e-4


def test_the_last_frame_fills_up_the_last_clip(model):
    clips = frames(3)
    repeated = torch.cat([clips.frames, clips.frames[:, 2:]], dim=1)
    full = Clips(frames=repeated, is_frame=torch.ones(1, 4, dtype=torch.bool))
    assert torch.equal(states(model, clips, ("a dog", 0)), states(model, full, ("a dog", 0)))


def test_a_video_becomes_so_many_tokens(model):
    assert [tokens.shape for tokens in model.prepare(frames(1, 2, 3, 8))] == [(6, 48), (8, 48), (16, 48), (32, 48)]
    assert [model.config.num_tokens(count) for count in (1, 2, 3, 8)] == [6, 8, 16, 32]
    published = VideoChatConfig()
    assert [published.num_tokens(count) for count in (1, 4, 64)] == [64, 64, 1024]


def test_clips_may_pass_the_tower_one_by_one(config, text):
    many, one = (
        draw(VideoChatConfig(**{**sizes(config), "clips_at_once": count}), text, torch.Generator().manual_seed(1))
        for count in (16, 1)
    )
    clips = frames(8, 5)
    torch.testing.assert_close(states(many, clips, ("a dog", 1)), states(one, clips, ("a dog", 1)), **CLOSE)


def sizes(config):
    return {name: getattr(config, name) for name in config.__slots__}


def test_states_are_those_at_the_st_tokens_themselves(model):
    st = model.st_embeddings()[None].clone().detach()
    base = states(model, frames(2), ("a dog", 0), st=st)
    st[0, 1] += 1  # of three: what comes before it cannot know, it and what follows do
    changed = (states(model, frames(2), ("a dog", 0), st=st) - base).abs().amax(dim=-1)[0]
    assert float(changed[0]) < 1e-6
    assert float(changed[1]) > 1e-3
    assert float(changed[2]) > 1e-5


def test_what_is_answered_behind_the_st_tokens_does_not_change_them(model):
    clips, st = frames(2), model.st_embeddings()[None]
    with torch.no_grad():
        bare = model.read(clips, Sentences(texts=("a dog",), videos=(0,)), st)
        told = model.read(clips, Sentences(texts=("a dog",), videos=(0,), answers=("It barks at night.",)), st)
    torch.testing.assert_close(bare.st_states, told.st_states, **CLOSE)
    assert bare.text is told.text is None


def test_the_score_of_text_is_the_loss_of_the_library(model):
    from transformers.models.qwen2.modeling_qwen2 import Qwen2ForCausalLM

    clips, row = frames(2), model.prompter.row("a dog", is_video=True, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        reading = model.read(
            clips,
            Sentences(texts=("a dog",), videos=(0,)),
            model.st_embeddings()[None],
            torch.Generator().manual_seed(5),
        )
        seen = model._embedded(row, model.prepare(clips)[0], model.st_embeddings())
        labels = torch.full((len(seen.embeddings),), -100)
        labels[seen.told_places] = seen.told
        whole = Qwen2ForCausalLM(model.language.config)
        whole.model, whole.lm_head = model.language, model.head
        expected = whole(inputs_embeds=seen.embeddings[None], labels=labels[None]).loss
    losses = F.cross_entropy(reading.text.logits, reading.text.targets, reduction="none")
    loss = (losses * reading.text.weights).sum() / reading.text.num_rows
    torch.testing.assert_close(loss, expected, **CLOSE)


def test_each_row_counts_as_one_in_the_score_of_text(model):
    sentences = Sentences(texts=("a dog", "a cat"), videos=(0, 0), answers=(None, "It waits for the dog to go away."))
    with torch.no_grad():
        st = model.st_embeddings().expand(2, -1, -1)
        text = model.read(frames(2), sentences, st, torch.Generator().manual_seed(0)).text
    assert text.num_rows == 2
    assert float(text.weights.sum()) == pytest.approx(2)
    assert len(text.weights.unique()) == 2


def test_gradients_reach_the_st_embeddings_and_nothing_else_that_is_frozen(config, text):
    model = draw(config, text, torch.Generator().manual_seed(2)).requires_grad_(False)
    model.st_embed.requires_grad_(True)
    st = model.st_embeddings().expand(1, -1, -1)
    model.read(frames(2), Sentences(texts=("a dog",), videos=(0,)), st).st_states.sum().backward()
    assert [name for name, value in model.named_parameters() if value.grad is not None] == ["st_embed"]
    assert [name for name in model.state_dict() if model.is_learned(name)] == ["st_embed"]


def test_casting_leaves_the_rotary_frequencies_fine(config, text):
    model = draw(config, text, torch.Generator().manual_seed(2))
    before = model.language.rotary_emb.inv_freq.clone()
    model.to(torch.bfloat16)
    assert model.head.weight.dtype == torch.bfloat16
    assert torch.equal(model.language.rotary_emb.inv_freq, before)
    assert states(model, frames(2), ("a dog", 0)).dtype == torch.bfloat16


def test_each_st_token_may_have_an_embedding_of_its_own(config, text):
    model = draw(VideoChatConfig(**{**sizes(config), "has_distinct_st": True}), text, torch.Generator().manual_seed(2))
    assert model.st_embed.shape == (3, 48)
    assert torch.equal(model.st_embeddings(), model.st_embed)


def test_a_row_that_does_not_fit_is_refused(model):
    with pytest.raises(
        RequestError, match=r"sentence 0 takes \d+ positions, 8 of them for its video; the model has 512"
    ):
        states(model, frames(2), ("dog " * 300, 0))


@pytest.mark.parametrize(("counts", "px"), [((9,), 16), ((2,), 12)])
def test_frames_of_another_size_or_too_many_are_refused(model, counts, px):
    with pytest.raises(RequestError, match="VideoChat takes up to 8 of 16 x 16"):
        states(model, frames(*counts, px=px), ("a dog", 0))


def test_a_table_without_a_row_for_the_st_token_is_refused(config, text):
    with pytest.raises(RequestError, match="but the embedding table has 300 rows"), torch.device("meta"):
        VideoChat(config.with_rows(300), text)
