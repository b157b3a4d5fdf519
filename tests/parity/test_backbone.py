"""The backbone equals the published one: logits on recorded inputs, names and sizes of the 8B model."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_weights import backbone_cards, config_of, golden_model, golden_tensors
from torch.testing import assert_close

from dynin.model import transformer
from dynin.model.config import PUBLISHED_8B
from dynin.model.convert import expected_shapes, from_published, published_names, to_published

CARDS = backbone_cards()
pytestmark = pytest.mark.parametrize("card", CARDS, ids=[path.stem for path in CARDS])


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def arrays(card: Path) -> dict[str, torch.Tensor]:
    with np.load(card.with_suffix(".npz")) as stored:
        return {name: torch.from_numpy(stored[name]) for name in stored.files}


def assert_near(got, expected, tolerance=1e-4):
    assert_close(got.float(), expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))


def test_logits_equal_the_published_ones(card):
    golden = arrays(card)
    assert_near(golden_model(card)(golden["ids"]), golden["logits"])


def test_logits_of_a_row_padded_on_the_left_equal_the_published_ones(card):
    golden = arrays(card)
    attend = golden["attention_mask"].bool()
    logits = golden_model(card)(golden["ids"], attend)
    assert_near(logits[1][attend[1]][None], golden["logits_padded_rows"])


def test_a_padding_mask_stays_bidirectional(card):
    golden = arrays(card)
    model, attend = golden_model(card), golden["attention_mask"].bool()
    other = golden["ids"].clone()
    other[:, -1] = (other[:, -1] + 1) % 900
    first_real = int(attend[1].int().argmax())
    before, after = (model(ids, attend)[1, first_real] for ids in (golden["ids"], other))
    assert (before - after).abs().max() > 1e-3


def test_the_interleaved_rotation_gives_other_logits(card, monkeypatch):
    def interleaved(x, table):
        cos, sin = table[:, :, None, :]
        a, b = x[..., 0::2], x[..., 1::2]
        return torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2)

    golden = arrays(card)
    monkeypatch.setattr(transformer, "rotate", interleaved)
    assert (golden_model(card)(golden["ids"]) - golden["logits"]).abs().max() > 0.1


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.1), (torch.float16, 0.02)])
def test_half_precision_stays_finite_and_close(card, dtype, tolerance):
    golden = arrays(card)
    logits = golden_model(card).to(dtype)(golden["ids"], golden["attention_mask"].bool())
    assert logits.dtype == dtype
    assert logits.isfinite().all()
    assert (logits[0].float() - golden["logits"][0]).abs().max() < tolerance * golden["logits"].abs().max()


def test_converting_there_and_back_is_the_identity(card):
    values = json.loads(card.read_text())
    tensors, config = golden_tensors(values), config_of(values)
    back = to_published(from_published(tensors, config), config)
    assert back.keys() == tensors.keys()
    assert all(back[name] is tensors[name] for name in tensors)


def test_the_8b_model_has_the_published_names_and_size(card):
    names, shapes = published_names(PUBLISHED_8B), expected_shapes(PUBLISHED_8B)
    assert sorted(names.values()) == sorted(shapes)
    assert len(names) == 291
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == 8_116_244_480
    assert shapes[names["model.transformer.ff_out.weight"]] == (138_752, 4096)
    assert shapes[names["model.transformer.wte.weight"]] == (138_752, 4096)
    assert shapes[names["model.transformer.blocks.31.ff_out.weight"]] == (4096, 12_288)
    assert shapes[names["model.transformer.blocks.31.ff_proj.weight"]] == (12_288, 4096)
    assert set(json.loads(card.read_text())["tensors"]) <= set(names)
