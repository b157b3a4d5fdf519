"""Packed sequences: every place gets what it gets alone, and so do losses and gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynin.errors import RequestError
from dynin.model.config import ModelConfig
from dynin.model.transformer import Transformer, initialise
from dynin.nn.attention import EXPLICIT_MAX_SCORES
from dynin.sequence import packing
from dynin.sequence.batch import stack
from dynin.sequence.layout import Assembler
from dynin.sequence.task import EMBEDDED_TASKS, PUBLISHED_TASKS
from dynin.training.objective import Objective, ObjectiveConfig
from dynin.types import Modality
from dynin.vocabulary import EMBEDDED, PUBLISHED

TEXT, IMAGE = Modality.TEXT, Modality.IMAGE
SIZES = {"d_model": 32, "num_heads": 4, "num_kv_heads": 2, "num_layers": 3, "mlp_dim": 48, "num_rows": EMBEDDED.size}


def packed_states(model: Transformer, ids, attend, length: int) -> torch.Tensor:
    """What packed sequences give at the places of a batch; zeros where nothing is attended to."""
    plan = packing.plan(attend, length)
    states = plan.run(model.hidden, ids, EMBEDDED.pad_id).flatten(0, 1)
    return states[plan.sources(tuple(ids.shape))] * attend[:, :, None]


def network() -> Transformer:
    model = Transformer(ModelConfig(**SIZES, max_len=512))
    initialise(model, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4 if parameter.ndim > 1 else 1)  # so that places really look at one another
    return model


def rows(count: int = 9):
    assembler = Assembler(vocabulary=EMBEDDED, encode_text=lambda text: list(text.encode()))
    picture = torch.arange(16)
    made = []
    for index in range(count):
        words = "so many words " * (index % 4 + 1)
        if index % 2:
            made.append(assembler.assemble(EMBEDDED_TASKS["t2i"], {TEXT: words}, {IMAGE: picture + index}))
        else:
            values = {TEXT: words, IMAGE: picture}
            made.append(
                assembler.assemble(EMBEDDED_TASKS["i2t"], values, {TEXT: "a dog"}, {TEXT: 16 + 16 * (index % 3)})
            )
    return made


def loss_and_gradients(length: int) -> tuple[float, dict[str, torch.Tensor]]:
    model, batch = network(), stack(rows(), pad_id=EMBEDDED.pad_id, num_rows=11)
    loss = Objective(EMBEDDED, ObjectiveConfig(), length)(model, batch, generator=torch.Generator().manual_seed(1))
    loss.total.backward()
    return loss.total.item(), {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("length", [128, 160, 400])
def test_loss_and_gradients_of_packed_rows_equal_those_of_padded_ones(length):
    plain_loss, plain_gradients = loss_and_gradients(0)
    packed_loss, packed_gradients = loss_and_gradients(length)
    assert (length**2 > EXPLICIT_MAX_SCORES) == (length == 400)  # so both ways of attention are met
    assert abs(packed_loss - plain_loss) <= 1e-6 * abs(plain_loss)
    assert plain_gradients.keys() == packed_gradients.keys()
    for name, gradient in plain_gradients.items():
        assert float((gradient - packed_gradients[name]).norm()) <= 1e-6 * float(gradient.norm()), name


def test_a_document_sees_no_other_one():
    model = network().eval()
    batch = stack(rows(), pad_id=EMBEDDED.pad_id)
    other = batch.ids.clone()
    other[1] = (other[1] + 5) % 200
    before, after = (packed_states(model, ids, batch.attend, 200) for ids in (batch.ids, other))
    changed = (before - after).abs().amax(dim=(1, 2)) > 0
    assert changed.tolist() == [index == 1 for index in range(len(changed))]


def test_places_keep_their_distances_where_some_between_them_are_left_out():
    model = network().eval()
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(0, 1000, (4, 30), generator=generator)
    attend = torch.rand(4, 30, generator=generator) < 0.5
    with torch.no_grad():
        plain = model.hidden(ids, attend) * attend[:, :, None]
        packed = packed_states(model, ids, attend, 40)
    assert torch.allclose(plain, packed, atol=1e-5)


def test_places_that_nothing_attends_to_take_no_room():
    assembler = Assembler(vocabulary=PUBLISHED, encode_text=lambda text: list(text.encode()))
    row = assembler.assemble(PUBLISHED_TASKS["t2i"], {TEXT: "a dog"}, {IMAGE: torch.arange(1024)})
    batch = stack([row], pad_id=PUBLISHED.pad_id)
    packing_of_it = packing.plan(batch.attend, 1100)
    assert len(row.ids) == 129 + 1026
    assert len(packing_of_it.rows) == int(row.attend.sum()) < 1040
    assert packing_of_it.fill == len(packing_of_it.rows) / 1100
    assert int(packing_of_it.columns[-1]) == 129 + 1025  # positions are those of its own row


def test_batches_hold_every_row_once_and_pack_into_what_was_asked_for():
    made = rows(40)
    batches = packing.batches(made, pad_id=EMBEDDED.pad_id, length=512, tokens_per_batch=1024)
    assert sum(len(batch.tasks) for batch in batches) == 40
    assert sum(int(batch.attend.sum()) for batch in batches) == sum(len(row.ids) for row in made)
    packings = [packing.plan(batch.attend, 512) for batch in batches]
    assert max(plan.shape[0] for plan in packings) <= 2
    assert min(plan.fill for plan in packings[:-1]) > 0.9


def test_a_row_that_is_longer_than_a_sequence_is_named():
    with pytest.raises(RequestError, match=r"a row has \d+ places, expected at most 30"):
        packing.batches(rows(), pad_id=EMBEDDED.pad_id, length=30, tokens_per_batch=300)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=12), st.integers(20, 45), st.integers(0, 2**31))
def test_every_attended_place_is_found_again(lengths, length, seed):
    generator = torch.Generator().manual_seed(seed)
    attend = torch.rand(len(lengths), 24, generator=generator) < 0.7
    attend &= torch.arange(24) < torch.tensor(lengths)[:, None]
    values = torch.randn(len(lengths), 24, 3, generator=generator)
    plan = packing.plan(attend, length)
    packed = plan.pack(values, 7.0)
    assert packed.shape == (*plan.shape, 3)
    found = packed.flatten(0, 1)[plan.sources(tuple(attend.shape))]
    assert torch.equal(found[attend], values[attend])
    places = plan.packed_rows * length + plan.packed_columns
    assert len(places.unique()) == int(attend.sum())
    assert int((packed == 7.0).all(dim=2).sum()) == plan.shape[0] * length - int(attend.sum())
