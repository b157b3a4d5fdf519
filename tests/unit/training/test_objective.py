"""The loss: compared with a plain loop, and blind to what it must not see."""

import pytest
import torch

from dynin.sequence.batch import stack
from dynin.sequence.layout import Assembler
from dynin.sequence.task import EMBEDDED_TASKS
from dynin.training.objective import Objective, ObjectiveConfig
from dynin.types import Modality
from dynin.vocabulary import EMBEDDED

TEXT, IMAGE, SPEECH = Modality.TEXT, Modality.IMAGE, Modality.SPEECH
PLAIN = ObjectiveConfig(correction_prob=0.0)
ASSEMBLER = Assembler(vocabulary=EMBEDDED, encode_text=lambda text: list(text.encode()))


def rows():
    codes = torch.arange(16)
    return [
        ASSEMBLER.assemble(EMBEDDED_TASKS["t2i"], {TEXT: "a dog"}, {IMAGE: codes}),
        ASSEMBLER.assemble(EMBEDDED_TASKS["i2t"], {IMAGE: codes, TEXT: "what?"}, {TEXT: "a dog"}, {TEXT: 16}),
        ASSEMBLER.assemble(EMBEDDED_TASKS["t2s"], {TEXT: "hi"}, {SPEECH: codes}, {SPEECH: 32}),
    ]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def naive(model, objective):
    """The mean of -log p over hidden positions, each over the ids its modality allows, filler weighed down."""
    batch = stack(rows(), pad_id=EMBEDDED["pad"])
    xt, is_hidden, *_ = objective._corrupt(batch, generator())
    logits = model(xt, batch.attend)
    total, weights = 0.0, 0.0
    kinds = {0: (IMAGE, []), 1: (TEXT, ["eos"]), 2: (SPEECH, ["eoa", "eos"])}
    for row, (modality, ends) in kinds.items():
        allowed = EMBEDDED.allowed_ids(modality, *ends)
        has_ended = False
        for column in range(batch.ids.shape[1]):
            token = int(batch.ids[row, column])
            is_filler = bool(batch.is_target[row, column]) and token == EMBEDDED["eos"] and has_ended
            has_ended |= bool(batch.is_target[row, column]) and token in (EMBEDDED["eos"], EMBEDDED["eoa"])
            if is_hidden[row, column]:
                log_p = torch.log_softmax(logits[row, column][allowed], dim=0)[(allowed == token).nonzero()[0, 0]]
                weight = objective.config.filler_weight if is_filler else 1.0
                total, weights = total - weight * log_p, weights + weight
    return total / weights


def test_the_loss_equals_a_plain_loop_over_hidden_positions(model):
    objective = Objective(EMBEDDED, PLAIN)
    loss = objective(model, stack(rows(), pad_id=EMBEDDED["pad"]), generator=generator())
    assert torch.allclose(loss.total / loss.weight, naive(model, objective), atol=1e-5)


def test_gradients_equal_those_of_the_plain_loop(model):
    objective = Objective(EMBEDDED, PLAIN)
    naive(model, objective).backward()
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    loss = objective(model, stack(rows(), pad_id=EMBEDDED["pad"]), generator=generator())
    (loss.total / loss.weight).backward()
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter.grad, expected[name], atol=1e-6), name


def test_conditions_and_padding_are_never_hidden_nor_replaced(model):
    objective = Objective(EMBEDDED, ObjectiveConfig(correction_prob=1.0, replace_prob=1.0))
    batch = stack(rows(), pad_id=EMBEDDED["pad"])
    for seed in range(10):
        xt, is_hidden, is_visible, _ = objective._corrupt(batch, generator(seed))
        assert torch.equal(xt[~batch.is_target], batch.ids[~batch.is_target])
        assert not bool((is_hidden & is_visible).any())
        assert torch.equal(is_hidden | is_visible, batch.is_target)


def test_replaced_codes_stay_inside_their_modality_and_end_tokens_are_kept():
    objective = Objective(EMBEDDED, ObjectiveConfig(correction_prob=1.0, replace_prob=1.0))
    batch = stack(rows(), pad_id=EMBEDDED["pad"])
    ends = torch.tensor([EMBEDDED["eos"], EMBEDDED["eoa"]])
    for seed in range(10):
        xt, is_hidden, *_ = objective._corrupt(batch, generator(seed))
        seen = batch.is_target & ~is_hidden
        is_end = torch.isin(batch.ids, ends)
        assert torch.equal(xt[seen & is_end], batch.ids[seen & is_end])
        for row, modality in enumerate((IMAGE, TEXT, SPEECH)):
            span = EMBEDDED.range_of(modality)
            codes = xt[row][(seen & ~is_end)[row]]
            assert bool(((codes >= span.start) & (codes < span.stop)).all())


def test_visible_codes_count_only_where_the_row_was_chosen_for_correction(model):
    batch = stack(rows(), pad_id=EMBEDDED["pad"])
    without = Objective(EMBEDDED, PLAIN)(model, batch, generator=generator()).total
    corrected = Objective(EMBEDDED, ObjectiveConfig(correction_prob=1.0))(model, batch, generator=generator()).total
    assert not torch.allclose(without, corrected)


def test_balance_one_lets_all_rows_weigh_alike(model):
    """Where everything is hidden, each row's weights sum to one, however many targets it has."""
    objective = Objective(EMBEDDED, ObjectiveConfig(correction_prob=0.0, filler_weight=1.0, balance=1.0))
    batch = stack(rows(), pad_id=EMBEDDED["pad"])
    nothing = torch.zeros_like(batch.is_target)
    weights, _ = objective._weights(batch, batch.is_target, nothing, objective._filler(batch), torch.ones(3))
    assert torch.allclose(weights.sum(dim=1), torch.ones(3))


def test_rows_of_padding_add_nothing(model):
    objective = Objective(EMBEDDED, PLAIN)
    objective._corrupt = lambda batch, generator: (
        torch.where(batch.is_target, EMBEDDED["mask"], batch.ids),
        batch.is_target,
        torch.zeros_like(batch.is_target),
        torch.ones(len(batch.ids)),
    )
    plain = objective(model, stack(rows(), pad_id=EMBEDDED["pad"]), generator=generator())
    padded = objective(model, stack(rows(), pad_id=EMBEDDED["pad"], num_columns=80, num_rows=6), generator=generator())
    assert torch.allclose(plain.total, padded.total, rtol=1e-5)
    assert plain.weight == pytest.approx(padded.weight)
    assert plain.tallies.keys() == padded.tallies.keys() == {"t2i", "i2t", "t2s"}
