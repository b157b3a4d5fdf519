"""Policies refuse what cannot work."""

import pytest

from dynin.decoding.policy import DecodingPolicy, published_text
from dynin.decoding.remask import LowConfidenceRemask, VerifyRemask
from dynin.errors import ConfigError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_steps": 0}, "num_steps is 0"),
        ({"num_steps": 4, "block_len": 0}, "block_len is 0"),
        ({"num_steps": 4, "temperature": -1.0}, "temperature is -1"),
        ({"num_steps": 4, "temperature": float("nan")}, "temperature is nan"),
        ({"num_steps": 4, "schedule": "cosin"}, "unknown mask schedule 'cosin'"),
        ({"num_steps": 4, "score": "best"}, "confidence, margin, entropy, random"),
        ({"num_steps": 4, "anneal": "fast"}, "linear or compound"),
        ({"num_steps": 4, "sampling": "nucleus"}, "gumbel or inverse"),
        ({"num_steps": 4, "compat": "old"}, "none or published"),
        ({"num_steps": 4, "max_len": 8}, "max_len is 8 and block_len None"),
        ({"num_steps": 4, "guidance_interval": (0.5, 0.5)}, "guidance_interval"),
        ({"num_steps": 4, "threshold": 0.0}, "threshold is 0"),
        ({"num_steps": 4, "compat": "published", "threshold": 0.9}, "compat"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DecodingPolicy(**settings)


@pytest.mark.parametrize(
    "settings", [{"fraction": 0.0}, {"start": 0.6, "stop": 0.5}, {"refine": 1.0}, {"max_times": 0}]
)
def test_a_wrong_low_confidence_rule_is_refused(settings: dict) -> None:
    with pytest.raises(ConfigError, match="expected"):
        LowConfidenceRemask(**settings)


def test_a_wrong_bar_is_refused() -> None:
    with pytest.raises(ConfigError, match="bar is 0"):
        VerifyRemask(bar=0.0)


def test_steps_are_shared_by_blocks() -> None:
    policy = DecodingPolicy(num_steps=32, block_len=8)
    assert policy.block_steps(64) == 4
    assert policy.block_steps(60) == 4
    assert policy.block_steps(1000) == 1
    assert DecodingPolicy(num_steps=20).block_steps(1024) == 20


@pytest.mark.parametrize(
    ("num_new", "num_steps", "block_len"), [(30, 30, 8), (32, 3, 8), (32, 32, 0), (0, 32, 8), (32, 0, 8), (8, 8, 16)]
)
def test_the_published_sampler_wants_blocks_that_divide(num_new: int, num_steps: int, block_len: int) -> None:
    with pytest.raises(ConfigError, match=f"{num_new} new places, {num_steps} steps and blocks of {block_len} do not"):
        published_text(num_new=num_new, num_steps=num_steps, block_len=block_len)
