"""The methods of merging equal mergekit's on tensors that `record_mergekit.py` recorded, DARE by the same masks."""

import json

import numpy as np
import pytest
import torch
from golden_weights import FOLDER

from dynin.merging.methods import METHODS, Coefficients, merge_tensors

CARD = FOLDER / "merging_mergekit.json"
NAMES = ("norm", "attention", "rows")
if not CARD.is_file():
    pytest.skip(f"no {CARD.name} in {FOLDER}", allow_module_level=True)
CASES = json.loads(CARD.read_text())["cases"]


@pytest.fixture(scope="module")
def golden():
    with np.load(CARD.with_suffix(".npz")) as stored:
        return {name: torch.from_numpy(stored[name]) for name in stored.files}


def ours(case):
    """Our coefficients for a recorded case; mergekit's linear weighs the base like any other model."""
    method, told = case["method"], case["parameters"]
    num_others = len(case["models"]) - 1
    weights, strength = told.get("weight", [1.0]), told.get("lambda", told.get("t", 1.0))
    if method == "linear":
        strength = 1 - weights[0] / sum(weights)
        weights = [weight / sum(weights[1:]) for weight in weights[1:]]
    return Coefficients(
        method=method,
        strength=strength,
        weights=tuple(weights),
        density=tuple(told.get("density", [1.0] * num_others)),
        rescale="norm" if told.get("rescale", True) else "none",
    )


def merged(golden, key, name, how):
    base, *others = (golden[f"{model}/{name}"] for model in CASES[key]["models"])

    def masks(index):
        return lambda change: golden[f"{key}/{name}/mask{index}"]

    return merge_tensors(how, base, others, masks)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("key", CASES)
def test_a_merge_equals_that_of_mergekit(golden, key, name):
    made, expected = merged(golden, key, name, ours(CASES[key])), golden[f"{key}/{name}"]
    assert float((made - expected).abs().max()) <= 1e-6 * max(1.0, float(expected.abs().max()))
    assert float((expected - golden[f"base/{name}"]).abs().max()) > 1e-3


def test_every_method_is_recorded():
    assert {case["method"] for case in CASES.values()} == set(METHODS)


@pytest.mark.parametrize("key", ["slerp_far", "ties_two", "dare_ties_plain", "dare_linear_norm"])
def test_another_method_gives_other_numbers(golden, key):
    how = ours(CASES[key])
    plain = Coefficients(
        method="task_arithmetic",
        strength=how.strength,
        weights=how.weights,
        density=(1.0,) * len(how.weights),
        rescale="none",
    )
    difference = merged(golden, key, "attention", plain) - golden[f"{key}/attention"]
    assert float(difference.abs().max()) > 1e-4
