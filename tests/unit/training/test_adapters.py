"""Adapters learn, the network beside them does not, and added in they give the same answers."""

from dataclasses import replace

import pytest
import torch

from dynin.errors import ConfigError
from dynin.pipeline.folder import load
from dynin.training import adapters
from dynin.training import run as runs
from dynin.training.config import LoraConfig, OptimizerConfig, TrainConfig
from tests.unit.training.test_loop import quiet, small_model
from tests.unit.training.test_run import settings, start  # noqa: F401 - a fixture

pytest.importorskip("peft")
CPU = torch.device("cpu")
IDS = torch.arange(24).view(2, 12)


def perturbed(model):
    """The same, with adapters that do something."""
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(1))
    return model


def test_fresh_adapters_change_nothing_and_alone_learn():
    plain, model = small_model(), small_model()
    adapters.add(model, LoraConfig(rank=2), seed=0)
    assert torch.equal(model(IDS), plain(IDS))
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert len(learning) == 14
    assert all(".lora_" in name for name in learning)


def test_adapters_added_in_give_the_same_answers():
    config = LoraConfig(rank=2, alpha=3.0, targets=("query", "down"))
    model = small_model()
    adapters.add(model, config, seed=0)
    perturbed(model)
    learned = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    plain = small_model()
    weights = adapters.merged(plain.state_dict(), learned, config)
    plain.load_state_dict(weights)
    assert not torch.equal(plain(IDS), small_model()(IDS))
    assert torch.allclose(plain(IDS), model(IDS), atol=1e-5)


def test_adapters_folded_in_place_give_the_same_answers():
    model = small_model()
    adapters.fold(model)  # nothing to fold
    adapters.add(model, LoraConfig(rank=2, alpha=3.0), seed=0)
    expected = perturbed(model)(IDS)
    matrix = next(value for name, value in model.named_parameters() if "base_layer.weight" in name).detach().clone()
    adapters.fold(model)
    assert torch.allclose(model(IDS), expected, atol=1e-5)
    assert not torch.equal(next(v for n, v in model.named_parameters() if "base_layer.weight" in n), matrix)


@pytest.mark.parametrize("weights", ["", "int8"])
def test_a_run_trains_adapters_and_exports_a_plain_model(start, tmp_path, weights):  # noqa: F811
    if weights:
        pytest.importorskip("torchao")
    config = replace(
        settings(start, tmp_path), lora=LoraConfig(rank=4), weights=weights, steps=3,
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=1, average_decay=0.0),
    )  # fmt: skip
    model, average = runs.run(config, device=CPU, report=quiet)
    assert all(".lora_" in name for name in average.tensors)
    runs.export(config, tmp_path / "model", {})
    before, after = load(start).model, load(tmp_path / "model").model
    assert after.state_dict().keys() == before.state_dict().keys()
    moved = {name for name, value in before.state_dict().items() if not torch.equal(value, after.state_dict()[name])}
    assert moved
    assert all(name.startswith("blocks.") and name.endswith("weight") and "norm" not in name for name in moved)
    assert torch.allclose(after(IDS), model(IDS), atol=0.05)
    resumed, _ = runs.run(config, device=CPU, report=quiet)  # all steps are done: what was saved is taken up
    assert torch.equal(resumed(IDS), model(IDS))


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"weights": "int8"}, "set lora.rank too"),
        ({"lora": LoraConfig(rank=-1)}, "expected 0"),
        ({"lora": LoraConfig(rank=2), "frozen": ("text",)}, "adapters freeze the rest"),
        ({"lora": LoraConfig(rank=2), "init": ""}, "set 'init'"),
        ({"network": {"num_layers": 2}}, "the sizes come from the model"),
    ],
)
def test_settings_that_contradict_each_other_are_told(changed, told):
    with pytest.raises(ConfigError, match=told):
        TrainConfig(**{"name": "x", "steps": 1, "tasks": {"t2i": 1.0}, "init": "model", **changed})


def test_a_target_that_is_not_there_is_told():
    with pytest.raises(ConfigError, match=r"names \['qery'\]; known: down, gate, key"):
        adapters.add(small_model(), LoraConfig(rank=2, targets=("qery",)), seed=0)
