"""Several batches in one pass, and logits over lists of ids."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from dynin.model.config import ModelConfig
from dynin.model.output import OutputRows, runs
from dynin.model.packed import Batch, only_asked, states
from dynin.model.transformer import Transformer, initialise

TINY = ModelConfig(d_model=32, num_heads=4, num_kv_heads=2, num_layers=3, mlp_dim=48, num_rows=60, max_len=64)


def network() -> Transformer:
    model = Transformer(TINY)
    initialise(model, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(8)
    return model.eval().requires_grad_(False)


MODEL = network()


@st.composite
def batches(draw: st.DrawFn) -> tuple:
    """What makes a batch: up to three sequences with places anywhere, counted or not, padded or not."""
    number, length = draw(st.integers(1, 3)), draw(st.integers(1, 9))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    ids = torch.randint(0, TINY.num_rows, (number, length), generator=generator)
    is_asked = torch.rand(number, length, generator=generator) < draw(st.sampled_from([0.1, 0.5, 1.0]))
    is_asked[0, 0] = True
    attend = None
    if draw(st.booleans()):
        attend = torch.arange(length) < torch.randint(1, length + 1, (number, 1), generator=generator)
    counts = tuple(is_asked.sum(dim=1).tolist()) if draw(st.booleans()) else None
    return ids, attend, is_asked.flatten().nonzero().squeeze(1), counts


@given(st.lists(batches(), min_size=1, max_size=4))
@settings(deadline=None, max_examples=40)
def test_places_get_what_they_get_in_a_pass_of_their_own(parts) -> None:
    given_batches = [Batch(*part) for part in parts]
    found = states(MODEL, [only_asked(batch) for batch in given_batches])
    for batch, part in zip(given_batches, found, strict=True):
        alone = MODEL.hidden(batch.ids, batch.attend).flatten(0, 1)[batch.rows]
        assert_close(part, alone, rtol=1e-4, atol=1e-5)


def test_sequences_of_which_nothing_is_asked_are_left_out() -> None:
    batch = Batch(
        torch.zeros(3, 4, dtype=torch.int64), torch.ones(3, 4, dtype=torch.bool), torch.tensor([1, 9]), (1, 0, 1)
    )
    kept = only_asked(batch)
    assert kept.ids.shape == (2, 4)
    assert kept.attend.shape == (2, 4)
    assert kept.rows.tolist() == [1, 5]
    assert kept.counts == (1, 1)


@pytest.mark.parametrize(
    "ids",
    [
        torch.arange(7, 30),
        torch.cat([torch.arange(3), torch.arange(40, 50), torch.tensor([20])]),
        torch.arange(58, -1, -2),
        torch.tensor([5]),
        torch.tensor([], dtype=torch.int64),
    ],
)
def test_logits_over_a_list_are_those_of_the_head(ids: torch.Tensor) -> None:
    rows = OutputRows(MODEL.output.weight)
    hidden = torch.randn(6, TINY.d_model, generator=torch.Generator().manual_seed(0))
    for _ in range(2):
        assert_close(rows.logits(hidden, ids), MODEL.head(hidden, ids), rtol=1e-5, atol=1e-5)
    assert_close(rows.logits(hidden, None), MODEL.head(hidden))


@pytest.mark.parametrize("num_states", [1, 2, 6, 7, 20])
def test_a_table_in_pieces_gives_the_same(num_states: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynin.model.output._PIECE_BYTES", 5 * TINY.d_model * 4)
    hidden = torch.randn(num_states, TINY.d_model, generator=torch.Generator().manual_seed(0))
    for ids in (None, torch.arange(3, 58), torch.tensor([1, 9, 8, 7, 6, 5, 4, 3, 2])):
        assert_close(OutputRows(MODEL.output.weight).logits(hidden, ids), MODEL.head(hidden, ids), rtol=1e-5, atol=1e-5)


def test_one_run_of_ids_is_a_view_of_the_table() -> None:
    rows = OutputRows(MODEL.output.weight)
    part = rows._parts(torch.arange(7, 30))[0]
    assert part.data_ptr() == MODEL.output.weight[7].data_ptr()


def test_a_list_is_known_again_only_while_it_lives() -> None:
    rows = OutputRows(MODEL.output.weight)
    hidden = torch.randn(2, TINY.d_model)
    for start in range(40):  # the next list may take the place in memory of the one before
        ids = torch.arange(start, start + 3)
        assert_close(rows.logits(hidden, ids), MODEL.head(hidden, ids), rtol=1e-5, atol=1e-5)
        del ids


def test_a_list_is_told_as_runs() -> None:
    assert runs(torch.tensor([4, 5, 6, 9, 8, 9])) == ((4, 7), (9, 10), (8, 10))
    assert runs(torch.tensor([], dtype=torch.int64)) == ()
