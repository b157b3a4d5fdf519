"""Settings of a run: numbers that mean nothing are refused before anything is read, and the shipped files are valid."""

from pathlib import Path

import pytest

from dynin import config as configs
from dynin.errors import ConfigError
from dynin.training.config import TrainConfig

FOLDER = Path(__file__).resolve().parents[3] / "configs" / "train"
SHIPPED = sorted(path for path in FOLDER.glob("*.toml") if not path.name.startswith("codec-"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_file_that_ships_is_read(path):
    assert configs.load(path, TrainConfig).name == path.stem


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tasks.t2i=-1", r"'tasks.t2i' is -1.0; expected at least 0"),
        ("tasks.t2i=nan", r"'tasks.t2i' is nan; expected at least 0"),
        ("data.own={path='rows.jsonl', weight=-1}", "weight' is -1.0; expected at least 0"),
        ("world_weight=inf", "'world_weight' is inf; expected at least 0"),
        ("steps=0", "'steps' is 0; expected at least 1"),
        ("seed=-1", "'seed' is -1; expected at least 0"),
        ("preview_every=-1", "'preview_every' is -1"),
        ("drop_prob=2", "'drop_prob' is 2.0; expected 0 to 1"),
        ("whole_prob=-0.1", "'whole_prob' is -0.1; expected 0 to 1"),
        ("name=../other", "'name' is '../other'; expected a name of a folder below 'output'"),
        ("name=", "'name' is ''"),
        ("lora.alpha=0", "'lora.alpha' is 0.0; expected a number above 0"),
        ("optimizer.learning_rate=nan", "'optimizer.learning_rate' is nan; expected at least 0"),
        ("optimizer.warmup_steps=-3", "'optimizer.warmup_steps' is -3; expected at least 0"),
        ("optimizer.decay_share=1.5", "'optimizer.decay_share' is 1.5; expected 0 to 1"),
        ("optimizer.average_decay=1.0", "'optimizer.average_decay' is 1.0; expected 0 to below 1"),
        ("optimizer.max_grad_norm=0", "'optimizer.max_grad_norm' is 0.0; expected a number above 0"),
        ("objective.replace_prob=2", "'objective.replace_prob' is 2.0; expected 0 to 1"),
        ("objective.filler_weight=-1", "'objective.filler_weight' is -1.0; expected at least 0"),
        ("objective.coefficients.t2i=-1", "'objective.coefficients.t2i' is -1.0; expected at least 0"),
    ],
)
def test_a_number_that_means_nothing_is_named_with_what_was_expected(override, message):
    with pytest.raises(ConfigError, match=message):
        configs.load(FOLDER / "backbone.toml", TrainConfig, [override])
