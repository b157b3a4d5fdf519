"""What is frozen stays bit for bit, the rest learns."""

from dataclasses import replace

import pytest
import torch

from dynin.errors import ConfigError
from dynin.training import loop
from dynin.training.config import OptimizerConfig, TrainConfig
from dynin.training.freeze import Frozen
from dynin.training.objective import Objective, ObjectiveConfig
from dynin.types import Modality
from dynin.vocabulary import EMBEDDED
from tests.unit.training.test_loop import Copies, quiet, settings, small_model


def trained(tmp_path, *frozen):
    model = small_model()
    config = replace(settings(tmp_path, 3), optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=1))
    object.__setattr__(config, "frozen", frozen)  # a run would start from a model
    loop.train(model, Objective(EMBEDDED, ObjectiveConfig()), Copies(), config, loop.Hooks(report=quiet))
    return {name: value.detach() for name, value in model.named_parameters()}


@pytest.mark.parametrize("part", ["text", "image", "speech"])
def test_rows_of_a_modality_stay_in_both_tables(tmp_path, part):
    before, after = dict(small_model().named_parameters()), trained(tmp_path, part)
    span = EMBEDDED.range_of(Modality(part))
    for table in ("embed.weight", "output.weight"):
        rows = (before[table] != after[table]).any(dim=1)
        assert not rows[span.start : span.stop].any()
        assert rows.any() or (part, table) == ("image", "output.weight")  # pictures alone are made here
    assert (before["blocks.0.mlp.up.weight"] != after["blocks.0.mlp.up.weight"]).any()


def test_rows_of_control_ids_stay(tmp_path):
    before, after = dict(small_model().named_parameters()), trained(tmp_path, "special")
    rows = (before["embed.weight"] != after["embed.weight"]).any(dim=1)
    assert not rows[sorted(EMBEDDED.special.values())].any()
    assert rows.any()


@pytest.mark.parametrize(
    ("part", "is_still"),
    [
        ("blocks", lambda name: name.startswith("blocks.")),
        ("blocks.0", lambda name: name.startswith("blocks.0.")),
        ("attention", lambda name: ".attention." in name),
        ("mlp", lambda name: ".mlp." in name),
        ("norms", lambda name: "norm" in name),
        ("embed", lambda name: name == "embed.weight"),
        ("output", lambda name: name == "output.weight"),
    ],
)
def test_whole_parts_stay_and_nothing_else_does(tmp_path, part, is_still):
    before, after = dict(small_model().named_parameters()), trained(tmp_path, part)
    still = {name for name, value in before.items() if torch.equal(value, after[name])}
    assert still == {name for name in before if is_still(name)}


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        (("txt",), "unknown part 'txt'; known: text, image"),
        (("blocks.0-4",), "the network has layers 0 to 0"),
        (("blocks", "embed", "output", "norms"), "nothing is left to learn"),
    ],
)
def test_what_cannot_be_frozen_is_told(parts, told):
    with pytest.raises(ConfigError, match=told):
        Frozen.of(small_model(), EMBEDDED, parts)


def test_freezing_needs_a_model_to_start_from():
    with pytest.raises(ConfigError, match="set 'init'"):
        TrainConfig(name="x", steps=1, tasks={"t2i": 1.0}, frozen=("text",))
