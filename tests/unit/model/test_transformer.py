"""The network: shapes, padding, the head on chosen rows, initialisation, config and names."""

import dataclasses

import pytest
import torch
from torch.testing import assert_close

from dynin.errors import CheckpointError, ConfigError
from dynin.model.config import EMBEDDED, ModelConfig
from dynin.model.convert import from_published, published_names, to_published
from dynin.model.transformer import Transformer, initialise
from dynin.vocabulary import embedded

VOCABULARY = embedded(text_size=20, image_codes=8, speech_codes=8)
TINY = ModelConfig(
    d_model=32, num_heads=4, num_kv_heads=2, num_layers=2, mlp_dim=48, num_rows=VOCABULARY.size, max_len=64
)


@pytest.fixture
def model() -> Transformer:
    model = Transformer(TINY)
    initialise(model, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(8)
    return model.eval()


def ids_of(*shape: int) -> torch.Tensor:
    return torch.randint(0, TINY.num_rows, shape, generator=torch.Generator().manual_seed(1))


def test_left_padding_changes_nothing(model):
    ids, pad = ids_of(1, 12), ids_of(1, 5)
    attend = torch.arange(17)[None] >= 5
    assert_close(model(torch.cat((pad, ids), dim=1), attend)[:, 5:], model(ids), rtol=1e-4, atol=1e-5)


def test_a_row_answers_alone_as_in_a_batch(model):
    ids = ids_of(3, 9)
    assert_close(model(ids)[1:2], model(ids[1:2]), rtol=1e-5, atol=1e-5)


def test_every_position_sees_every_other(model):
    ids = ids_of(1, 8)
    for changed, seen in ((0, 7), (7, 0)):
        other = ids.clone()
        other[0, changed] = (other[0, changed] + 1) % TINY.num_rows
        assert not torch.allclose(model(ids)[0, seen], model(other)[0, seen], atol=1e-4)


def test_the_head_gives_the_same_logits_for_chosen_rows_and_ids(model):
    ids, allowed = ids_of(2, 9), torch.tensor([5, 3, 40])
    is_chosen = torch.rand(2, 9, generator=torch.Generator().manual_seed(2)) < 0.5
    logits = model.head(model.hidden(ids)[is_chosen], allowed)
    assert_close(logits, model(ids)[is_chosen][:, allowed], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_row_of_padding_only_stays_finite_in_every_dtype(model, dtype):
    attend = torch.tensor([[True] * 6, [False] * 6])
    logits = model.to(dtype)(ids_of(2, 6), attend)
    assert logits.dtype == dtype
    assert logits.isfinite().all()


def test_sequences_longer_than_the_training_length_run(model):
    assert model.hidden(ids_of(1, 3 * TINY.max_len)).isfinite().all()


def test_gradients_reach_every_parameter(model):
    model.head(model.hidden(ids_of(2, 6))[:, 2], torch.arange(10)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


def test_the_model_trains_after_it_was_run_in_inference_mode(model):
    with torch.inference_mode():
        model(ids_of(1, 6))
    model(ids_of(1, 6)).sum().backward()


def test_initialisation_follows_its_table_and_its_generator():
    first, second = Transformer(TINY), Transformer(TINY)
    state = torch.get_rng_state()
    for model in (first, second):
        initialise(model, torch.Generator().manual_seed(3))
    assert torch.equal(state, torch.get_rng_state())
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])
        if value.ndim == 1:
            assert torch.equal(value, torch.ones_like(value))
        else:
            expected = 0.01 if name.endswith(("attention.output.weight", "mlp.down.weight")) else 0.02
            assert 0.85 * expected < value.std() < 1.15 * expected, name


def test_the_embedded_model_is_small_enough():
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in Transformer(EMBEDDED).parameters()) < 12_000_000


def test_configs_come_back_from_plain_values():
    assert ModelConfig.from_dict(EMBEDDED.to_dict()) == EMBEDDED


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": 5}, "even multiple of num_heads"),
        ({"num_heads": 32}, "even multiple of num_heads"),
        ({"num_kv_heads": 3}, "num_kv_heads 3 does not divide num_heads 4"),
        ({"num_layers": 0}, "'num_layers' is 0; it must be positive"),
        ({"norm_eps": float("nan")}, "'norm_eps' is nan; it must be positive"),
    ],
)
def test_widths_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(TINY, **changes)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"d_model": 8}, "lacks .*'mlp_dim'"),
        ({**TINY.to_dict(), "vocab_size": 7}, r"unknown \['vocab_size'\]"),
        ({**TINY.to_dict(), "d_model": "32"}, "'d_model' is '32'; expected an integer"),
        ({**TINY.to_dict(), "rope_theta": None}, "'rope_theta' is None; expected a number"),
    ],
)
def test_stored_configs_are_checked(values, message):
    with pytest.raises(ConfigError, match=message):
        ModelConfig.from_dict(values)


def test_published_weights_are_checked_by_name_and_shape(model):
    tensors = to_published(model.state_dict(), TINY)
    assert from_published({**tensors, "video_token_merger.fc1.bias": torch.zeros(3)}, TINY).keys() == (
        model.state_dict().keys()
    )
    wrong = {**tensors, "model.transformer.ln_f.weight": torch.ones(31), "model.transformer.extra": torch.ones(1)}
    del wrong["model.transformer.wte.weight"]
    with pytest.raises(
        CheckpointError,
        match=r"missing: model\.transformer\.wte\.weight; unknown: model\.transformer\.extra; "
        r"wrong shapes: model\.transformer\.ln_f\.weight is \(31,\), expected \(32,\)",
    ):
        from_published(wrong, TINY)
    assert published_names(TINY)["model.transformer.blocks.1.ff_out.weight"] == "blocks.1.mlp.down.weight"
