"""What a policy asks of the network, from a request on: with a memory that is always made anew, the same result."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from dynin.decoding.canvas import Canvas, Segment
from dynin.decoding.decoder import ParallelDecoder
from dynin.decoding.parallel import EntropyBound
from dynin.decoding.policy import DecodingPolicy
from dynin.decoding.refresh import Refresh
from dynin.decoding.remask import VerifyRemask
from dynin.decoding.trace import Step
from dynin.errors import RequestError
from dynin.model.config import ModelConfig
from dynin.model.transformer import Transformer, initialise
from dynin.pipeline.denoiser import PolicyDenoiser, TransformerDenoiser
from dynin.pipeline.dynin import Dynin
from dynin.types import Modality

MASK = 39


@pytest.fixture
def one_thread():
    """Several threads cut a product by its size, so that a batch may round otherwise than its rows alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def remembering(model: Dynin, refresh: Refresh) -> Dynin:
    """The same model, every modality decoded with a memory."""
    policies = {name: replace(policy, refresh=refresh) for name, policy in model.policies.items()}
    return replace(model, policies=policies)


@pytest.mark.parametrize("wishes", [{"to": "image", "guidance": 1.0}, {"to": "text"}, {"to": "video"}])
def test_made_anew_at_every_pass_a_memory_changes_nothing(tiny, one_thread, wishes):
    plain = tiny.generate("a dog", preset="exact", **wishes)
    again = remembering(tiny, Refresh(every=1)).generate("a dog", preset="exact", **wishes)
    assert plain.text == again.text
    assert plain.num_columns == again.num_columns
    for one, other in ((plain.image, again.image), (plain.video, again.video)):
        assert (one is None) == (other is None)
        if one is not None:
            values = [np.asarray(part.frames if hasattr(part, "frames") else part) for part in (one, other)]
            assert (values[0] == values[1]).all()


def test_a_memory_saves_columns_and_is_told(tiny):
    exact = tiny.generate("a dog", to="image", preset="exact", guidance=1.0)
    kept = remembering(tiny, Refresh()).generate("a dog", to="image", preset="exact", guidance=1.0)
    assert kept.num_forwards == exact.num_forwards == 16
    # one full pass over both branches, then hidden and just revealed places: 15 + 1, 14 + 1, ... 1 + 1
    length = exact.num_columns // (2 * 16)
    assert kept.num_columns == 2 * (length + sum(range(2, 17)))


def test_a_condition_that_is_left_out_is_neither_seen_nor_computed(tiny):
    changed = {name: replace(policy, guidance_omits=True) for name, policy in tiny.policies.items()}
    model = replace(tiny, policies=changed)
    short, long = (
        model.generate(prompt, to="image", preset="exact", guidance=1.0).num_columns for prompt in ("a", "a dog a cat")
    )
    plain = [
        tiny.generate(prompt, to="image", preset="exact", guidance=0.0).num_columns for prompt in ("a", "a dog a cat")
    ]
    assert long - short == plain[1] - plain[0] > 0


def test_two_targets_after_another_are_both_remembered_right(tiny, one_thread):
    def made(model: Dynin):
        return model.generate("a dog", image=torch.zeros(3, 64, 64), to="image+text", preset="exact", guidance=0.0)

    plain, again = made(tiny), made(remembering(tiny, Refresh(every=1)))
    assert plain.text == again.text
    assert (np.asarray(plain.image) == np.asarray(again.image)).all()


def test_a_row_that_has_ended_costs_nothing_while_others_go_on(tiny):
    stop = 5

    class Scripted:
        """Row 0 ends at once, row 1 never; counts what is asked of the network beside."""

        def __init__(self) -> None:
            self.inner, self.columns = PolicyDenoiser(tiny.model), []

        def answer(self, query):
            before = [self.inner.effort(row).num_columns for row in (0, 1)]
            self.inner.answer(query)
            self.columns.append(
                [self.inner.effort(row).num_columns - old for row, old in zip((0, 1), before, strict=True)]
            )
            logits = torch.zeros(len(query.rows), len(query.allowed))
            owner = torch.tensor(query.keys)[query.rows // query.ids.shape[1]]
            logits[owner == 0, 0] = 9.0
            logits[owner == 1, 1] = 9.0
            return logits

    ids = torch.full((2, 6), MASK)
    ids[:, 0] = 7
    policy = DecodingPolicy(num_steps=5, commit=EntropyBound(bound=0.0), early_stop=True)
    segment = Segment(
        name="out", is_target=ids == MASK, allowed_ids=torch.tensor([stop, 8]), policy=policy, stop_ids=(stop,)
    )
    scripted = Scripted()
    ParallelDecoder(scripted, MASK).run(Canvas(ids=ids), [segment])
    assert scripted.columns[0] == [6, 6]
    assert [row for row, _ in scripted.columns[1:]] == [0] * (len(scripted.columns) - 1)
    assert all(other == 6 for _, other in scripted.columns)


def test_a_bound_on_the_memory_is_kept(tiny):
    ids = torch.full((1, 8), tiny.vocabulary["mask"])
    allowed = tiny.vocabulary.allowed_ids(Modality.IMAGE)
    policy = DecodingPolicy(num_steps=8, refresh=Refresh())
    segment = Segment(name="out", is_target=ids >= 0, allowed_ids=allowed, policy=policy)
    decoder = ParallelDecoder(PolicyDenoiser(tiny.model, max_cache_bytes=100), tiny.vocabulary["mask"])
    with pytest.raises(RequestError, match=r"take \d+ bytes .* may take 100"):
        decoder.run(Canvas(ids=ids), [segment])


def test_half_precision_is_remembered_in_half_precision(tiny):
    model = tiny.model
    network = type(model)(model.config)
    network.load_state_dict(model.state_dict())
    network = network.to(torch.bfloat16).requires_grad_(False)
    mask = tiny.vocabulary["mask"]
    ids = torch.full((1, 8), mask)
    allowed = tiny.vocabulary.allowed_ids(Modality.IMAGE)
    made = []
    for denoiser, refresh in ((TransformerDenoiser(network), None), (PolicyDenoiser(network), Refresh(every=1))):
        policy = DecodingPolicy(num_steps=8, refresh=refresh)
        segment = Segment(name="out", is_target=ids >= 0, allowed_ids=allowed, policy=policy)
        made.append(ParallelDecoder(denoiser, mask).run(Canvas(ids=ids), [segment]).ids)
    assert torch.equal(*made)


def _count_hidden(steps: list[int], step: Step) -> None:
    steps.append(int(step.is_remasked.sum()))


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("block_len", [None, 8])
def test_places_that_are_verified_are_found_among_several_remembered_rows(block_len, share):
    """One layer's keys follow from ids alone, so a memory of it is exact although it is never made anew."""
    sizes = {"d_model": 32, "num_heads": 2, "num_kv_heads": 2, "mlp_dim": 64, "max_len": 64}
    model = Transformer(ModelConfig(num_layers=1, num_rows=MASK + 1, **sizes)).requires_grad_(False)
    initialise(model, torch.Generator().manual_seed(0))
    for matrix in (part for part in model.parameters() if part.ndim > 1):
        matrix.mul_(8.0)  # so that some ids are doubted and others not
    is_target = (torch.arange(40) >= 12)[None].repeat(3, 1)
    is_target[1, 30:] = False
    ids = torch.randint(MASK, (3, 40), generator=torch.Generator().manual_seed(1)).masked_fill(is_target, MASK)
    seen, made = [], []
    for refresh in (None, Refresh()):
        policy = DecodingPolicy(
            num_steps=20, block_len=block_len, remask=VerifyRemask(bar=1.0, share=share), refresh=refresh
        )
        segment = Segment(name="a", is_target=is_target, allowed_ids=torch.arange(MASK), policy=policy)
        steps: list[int] = []
        decoder = ParallelDecoder(PolicyDenoiser(model), MASK)
        made.append(decoder.run(Canvas(ids=ids), [segment], observer=partial(_count_hidden, steps)))
        seen.append(steps)
    assert sum(seen[0]) > 0
    assert seen[0] == seen[1]
    assert torch.equal(made[0].ids, made[1].ids)
