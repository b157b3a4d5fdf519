"""Every loss compared with a plain loop over the formula that it stands for."""

from dataclasses import replace

import pytest
import torch

from dynin.diffusion.loss import PIECE_BYTES, Support, cross_entropy, piece_places
from dynin.errors import ConfigError, VocabularyError
from dynin.sequence.batch import stack
from dynin.training.objective import FLOOR, Objective, ObjectiveConfig
from dynin.training.rules import PublishedQuirks
from dynin.types import Modality
from dynin.vocabulary import EMBEDDED
from tests.unit.training.test_objective import generator, rows

TEXT, IMAGE, SPEECH = Modality.TEXT, Modality.IMAGE, Modality.SPEECH
KINDS = {"t2i": IMAGE, "i2t": TEXT, "v2t": TEXT, "t2t": TEXT, "t2s": SPEECH}


def batch_of(*tasks):
    """Rows of the named tasks, some twice."""
    made = dict(zip(("t2i", "i2t", "t2s"), rows(), strict=True))
    chosen = []
    for task in tasks:
        row = made.get(task, made["i2t"])
        chosen.append(replace(row, task=replace(row.task, name=task)))
    return stack(chosen, pad_id=EMBEDDED["pad"])


def rivals(task, quirks):
    """The ids that compete, spelled out."""
    eos, eoa = EMBEDDED["eos"], EMBEDDED["eoa"]
    if KINDS[task] == IMAGE:
        return EMBEDDED.allowed_ids(IMAGE)
    if KINDS[task] == SPEECH:
        last = EMBEDDED.size if quirks.spare_speech_rows else EMBEDDED.speech.stop
        return torch.tensor(sorted({eos, eoa, *range(EMBEDDED.speech.start, last)}))
    is_all = task in ("i2t", "v2t") and quirks.full_softmax
    return torch.arange(EMBEDDED.size if is_all else EMBEDDED.image.start)


def plain(model, batch, objective, quirks):
    """The published losses, place by place."""
    xt, is_hidden, _, prob = objective._corrupt(batch, generator())
    logits = model(xt, batch.attend)
    sums, counts = {}, {}
    for row, task in enumerate(batch.tasks):
        allowed = rivals(task, quirks)
        targets = int(batch.is_target[row].sum())
        ended, filler = False, 0
        for column in range(batch.ids.shape[1]):
            is_end = bool(batch.is_target[row, column]) and int(batch.ids[row, column]) in (
                EMBEDDED["eos"],
                EMBEDDED["eoa"],
            )
            filler += ended and is_end and int(batch.ids[row, column]) == EMBEDDED["eos"]
            ended |= is_end
        length = targets - filler if task == "v2t" and not quirks.video_filler else targets
        p, ended = max(float(prob[row]), 1e-4), False
        for column in range(batch.ids.shape[1]):
            token = int(batch.ids[row, column])
            is_target = bool(batch.is_target[row, column])
            is_filler = is_target and ended and token == EMBEDDED["eos"]
            ended |= is_target and token in (EMBEDDED["eos"], EMBEDDED["eoa"])
            if not is_hidden[row, column]:
                continue
            lost = -torch.log_softmax(logits[row, column][allowed], 0)[(allowed == token).nonzero()[0, 0]]
            if task == "t2i":
                sums[task] = sums.get(task, 0) + lost
                counts[task] = counts.get(task, 0) + 1
            elif task == "t2t" and quirks.double_weight:
                sums[task] = sums.get(task, 0) + lost / p
                counts[task] = counts.get(task, 0) + 1
            elif not (task == "v2t" and is_filler):
                sums[task] = sums.get(task, 0) + lost / (p * length)
        if task != "t2i" and not (task == "t2t" and quirks.double_weight):
            counts[task] = counts.get(task, 0) + 1
    return sum(objective.config.coefficients.get(task, 1.0) * sums[task] / counts[task] for task in sums)


@pytest.mark.parametrize("quirks", [PublishedQuirks(), PublishedQuirks(
    double_weight=False, full_softmax=False, video_filler=False, spare_speech_rows=False
)])  # fmt: skip
def test_the_published_losses_equal_their_formulas(model, quirks):
    objective = Objective(
        EMBEDDED, ObjectiveConfig(recipe="published", quirks=quirks, coefficients={"t2i": 0.3, "v2t": 0.6})
    )
    batch = batch_of("t2i", "t2i", "i2t", "v2t", "v2t", "t2t", "t2s")
    hidden = objective.hide(batch, generator=generator())
    loss = objective.loss(model, hidden, hidden.divisors)
    expected = plain(model, batch, objective, quirks)
    assert torch.allclose(loss.total, expected, rtol=1e-5)
    loss.total.backward()
    got = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    expected.backward()
    for name, parameter in model.named_parameters():
        assert torch.allclose(got[name], parameter.grad, atol=1e-6), name


def test_text_is_hidden_by_chance_and_pictures_by_count():
    objective = Objective(EMBEDDED, ObjectiveConfig(recipe="published"))
    batch = batch_of("t2i", "t2t")
    shares = []
    for seed in range(400):
        _, is_hidden, is_visible, prob = objective._corrupt(batch, generator(seed))
        assert not is_visible.any()
        assert FLOOR <= prob[1] < 1
        shares.append((is_hidden[1].sum() / batch.is_target[1].sum()).item())
    mean = sum(shares) / len(shares)
    assert mean == pytest.approx(0.5, abs=0.05)


def test_the_bound_of_llada_stands_beside_our_pictures(model):
    objective = Objective(EMBEDDED, ObjectiveConfig(reduction="answer", correction_prob=0.0, filler_weight=0.0))
    assert objective.config.rule("t2t", TEXT).reduction == "answer"
    assert objective.config.rule("t2i", IMAGE).reduction == "positions"
    batch = batch_of("i2t", "i2t")
    hidden = objective.hide(batch, generator=generator())
    assert dict(hidden.divisors) == {"i2t": 2.0}
    answer = int(((batch.ids[0] != EMBEDDED["eos"]) & batch.is_target[0]).sum()) + 1
    _, is_hidden, _, prob = objective._corrupt(batch, generator())
    first = hidden.weights[0][is_hidden[0] & (batch.ids[0] != EMBEDDED["eos"])]
    assert torch.allclose(first, 1 / (prob[0] * answer))


@pytest.mark.parametrize("piece_bytes", [1, 4000, 10**9])
def test_pieces_do_not_change_loss_or_gradients(piece_bytes):
    draw = torch.Generator().manual_seed(0)
    support = Support.of(torch.tensor([2, 3, 4, 5, 9, 10]))
    hidden = torch.randn(40, 8, generator=draw, requires_grad=True)
    table = torch.randn(12, 8, generator=draw, requires_grad=True)
    ids = torch.tensor([2, 3, 4, 5, 9, 10])[torch.randint(6, (40,), generator=draw)]
    weights = torch.rand(40, generator=draw)
    total, losses, right = cross_entropy(hidden, table, ids, weights, support, piece_bytes)
    (2 * total).backward()
    got = (hidden.grad.clone(), table.grad.clone())
    hidden.grad = table.grad = None
    logits = hidden @ torch.cat([table[2:6], table[9:11]]).T
    naive = torch.nn.functional.cross_entropy(logits, support.places(ids), reduction="none")
    (2 * (naive * weights).sum()).backward()
    assert torch.allclose(losses, naive, atol=1e-6)
    assert torch.equal(right, logits.argmax(1) == support.places(ids))
    assert torch.allclose(got[0], hidden.grad, atol=1e-5)
    assert torch.allclose(got[1], table.grad, atol=1e-5)


def test_logits_of_all_places_never_exist_at_once():
    """A table of 20,000 rows and 2,000 places: 160 MB of logits, of which 1 MB is held."""
    table, hidden = torch.randn(20_000, 4, requires_grad=True), torch.randn(2_000, 4, requires_grad=True)
    sizes = []

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            made = function(*args, **(kwargs or {}))
            sizes.extend(
                value.numel() for value in (made if isinstance(made, tuple) else (made,)) if hasattr(value, "numel")
            )
            return made

    with Sizes():
        cross_entropy(hidden, table, torch.zeros(2_000, dtype=torch.long), torch.ones(2_000),
                      Support.of(torch.arange(20_000)), 1_000_000)[0].backward()  # fmt: skip
    assert max(sizes) < 300_000


def test_a_target_outside_its_support_is_told():
    with pytest.raises(VocabularyError, match="target id 7 is not among the 3 ids"):
        Support.of(torch.tensor([1, 2, 3])).places(torch.tensor([1, 7]))
    with pytest.raises(VocabularyError, match="9 runs"):
        Support.of(torch.arange(0, 18, 2))


def test_pieces_grow_with_a_large_table_that_learns():
    assert piece_places(1_000, 256) == PIECE_BYTES // 4_000
    assert piece_places(126_080, 2048) == 1024
    assert piece_places(126_080) == PIECE_BYTES // (4 * 126_080)
    assert piece_places(10**9) == 1


def test_targets_that_were_checked_are_not_looked_at_again():
    support, ids = Support.of(torch.tensor([1, 2, 3, 9])), torch.tensor([9, 1, 3])
    assert support.places(ids, is_checked=True).tolist() == support.places(ids).tolist() == [3, 0, 2]
    read = []

    class Reads(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            read.append(str(function))
            return function(*args, **(kwargs or {}))

    hidden, table = torch.randn(3, 4, requires_grad=True), torch.randn(10, 4, requires_grad=True)
    with Reads():
        cross_entropy(hidden, table, ids, torch.ones(3), support, is_checked=True)[0].backward()
    assert not any("local_scalar" in name or "nonzero" in name for name in read)


def test_a_negative_coefficient_is_told():
    with pytest.raises(ConfigError, match="objective.coefficients"):
        ObjectiveConfig(coefficients={"t2i": -1.0})
