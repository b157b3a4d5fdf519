"""Remembered keys and values: exact with a refresh at every pass, and otherwise what a slow account of it says."""

import pytest
import torch
from torch import Tensor

from dynin.decoding.refresh import Refresh
from dynin.errors import ConfigError, RequestError
from dynin.model.cached import CachedDenoiser, CachedRow, cache_bytes
from dynin.model.config import ModelConfig
from dynin.model.transformer import Transformer, initialise
from dynin.nn.attention import attention
from dynin.nn.rope import rotate, table_at
from dynin.pipeline.denoiser import TransformerDenoiser

CONFIG = ModelConfig(d_model=32, num_heads=4, num_kv_heads=2, num_layers=3, mlp_dim=48, num_rows=40, max_len=128)
MASK = 39
ALLOWED = torch.arange(5, 30)


@pytest.fixture(scope="module")
def model() -> Transformer:
    network = Transformer(CONFIG)
    initialise(network, torch.Generator().manual_seed(0))
    for parameter in network.parameters():
        if parameter.ndim > 1:
            parameter.data *= 6  # far from the linear regime, so that a stale key is seen in the logits
    return network.eval().requires_grad_(False)


def canvas(batch: int = 3, length: int = 20, num_hidden: int = 8) -> Tensor:
    ids = torch.randint(5, 30, (batch, length), generator=torch.Generator().manual_seed(1))
    ids[:, length - num_hidden - 2 : length - 2] = MASK
    return ids


def hidden(ids: Tensor) -> Tensor:
    return (ids == MASK).flatten().nonzero().squeeze(1)


def notes(
    ids: Tensor, refresh: Refresh, *, begins: bool = False, names: tuple = ("a", "b", "c", "d")
) -> list[CachedRow]:
    return [CachedRow(key=names[row], refresh=refresh, begins_block=begins) for row in range(len(ids))]


def reveal(ids: Tensor, logits: Tensor, count: int) -> Tensor:
    """Write the best id at the first hidden places of each row."""
    ids = ids.clone()
    rows = hidden(ids)
    best = ALLOWED[logits.argmax(dim=1)]
    for row in range(len(ids)):
        mine = rows // ids.shape[1] == row
        ids.view(-1)[rows[mine][:count]] = best[mine][:count]
    return ids


def slow(model: Transformer, ids: Tensor, before: Tensor, kept: list[tuple[Tensor, Tensor]], active: Tensor):
    """One row, one pass, by the definition: active columns anew, the rest as in `kept`; also what is kept after it."""
    x, table = model.embed(ids[active])[None], table_at(active[None], CONFIG.head_dim, CONFIG.rope_theta)
    after = []
    for block, (old_key, old_value) in zip(model.blocks, kept, strict=True):
        normed, part = block.attention_norm(x), block.attention
        query, key, value = (
            layer(normed).unflatten(-1, (-1, CONFIG.head_dim)) for layer in (part.query, part.key, part.value)
        )
        new_key, new_value = old_key.clone(), old_value.clone()
        new_key[0, active], new_value[0, active] = rotate(key, table)[0], value[0]
        x = x + part.output(attention(rotate(query, table), new_key, new_value, None).flatten(-2))
        x = x + block.mlp(block.mlp_norm(x))
        after.append((new_key, new_value))
    return model.norm(x)[0], after


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("is_padded", [False, True])
def test_with_a_refresh_at_every_pass_the_numbers_are_those_of_the_plain_network(model, dtype, is_padded) -> None:
    network = Transformer(CONFIG)
    network.load_state_dict(model.state_dict())
    network = network.to(dtype).requires_grad_(False)
    cached, ids = CachedDenoiser(network), canvas()
    attend = torch.arange(20) >= torch.tensor([[0], [3], [1]]) if is_padded else None
    for _ in range(4):
        rows = hidden(ids)
        expected = network.head(network.hidden(ids, attend).flatten(0, 1)[rows], ALLOWED).float()
        assert torch.equal(cached(ids, attend, rows, ALLOWED, notes(ids, Refresh(every=1))), expected)
        ids = reveal(ids, expected, 2)
    assert cached.num_columns == 4 * ids.numel()


def test_packed_full_passes_compute_no_padding_and_say_the_same(model) -> None:
    ids, packed = canvas(), CachedDenoiser(model, packs=True)
    attend = torch.arange(20) >= torch.tensor([[0], [3], [9]])
    for _ in range(3):
        expected = TransformerDenoiser(model)(ids, attend, hidden(ids), ALLOWED)
        logits = packed(ids, attend, hidden(ids), ALLOWED, notes(ids, Refresh(every=1)))
        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
        ids = reveal(ids, expected, 2)
    assert packed.num_columns == 3 * int(attend.sum())


def test_without_notes_nothing_is_remembered(model) -> None:
    ids, cached = canvas(), CachedDenoiser(model)
    expected = model.head(model.hidden(ids).flatten(0, 1)[hidden(ids)])
    assert torch.equal(cached(ids, None, hidden(ids), None), expected)
    assert cached.num_bytes == 0


def test_a_pass_computes_hidden_and_changed_places_against_what_is_remembered(model) -> None:
    ids = canvas(batch=1)
    cached = CachedDenoiser(model)
    rule = Refresh()
    logits = cached(ids, None, hidden(ids), ALLOWED, notes(ids, rule))
    empty = [(torch.zeros(1, 20, 2, 8), torch.zeros(1, 20, 2, 8))] * CONFIG.num_layers
    _, kept = slow(model, ids[0], ids[0], empty, torch.arange(20))
    for _ in range(3):
        before, ids = ids, reveal(ids, logits, 2)
        active = ((ids == MASK) | (ids != before))[0].nonzero().squeeze(1)
        num_before = cached.num_columns
        logits = cached(ids, None, hidden(ids), ALLOWED, notes(ids, rule))
        states, kept = slow(model, ids[0], before[0], kept, active)
        expected = model.head(states[ids[0, active] == MASK], ALLOWED)
        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
        assert cached.num_columns - num_before == len(active)
    plain = TransformerDenoiser(model)(ids, None, hidden(ids), ALLOWED)
    assert (logits - plain).abs().max() > 1e-3  # what is remembered has gone stale, or the test says nothing


@pytest.mark.parametrize("rule", [Refresh(vicinity=20), Refresh(vicinity=32)])
def test_a_vicinity_as_wide_as_the_row_leaves_nothing_stale(model, rule) -> None:
    ids, cached, plain = canvas(), CachedDenoiser(model), TransformerDenoiser(model)
    for _ in range(3):
        logits = cached(ids, None, hidden(ids), ALLOWED, notes(ids, rule))
        torch.testing.assert_close(logits, plain(ids, None, hidden(ids), ALLOWED), atol=1e-4, rtol=1e-4)
        ids = reveal(ids, logits, 2)


@pytest.mark.parametrize(
    "rule",
    [Refresh(), Refresh(every=2), Refresh(drift=0.5), Refresh(vicinity=2)],
    ids=["none", "every", "drift", "near"],
)
def test_a_row_gets_the_same_alone_as_beside_rows_that_shrink_and_differ_in_pace(model, rule) -> None:
    together, ids = CachedDenoiser(model), canvas()
    names = ["a", "b", "c"]
    alone = {name: CachedDenoiser(model) for name in names}
    attend = torch.arange(20) >= torch.tensor([[0], [3], [1]])
    for step in range(4):
        if step == 2:
            ids, attend, names = ids[[0, 2]], attend[[0, 2]], ["a", "c"]
        logits = together(ids, attend, hidden(ids), ALLOWED, notes(ids, rule, names=tuple(names)))
        owner = hidden(ids) // 20
        for row, name in enumerate(names):
            one = slice(row, row + 1)
            own = alone[name](ids[one], attend[one], hidden(ids[one]), ALLOWED, notes(ids[one], rule, names=(name,)))
            torch.testing.assert_close(logits[owner == row], own, atol=1e-4, rtol=1e-4)
        ids = torch.cat([reveal(ids[row : row + 1], logits[owner == row], 1 + row) for row in range(len(names))])


def test_a_canvas_that_grows_keeps_what_stands_and_computes_what_moved(model) -> None:
    ids, cached = canvas(batch=1), CachedDenoiser(model)
    rule = Refresh()
    logits = cached(ids, None, hidden(ids), ALLOWED, notes(ids, rule))
    ids = reveal(ids, logits, 8)
    grown = torch.cat([ids[:, :18], torch.full((1, 60), MASK), ids[:, 18:]], dim=1)
    before = cached.num_columns
    cached(grown, None, hidden(grown), ALLOWED, notes(grown, rule))
    assert cached.num_columns - before == 8 + 60 + 2  # just committed, new, moved
    full = Refresh(per_block=True)
    exact = cached(grown, None, hidden(grown), ALLOWED, notes(grown, full, begins=True))
    assert torch.equal(exact, model.head(model.hidden(grown).flatten(0, 1)[hidden(grown)], ALLOWED))


def test_rows_that_nothing_is_asked_of_cost_nothing(model) -> None:
    ids, cached = canvas(batch=2), CachedDenoiser(model)
    cached(ids, None, hidden(ids), ALLOWED, notes(ids, Refresh()))
    ids[1, 10:18] = 7
    before = cached.num_columns
    cached(ids, None, hidden(ids), ALLOWED, notes(ids, Refresh()))
    assert cached.num_columns - before == 8


def test_branches_of_guidance_that_rest_for_a_pass_catch_up(model) -> None:
    ids = canvas(batch=1)
    other = ids.clone()
    other[:, :5] = 6
    both, rule = CachedDenoiser(model), Refresh()
    names = ("conditional", "unconditional")
    alone = CachedDenoiser(model)
    for step in range(3):
        pair = torch.cat([ids, other]) if step != 1 else ids
        logits = both(pair, None, hidden(pair), ALLOWED, notes(pair, rule, names=names))
        own = alone(ids, None, hidden(ids), ALLOWED, notes(ids, rule, names=names))
        torch.testing.assert_close(logits[: len(own)], own, atol=1e-4, rtol=1e-4)
        ids = reveal(ids, own, 2)
        other[:, 5:] = ids[:, 5:]


def test_drift_leads_to_a_full_pass(model) -> None:
    counts = []
    for rule in (Refresh(), Refresh(drift=1e-6)):
        ids, cached = canvas(batch=1), CachedDenoiser(model)
        for _ in range(4):
            ids = reveal(ids, cached(ids, None, hidden(ids), ALLOWED, notes(ids, rule)), 2)
        counts.append(cached.num_columns)
    assert counts[0] == 20 + 8 + 6 + 4
    assert counts[1] == 20 + 8 + 20 + 4  # the second pass notes that places moved, the third is full


def test_memory_is_as_said_and_given_back(model) -> None:
    ids, cached = canvas(), CachedDenoiser(model)
    cached(ids, None, hidden(ids), ALLOWED, notes(ids, Refresh()))
    assert cached.num_bytes == cache_bytes(CONFIG, 3, 20, torch.float32) == 3 * 64 * 2 * 3 * 2 * 8 * 4
    cached.forget(["a"])
    assert cached.num_bytes == cache_bytes(CONFIG, 2, 20, torch.float32)
    cached.forget()
    assert cached.num_bytes == 0


def test_a_memory_that_is_too_small_is_refused_with_both_numbers(model) -> None:
    ids, cached = canvas(), CachedDenoiser(model, max_bytes=1000)
    with pytest.raises(RequestError, match=r"take 73728 bytes .* may take 1000"):
        cached(ids, None, hidden(ids), ALLOWED, notes(ids, Refresh()))


def test_two_rows_of_one_name_are_refused(model) -> None:
    ids = canvas(batch=2)
    with pytest.raises(ValueError, match="a key of its own"):
        CachedDenoiser(model)(ids, None, hidden(ids), ALLOWED, notes(ids, Refresh(), names=("a", "a")))


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"every": 0}, "every is 0"),
        ({"drift": 0.0}, "drift is 0.0"),
        ({"drift": float("nan")}, "drift is nan"),
        ({"vicinity": -1}, "vicinity is -1"),
        ({"every": 1, "vicinity": 3}, "every 1 .* vicinity 3"),
    ],
)
def test_rules_that_cannot_be_are_refused(wrong, named) -> None:
    with pytest.raises(ConfigError, match=named):
        Refresh(**wrong)
