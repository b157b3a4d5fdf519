"""Matrices in tiles: the same numbers, tiles kept from one decoding to the next, and what is refused."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from dynin import testing
from dynin.errors import CheckpointError, RequestError
from dynin.model.arranged import arranged, is_arranged
from dynin.model.config import ModelConfig
from dynin.model.output import OutputRows
from dynin.model.transformer import Transformer, initialise
from dynin.nn.arranged import ArrangedLinear, can_arrange
from dynin.pipeline.folder import save

needs_tiles = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")
CONFIG = ModelConfig(d_model=64, num_heads=2, num_kv_heads=1, num_layers=2, mlp_dim=96, num_rows=300, max_len=64)
DTYPES = (torch.float32, torch.bfloat16)


def network(dtype: torch.dtype = torch.float32) -> Transformer:
    model = Transformer(CONFIG)
    initialise(model, torch.Generator().manual_seed(0))
    return model.to(dtype).eval().requires_grad_(False)


def states(number: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(number, CONFIG.d_model, generator=torch.Generator().manual_seed(1)).to(dtype)


@needs_tiles
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_pytorch_with_onednn_has_the_products(dtype: torch.dtype) -> None:
    assert can_arrange(torch.zeros(2, 2, dtype=dtype))


@needs_tiles
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1,), (3, 5), (2, 3, 4), (0,), (2, 0)])
def test_a_product_in_tiles_is_the_product(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    layer = nn.Linear(64, 48, bias=False).to(dtype).requires_grad_(False)
    x = torch.randn(*shape, 64, generator=torch.Generator().manual_seed(2)).to(dtype)
    found = ArrangedLinear(layer.weight)(x)
    assert found.shape == (*shape, 48)
    assert found.dtype == dtype
    assert_close(found, layer(x))


@needs_tiles
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_network_in_tiles_computes_the_same(dtype: torch.dtype) -> None:
    model = network(dtype)
    copy = arranged(model)
    ids = torch.randint(0, 300, (2, 9), generator=torch.Generator().manual_seed(3))
    assert_close(copy(ids), model(ids))
    assert copy.embed.weight.data_ptr() == model.embed.weight.data_ptr()
    assert is_arranged(copy)
    assert not is_arranged(model)
    assert not copy.training
    assert arranged(copy) is copy


@needs_tiles
@pytest.mark.parametrize("dtype", DTYPES)
def test_logits_over_a_list_are_those_of_the_head(dtype: torch.dtype) -> None:
    model = network(dtype)
    rows = OutputRows.of(arranged(model).output)
    for ids in (torch.arange(7, 200), torch.tensor([5]), torch.arange(250, 0, -7), None):
        for number in (1, 6, 20):
            hidden = states(number, dtype)
            assert_close(rows.logits(hidden, ids), model.head(hidden, ids))


@needs_tiles
def test_tiles_are_made_once_for_the_same_ids_whichever_list_names_them() -> None:
    rows = OutputRows.of(arranged(network()).output)
    assert rows.tile_bytes == 0
    rows.logits(states(2), torch.arange(10, 110))
    kept = rows.tile_bytes
    rows.logits(states(2), torch.arange(10, 110))
    assert rows.tile_bytes == kept > 0


@needs_tiles
def test_tiles_take_no_more_than_the_table_once_more() -> None:
    rows = OutputRows.of(arranged(network()).output)
    for start in (0, 100, 200, 50, 0):
        rows.logits(states(2), torch.arange(start, start + 100))
        assert sum(tiles.num_bytes for tiles in rows._tiles.values()) <= 300 * 64 * 4
    rows.logits(states(2), None)
    assert len(rows._tiles) == 1


@needs_tiles
def test_denoisers_of_one_network_share_its_tiles() -> None:
    model = network()
    copy = arranged(model)
    assert OutputRows.of(copy.output) is OutputRows.of(copy.output)
    assert OutputRows.of(model.output) is not OutputRows.of(model.output)


def test_without_the_products_nothing_is_laid_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynin.nn.arranged._PRODUCTS", ("_no_such_product",))
    assert not can_arrange(torch.zeros(2, 2))
    with pytest.raises(RequestError, match="in a PyTorch with oneDNN"):
        arranged(network())


def test_what_cannot_be_laid_out_is_named() -> None:
    assert not can_arrange(torch.zeros(2, 2, dtype=torch.float64))
    assert not can_arrange(torch.zeros(2, 2, device="meta"))
    with pytest.raises(RequestError, match=r"blocks\.0\.attention\.query is a Tensor of float16 on cpu; only plain"):
        arranged(network(torch.float16))


@needs_tiles
def test_a_model_in_tiles_makes_the_same_and_is_not_written(tmp_path) -> None:
    model = testing.tiny()
    with torch.no_grad():  # so that it tells places apart by more than rounding
        for matrix in (part for part in model.model.parameters() if part.ndim == 2):
            matrix.mul_(8.0)
    copy = model.arranged()
    for preset in ("exact", "fast"):
        first = model.generate("a dog", to="image", seed=3, preset=preset)
        other = copy.generate("a dog", to="image", seed=3, preset=preset)
        assert first.image.tobytes() == other.image.tobytes()
    assert model.generate("a dog", to="text").text == copy.generate("a dog", to="text").text
    with pytest.raises(CheckpointError, match="laid out in tiles"):
        save(tmp_path / "model", copy)
    assert not (tmp_path / "model").exists()
