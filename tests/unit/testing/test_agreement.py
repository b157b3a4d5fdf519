"""Decisions are compared in the oracle's states, with its numbers, whatever ours would have done before."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from toy_denoisers import ContextDenoiser

from dynin.decoding.canvas import Canvas, Segment
from dynin.decoding.policy import DecodingPolicy, published_image, published_text
from dynin.decoding.query import Query
from dynin.testing.agreement import NEAR_TIE, Agreement, Recorder, synchronised
from dynin.testing.oracle_grid import GridSettings, Rows, decode_grid
from dynin.testing.oracle_speech import SpeechSettings, decode_speech
from dynin.testing.oracle_text import TextSettings, decode_text

NUM_IDS, MASK, PROMPT_LEN = 24, 23, 3


def forward(ids: Tensor, may_attend: Tensor | None) -> Tensor:
    """A toy network asked for everything."""
    del may_attend
    return ContextDenoiser(NUM_IDS)(ids, None, torch.arange(ids.numel()), None).view(*ids.shape, -1).float()


def answer(query: Query) -> Tensor:
    """The same network asked for some places."""
    return ContextDenoiser(NUM_IDS)(query.ids, None, query.rows, query.allowed).float()


def shaken(query: Query) -> Tensor:
    """Another network."""
    generator = torch.Generator().manual_seed(int((query.ids == MASK).sum()))
    logits = answer(query)
    return logits + torch.randn(logits.shape, generator=generator)


def canvas_of(num_new: int, suffix_len: int = 0, batch: int = 2) -> tuple[Canvas, Tensor]:
    """Prompts of other ids in each row, hidden places, and a suffix."""
    prompt = torch.arange(batch * PROMPT_LEN).view(batch, PROMPT_LEN)
    ids = torch.cat([prompt, torch.full((batch, num_new), MASK), torch.full((batch, suffix_len), 22)], dim=1)
    uncond_ids = torch.cat([torch.full_like(prompt, 21), ids[:, PROMPT_LEN:]], dim=1)
    return Canvas(ids=ids, uncond_ids=uncond_ids), ids == MASK


def text(temperature: float, answered: Callable[[Query], Tensor]) -> Agreement:
    canvas, is_target = canvas_of(12)
    told = TextSettings(mask_id=MASK, num_new=12, num_steps=8, block_len=6, temperature=temperature)
    recorder = Recorder()
    decode_text(
        forward, canvas.ids[:, :PROMPT_LEN], told, generator=torch.Generator().manual_seed(1), observer=recorder
    )
    policy = published_text(num_new=12, num_steps=8, block_len=6, temperature=temperature)
    segment = Segment(name="text", is_target=is_target, allowed_ids=None, policy=policy)
    draws = "ratio" if temperature else "none"
    return synchronised(recorder.decisions, canvas, segment, answered, mask_id=MASK, draws=draws)


def picture(answered: Callable[[Query], Tensor], scale: float = 2.0) -> Agreement:
    canvas, is_target = canvas_of(16, suffix_len=1)
    told = GridSettings(
        mask_id=MASK,
        num_places=16,
        first_id=5,
        num_classes=9,
        num_steps=6,
        guidance_scale=scale,
        prefix_len=PROMPT_LEN,
    )
    recorder = Recorder()
    rows = Rows(ids=canvas.ids, attend=torch.ones_like(is_target), uncond_ids=canvas.uncond_ids)
    decode_grid(forward, rows, told, generator=torch.Generator().manual_seed(2), observer=recorder)
    segment = Segment(
        name="image",
        is_target=is_target,
        allowed_ids=torch.arange(5, 14),
        policy=published_image(num_steps=6, guidance_scale=scale),
    )
    return synchronised(recorder.decisions, canvas, segment, answered, mask_id=MASK, draws="multinomial")


def speech(answered: Callable[[Query], Tensor]) -> Agreement:
    canvas, is_target = canvas_of(14)
    told = SpeechSettings(
        mask_id=MASK, first_id=5, num_codes=9, end_ids=(2, 1), max_new=14, num_steps=9, block_len=6, temperature=1.0
    )
    recorder = Recorder()
    decode_speech(
        forward,
        canvas.ids,
        torch.ones_like(is_target),
        told,
        generator=torch.Generator().manual_seed(3),
        observer=recorder,
    )
    segment = Segment(
        name="speech",
        is_target=is_target,
        allowed_ids=torch.tensor([*range(5, 14), 2, 1]),
        policy=DecodingPolicy(num_steps=9, block_len=6, temperature=1.0),
    )
    return synchronised(recorder.decisions, canvas, segment, answered, mask_id=MASK, draws="multinomial")


RUNS = {
    "greedy text": lambda answered: text(0.0, answered),
    "sampled text": lambda answered: text(1.0, answered),
    "cooler text": lambda answered: text(0.7, answered),
    "picture": picture,
    "picture without guidance": lambda answered: picture(answered, 0.0),
    "speech": speech,
}


@pytest.mark.parametrize("name", list(RUNS))
def test_our_decoder_decides_as_the_published_samplers_do(name: str) -> None:
    agreement = RUNS[name](answer)
    assert agreement.misses == []
    assert agreement.num_choices == agreement.num_reveals > 50


@pytest.mark.parametrize("name", list(RUNS))
def test_another_network_is_found_out_at_every_step_and_not_only_once(name: str) -> None:
    agreement = RUNS[name](shaken)
    assert agreement.num_choices == RUNS[name](answer).num_choices
    assert len({miss.step for miss in agreement.misses}) > 2
    assert not agreement.is_exact
    assert agreement.share < 0.9


def test_a_miss_between_equals_is_a_near_tie() -> None:
    def tied(ids: Tensor, may_attend: Tensor | None) -> Tensor:
        logits = forward(ids, may_attend)
        logits[..., 7] = logits[..., 8] = 9.0
        return logits

    def other(query: Query) -> Tensor:
        logits = answer(query)
        logits[:, 7] = 9.0
        logits[:, 8] = 9.0 + 1e-6
        return logits

    canvas, is_target = canvas_of(4)
    told = TextSettings(mask_id=MASK, num_new=4, num_steps=1, block_len=4)
    recorder = Recorder()
    decode_text(tied, canvas.ids[:, :PROMPT_LEN], told, observer=recorder)
    policy = published_text(num_new=4, num_steps=1, block_len=4)
    segment = Segment(name="text", is_target=is_target, allowed_ids=None, policy=policy)
    agreement = synchronised(recorder.decisions, canvas, segment, other, mask_id=MASK)
    assert len(agreement.misses) == 8
    assert {miss.kind for miss in agreement.misses} == {"choice"}
    assert max(miss.gap for miss in agreement.misses) < NEAR_TIE
    assert agreement.is_exact


def test_a_task_other_than_the_oracles_is_refused() -> None:
    canvas, is_target = canvas_of(4)
    recorder = Recorder()
    told = TextSettings(mask_id=MASK, num_new=4, num_steps=2, block_len=4)
    decode_text(forward, canvas.ids[:, :PROMPT_LEN] + 1, told, observer=recorder)
    segment = Segment(
        name="text",
        is_target=is_target,
        allowed_ids=None,
        policy=published_text(num_new=4, num_steps=2, block_len=4),
    )
    with pytest.raises(ValueError, match="step 0: ours is in another state"):
        synchronised(recorder.decisions, canvas, segment, answer, mask_id=MASK)
