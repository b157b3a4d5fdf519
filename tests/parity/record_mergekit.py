"""Record what mergekit makes of small tensors: `python tests/parity/record_mergekit.py [FOLDER]`.

Enters: nothing but an environment in which `mergekit` can be imported (LGPL-3.0; of this project it is neither part nor
dependency). Leaves: `merging_mergekit.npz` beside its card. Does not know our arithmetic: it imports nothing of ours.

What DARE drops is drawn here and handed to mergekit in place of its own draws, so that both sides drop the same.
"""

import json
import sys
import zlib
from importlib.metadata import version
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from mergekit.merge_methods import merge_tensors

FOLDER = Path(__file__).parent / "golden"
SHAPES = {"norm": (16,), "attention": (16, 16), "rows": (12, 16)}
MODELS = ("base", "a", "b", "far")
"""a and b are near the base, as fine-tuned models are; far is another model altogether."""
CASES = {
    "linear_two": ("linear", ["base", "a"], {"weight": [0.3, 0.7]}),
    "linear_three": ("linear", ["base", "a", "b"], {"weight": [0.2, 0.5, 0.3]}),
    "slerp_near": ("slerp", ["base", "a"], {"t": 0.3}),
    "slerp_far": ("slerp", ["base", "far"], {"t": 0.3}),
    "slerp_far_end": ("slerp", ["base", "far"], {"t": 0.95}),
    "task_one": ("task_arithmetic", ["base", "a"], {"weight": [0.6]}),
    "task_two": ("task_arithmetic", ["base", "a", "b"], {"weight": [0.5, 0.8], "lambda": 0.7}),
    "ties_one": ("ties", ["base", "a"], {"weight": [1.0], "density": [0.2], "lambda": 0.5}),
    "ties_two": ("ties", ["base", "a", "b"], {"weight": [1.0, 1.0], "density": [0.4, 0.4]}),
    "ties_uneven": ("ties", ["base", "a", "far"], {"weight": [0.5, 0.8], "density": [0.3, 0.6], "lambda": 0.7}),
    "dare_linear_plain": ("dare_linear", ["base", "a"], {"weight": [1.0], "density": [0.5], "rescale": False}),
    "dare_linear_norm": ("dare_linear", ["base", "a", "b"], {"weight": [0.5, 0.8], "density": [0.5, 0.3]}),
    "dare_ties_plain": (
        "dare_ties",
        ["base", "a", "b"],
        {"weight": [0.5, 0.8], "density": [0.5, 0.3], "rescale": False, "lambda": 0.7},
    ),
    "dare_ties_norm": ("dare_ties", ["base", "a", "b"], {"weight": [1.0, 1.0], "density": [0.5, 0.5]}),
}


def drawn(name: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))


def tensor(model: str, name: str) -> np.ndarray:
    shape = SHAPES[name]
    if model == "far":
        return drawn(f"far {name}").standard_normal(shape).astype(np.float32)
    base = drawn(f"base {name}").standard_normal(shape)
    change = drawn(f"{model} {name}").standard_normal(shape) * 0.02
    return (base if model == "base" else base + change).astype(np.float32)


def masks_of(case: str, name: str) -> list[np.ndarray]:
    """Of every model beside the base, what is kept; none for methods that drop nothing at random."""
    method, models, parameters = CASES[case]
    if not method.startswith("dare"):
        return []
    return [
        drawn(f"{case} {model} {name}").random(SHAPES[name]) < density
        for model, density in zip(models[1:], parameters["density"], strict=True)
    ]


def merged(case: str, name: str) -> np.ndarray:
    method, models, parameters = CASES[case]
    masks = iter(masks_of(case, name))

    def given(probabilities: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(next(masks)).to(probabilities.dtype)

    with mock.patch("torch.bernoulli", given):
        made = merge_tensors(
            [torch.from_numpy(tensor(model, name)) for model in models],
            method,
            parameters=parameters,
            base_index=None if method == "linear" else 0,
        )
    if method.startswith("dare"):
        assert next(masks, None) is None, "mergekit did not take the masks"
    return made.numpy()


def main(folder: Path) -> None:
    arrays = {f"{model}/{name}": tensor(model, name) for model in MODELS for name in SHAPES}
    for case in CASES:
        for name in SHAPES:
            arrays[f"{case}/{name}"] = merged(case, name)
            for index, mask in enumerate(masks_of(case, name)):
                arrays[f"{case}/{name}/mask{index}"] = mask
    np.savez_compressed(folder / "merging_mergekit.npz", **arrays)
    card = {
        "made_by": f"mergekit {version('mergekit')}, torch {torch.__version__}: tests/parity/record_mergekit.py",
        "dtype": "float32",
        "tolerance": "1e-6 of the largest value: two ways to add up a few numbers in float32",
        "cases": {
            case: {"method": method, "models": models, "parameters": parameters}
            for case, (method, models, parameters) in CASES.items()
        },
    }
    (folder / "merging_mergekit.json").write_text(json.dumps(card, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
