"""A run put together: it starts from a model folder alone, and what it exports is a model."""

import pytest
import torch

from dynin.errors import CheckpointError
from dynin.model.config import EMBEDDED as EMBEDDED_MODEL
from dynin.model.transformer import Transformer, initialise
from dynin.pipeline.dynin import Dynin
from dynin.pipeline.folder import load, save
from dynin.testing import tiny
from dynin.training import embedded
from dynin.training.config import TrainConfig
from dynin.vocabulary import EMBEDDED


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A model of the embedded sizes with tiny tokenizers."""
    folder = tmp_path_factory.mktemp("start") / "model"
    network = Transformer(EMBEDDED_MODEL)
    initialise(network, torch.Generator().manual_seed(0))
    save(folder, Dynin.assemble(network, tiny().tokenizers, EMBEDDED))
    return folder


def settings(start, output) -> TrainConfig:
    return TrainConfig(
        name="run", steps=2, tasks={"t2i": 1.0}, rows_per_step=2, tokens_per_batch=80, init=str(start), output=output
    )


def test_a_run_starts_from_a_model_folder_and_exports_one_with_its_tokenizers(start, tmp_path):
    config = settings(start, tmp_path)
    model, average = embedded.run(config, device=torch.device("cpu"), report=lambda figures: None)
    before = load(start)
    moved = [(value - before.model.state_dict()[name]).abs().max() for name, value in model.state_dict().items()]
    assert 0 < max(moved) < 0.1
    embedded.export(config, tmp_path / "model", {"data": "test"})
    after = load(tmp_path / "model")
    assert after.tokenizers.fingerprints() == before.tokenizers.fingerprints()
    for name, value in after.model.state_dict().items():
        assert torch.allclose(value, average.tensors[name], atol=1e-2), name


def test_a_start_that_is_no_model_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="none"):
        embedded.run(settings(tmp_path / "none", tmp_path), device=torch.device("cpu"), report=lambda figures: None)


def test_exporting_a_run_that_saved_nothing_says_so(start, tmp_path):
    with pytest.raises(CheckpointError, match="cannot read the weights"):
        embedded.export(settings(start, tmp_path), tmp_path / "model", {})
