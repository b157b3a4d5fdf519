"""Mask-ratio schedules by name."""

import pytest
import torch

from dynin.diffusion.schedule import mask_prob, mask_ratio, require_schedule
from dynin.errors import ConfigError

NAMES = ["arccos", "cosine", "linear", "sigmoid", "pow2", "pow0.5"]


@pytest.mark.parametrize("name", NAMES)
def test_everything_is_masked_at_the_start_and_nothing_at_the_end(name: str) -> None:
    ratio = mask_ratio(name, torch.tensor([0.0, 1.0]))
    assert ratio[0] == pytest.approx(1.0)
    assert ratio[1] == pytest.approx(0.0, abs=2e-6)


@pytest.mark.parametrize("name", NAMES)
def test_ratios_fall(name: str) -> None:
    ratio = mask_ratio(name, torch.linspace(0, 1, 101))
    assert (ratio.diff() < 0).all()


def test_halfway_values_follow_the_formulas() -> None:
    half = torch.tensor(0.5)
    assert float(mask_ratio("cosine", half)) == pytest.approx(0.5**0.5)
    assert float(mask_ratio("linear", half)) == pytest.approx(0.5)
    assert float(mask_ratio("sigmoid", half)) == pytest.approx(0.5)
    assert float(mask_ratio("pow3", half)) == pytest.approx(1 - 0.125)


def test_time_runs_against_progress() -> None:
    time = torch.linspace(0, 1, 5)
    torch.testing.assert_close(mask_prob("cosine", time), mask_ratio("cosine", 1 - time))


@pytest.mark.parametrize("name", ["cosin", "pow", "pow-1", "pownan", "pow0"])
def test_an_unknown_name_is_refused_with_the_names_that_exist(name: str) -> None:
    with pytest.raises(ConfigError, match="arccos, cosine, linear, sigmoid, or pow"):
        require_schedule(name)
