"""Our decoder, asked to imitate the published samplers, does what they do; and what they refuse."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from toy_denoisers import ContextDenoiser

from dynin.decoding.canvas import Canvas, Segment
from dynin.decoding.decoder import ParallelDecoder
from dynin.decoding.policy import published_text
from dynin.model.config import ModelConfig
from dynin.model.transformer import Transformer, initialise
from dynin.pipeline.denoiser import TransformerDenoiser
from dynin.testing.oracle import Forward, OracleStep, PublishedNetwork, dense_bias, pairs
from dynin.testing.oracle_grid import GridSettings, Rows, decode_grid
from dynin.testing.oracle_speech import SpeechSettings, decode_speech, speech_codes
from dynin.testing.oracle_text import TextSettings, decode_text

NUM_IDS, MASK = 24, 23


def full_pass(denoiser: ContextDenoiser) -> Forward:
    """A toy denoiser asked for everything."""

    def forward(ids: Tensor, may_attend: Tensor | None) -> Tensor:
        attend = None if may_attend is None else may_attend[:, 0].any(dim=1)
        return denoiser(ids, attend, torch.arange(ids.numel()), None).view(*ids.shape, -1)

    return forward


@st.composite
def text_tasks(draw: st.DrawFn) -> tuple[TextSettings, Tensor, Tensor]:
    """Settings, prompts padded on the left, and where they are real."""
    num_blocks, block_len = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    scale = draw(st.sampled_from([0.0, 0.0, 1.5]))
    given_settings = TextSettings(
        mask_id=MASK,
        num_new=num_blocks * block_len,
        num_steps=num_blocks * draw(st.integers(1, 7)),
        block_len=block_len,
        guidance_scale=scale,
    )
    batch, prompt_len = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    prompt = torch.randint(0, NUM_IDS - 1, (batch, prompt_len), generator=generator)
    padding = torch.randint(0, prompt_len, (batch, 1), generator=generator) * (scale == 0)
    return given_settings, prompt, torch.arange(prompt_len) >= padding


@given(text_tasks())
@settings(max_examples=60, deadline=None)
def test_greedy_text_is_the_same_for_every_length_batch_and_padding(task) -> None:
    told, prompt, attend = task
    denoiser = ContextDenoiser(NUM_IDS)
    expected = decode_text(full_pass(denoiser), prompt, told, attend=attend)
    ids = torch.cat([prompt, torch.full((len(prompt), told.num_new), MASK)], dim=1)
    segment = Segment(
        name="text",
        is_target=(torch.arange(ids.shape[1]) >= prompt.shape[1]).expand_as(ids),
        allowed_ids=None,
        policy=published_text(
            num_new=told.num_new,
            num_steps=told.num_steps,
            block_len=told.block_len,
            guidance_scale=told.guidance_scale,
        ),
    )
    canvas = Canvas(
        ids=ids,
        attend=torch.nn.functional.pad(attend, (0, told.num_new), value=True),
        uncond_ids=torch.full_like(ids, MASK),
    )
    assert ParallelDecoder(denoiser, MASK).run(canvas, [segment]).ids.tolist() == expected.tolist()


def test_the_published_network_is_ours_written_differently() -> None:
    model = small_network()
    ids = torch.randint(0, 40, (2, 9), generator=torch.Generator().manual_seed(1))
    attend = torch.tensor([[True] * 9, [False] * 3 + [True] * 6])
    with torch.no_grad():
        ours = model(ids, attend)
    theirs = PublishedNetwork.of(model)(ids, pairs(attend))
    torch.testing.assert_close(ours[attend], theirs[attend], rtol=1e-5, atol=1e-6)


def test_a_row_that_sees_nothing_averages_instead_of_failing() -> None:
    bias = dense_bias(torch.zeros(1, 1, 2, 2, dtype=torch.bool))
    assert bias.softmax(dim=-1).tolist() == [[[[0.5, 0.5], [0.5, 0.5]]]]


def test_text_of_a_network_is_the_same_through_our_decoder() -> None:
    model, told = small_network(), TextSettings(mask_id=39, num_new=16, num_steps=8, block_len=8)
    prompt = torch.randint(0, 39, (1, 5), generator=torch.Generator().manual_seed(2))
    expected = decode_text(PublishedNetwork.of(model), prompt, told)
    ids = torch.cat([prompt, torch.full((1, 16), 39)], dim=1)
    segment = Segment(
        name="text",
        is_target=torch.arange(21)[None] >= 5,
        allowed_ids=None,
        policy=published_text(num_new=16, num_steps=8, block_len=8),
    )
    found = ParallelDecoder(TransformerDenoiser(model), 39).run(Canvas(ids=ids), [segment])
    assert found.ids.tolist() == expected.tolist()


def test_an_observer_sees_each_step_and_changes_nothing() -> None:
    told, seen = TextSettings(mask_id=MASK, num_new=6, num_steps=3, block_len=6, temperature=1.0), []
    prompt, forward = torch.tensor([[3, 4]]), full_pass(ContextDenoiser(NUM_IDS))

    def note(step: OracleStep) -> None:
        seen.append((step.index, int((step.ids == MASK).sum()), int(step.is_committed.sum())))

    watched = decode_text(forward, prompt, told, generator=torch.Generator().manual_seed(0), observer=note)
    alone = decode_text(forward, prompt, told, generator=torch.Generator().manual_seed(0))
    assert watched.tolist() == alone.tolist()
    assert seen == [(0, 6, 2), (1, 4, 2), (2, 2, 2)]


def test_text_can_be_left_off_for_timing() -> None:
    told = TextSettings(mask_id=MASK, num_new=6, num_steps=6, block_len=6, stop_after=2)
    found = decode_text(full_pass(ContextDenoiser(NUM_IDS)), torch.tensor([[3, 4]]), told)
    assert int((found == MASK).sum()) == 4


def test_guidance_of_pictures_follows_the_guided_row_behind_the_prefix() -> None:
    told = GridSettings(
        mask_id=MASK, num_places=4, first_id=8, num_classes=6, num_steps=2, guidance_scale=1.0, prefix_len=2
    )
    ids = torch.tensor([[1, 2, MASK, MASK, MASK, MASK, 5]])
    seen = []

    def forward(ids: Tensor, may_attend: Tensor | None) -> Tensor:
        seen.append(ids.clone())
        return torch.randn(*ids.shape, NUM_IDS, generator=torch.Generator().manual_seed(len(seen)))

    rows = Rows(ids=ids, attend=torch.ones_like(ids, dtype=torch.bool), uncond_ids=torch.full_like(ids, 7))
    classes = decode_grid(forward, rows, told, generator=torch.Generator().manual_seed(0))
    assert [call[1, :2].tolist() for call in seen] == [[7, 7], [7, 7]]
    assert all(call[0, 2:].tolist() == call[1, 2:].tolist() for call in seen)
    assert classes.shape == (1, 4)
    assert classes.max() < 6
    assert ids[0, 2] == MASK  # what was handed in is as it was


def test_speech_in_one_go_may_end_and_has_no_suffix() -> None:
    told = GridSettings(
        mask_id=MASK, num_places=5, first_id=8, num_classes=6, end_ids=(1, 2), suffix_len=0, num_steps=3
    )
    ids = torch.tensor([[4, 4, MASK, MASK, MASK, MASK, MASK]])
    rows = Rows(ids=ids, attend=torch.ones_like(ids, dtype=torch.bool))
    logits = torch.full((1, 7, NUM_IDS), -9.0)
    logits[..., 1] = 9.0
    classes = decode_grid(lambda ids, may_attend: logits, rows, told, generator=torch.Generator().manual_seed(0))
    assert classes.tolist() == [[6] * 5]
    assert told.to_ids(classes).tolist() == [[1] * 5]


def test_speech_is_cut_at_its_first_end() -> None:
    told = SpeechSettings(mask_id=MASK, first_id=8, num_codes=6, end_ids=(1, 2))
    ids = torch.tensor([[4, 9, 10, 1, 11], [4, 9, MASK, 10, 11]])
    answers = speech_codes(ids, torch.arange(5).expand(2, 5) >= 1, told)
    assert [answer.tolist() for answer in answers] == [[1, 2], [1, 2, 3]]


def test_speech_refuses_rows_that_hide_different_numbers_of_places() -> None:
    told = SpeechSettings(mask_id=MASK, first_id=8, num_codes=6, end_ids=(1, 2))
    ids = torch.tensor([[4, MASK, MASK], [4, 4, MASK]])
    with pytest.raises(ValueError, match=r"rows hide \[2, 1\] places"):
        decode_speech(
            full_pass(ContextDenoiser(NUM_IDS)),
            ids,
            torch.ones_like(ids, dtype=torch.bool),
            told,
            generator=torch.Generator(),
        )


def test_text_refuses_blocks_that_do_not_divide() -> None:
    with pytest.raises(ValueError, match="10 new places, blocks of 4 and 5 steps do not divide"):
        TextSettings(mask_id=MASK, num_new=10, num_steps=5, block_len=4)


def small_network() -> Transformer:
    """Two layers of width 16 over 40 ids."""
    model = Transformer(
        ModelConfig(d_model=16, num_heads=2, num_kv_heads=1, num_layers=2, mlp_dim=32, num_rows=40, max_len=64)
    )
    initialise(model, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3 if parameter.ndim > 1 else 1)
    return model
