"""Record J and F of drawn masks as trackeval computes them: `python tests/parity/record_trackeval.py [FOLDER]`.

Enters: nothing but an environment with `trackeval` (MIT), which asks for OpenCV, matplotlib and pycocotools, and for
scikit-image without saying so: 0.7 GB that this project needs for nothing else. Leaves: `segmentation_trackeval.npz`
beside its card. Does not know our arithmetic: it imports nothing of ours.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from pycocotools import mask as coco
from trackeval.metrics import JAndF

FOLDER = Path(__file__).parent / "golden"
NUM_MASKS = 1000
SEED = 20261126
TOLERANCE = 0.008
KINDS = ("blob", "line", "noise", "empty", "full", "border", "pixel", "frame")
CHANGES = ("same", "shift", "holes", "grow", "other")


def drawn_size(rng: np.random.Generator) -> tuple[int, int]:
    most = rng.choice([12, 48, 130, 260, 900], p=[0.2, 0.5, 0.17, 0.1, 0.03])
    return tuple(int(side) for side in rng.integers(1, most + 1, size=2))


def drawn_mask(rng: np.random.Generator, kind: str, height: int, width: int) -> np.ndarray:
    mask = np.zeros((height, width), dtype=bool)
    y, x = np.mgrid[:height, :width]
    if kind == "blob":
        for _ in range(rng.integers(1, 4)):
            reach = rng.uniform(0.05, 0.4) * np.hypot(height, width)
            mask |= (y - rng.uniform(0, height)) ** 2 + (x - rng.uniform(0, width)) ** 2 <= reach**2
    elif kind == "line":
        slope, start = rng.uniform(-2, 2), rng.uniform(0, height)
        mask |= np.abs(y - start - slope * x) < rng.choice([0.5, 1.0, 1.5])
    elif kind == "noise" and height * width <= 2500:
        mask |= rng.random((height, width)) < rng.uniform(0.02, 0.9)
    elif kind == "full":
        mask[:] = True
    elif kind == "border":
        mask[rng.integers(0, height) :, : rng.integers(1, width + 1)] = True
        mask = np.rot90(mask, 2) if rng.random() < 0.5 else mask
    elif kind == "pixel":
        mask[rng.integers(0, height), rng.integers(0, width)] = True
    elif kind == "frame":
        mask[[0, -1], :] = True
        mask[:, [0, -1]] = True
    return mask


def changed(rng: np.random.Generator, change: str, mask: np.ndarray) -> np.ndarray:
    height, width = mask.shape
    if change == "shift":
        return np.roll(mask, rng.integers(-4, 5, size=2), axis=(0, 1))
    if change == "holes":
        mask = mask.copy()
        mask[rng.integers(0, height, size=5), rng.integers(0, width, size=5)] ^= True
        return mask
    if change == "grow":
        return mask | np.roll(mask, 1, axis=0) | np.roll(mask, 1, axis=1)
    return drawn_mask(rng, str(rng.choice(KINDS)), height, width) if change == "other" else mask.copy()


def encoded(mask: np.ndarray) -> dict:
    return coco.encode(np.asfortranarray(mask.astype(np.uint8)))


def main(folder: Path) -> None:
    rng = np.random.default_rng(SEED)
    sizes, bits, regions, boundaries = [], [], [], []
    for number in range(NUM_MASKS):
        size = drawn_size(rng)
        truth = drawn_mask(rng, KINDS[number % len(KINDS)], *size)
        prediction = changed(rng, str(rng.choice(CHANGES)), truth)
        rows = [[encoded(truth)]], [[encoded(prediction)]]
        regions.append(JAndF._compute_j(*rows, 1, 1, 1)[0, 0, 0])
        boundaries.append(JAndF._compute_f(*rows, 0, 0, TOLERANCE)[0])
        sizes.append(size)
        bits += [prediction.ravel(), truth.ravel()]
    place = folder / "segmentation_trackeval.npz"
    np.savez_compressed(
        place,
        sizes=np.array(sizes, dtype=np.int16),
        masks=np.packbits(np.concatenate(bits)),
        regions=np.array(regions),
        boundaries=np.array(boundaries),
    )
    card = {
        "source": f"trackeval {version('trackeval')} (PyPI, MIT), metrics.JAndF._compute_j and ._compute_f",
        "with": {name: version(name) for name in ("numpy", "opencv-python", "pycocotools", "scikit-image")},
        "inputs": f"{NUM_MASKS} pairs (prediction, truth) in turn, bits of a mask row by row; sizes are rows, columns",
        "kinds": list(KINDS),
        "changes": list(CHANGES),
        "seed": SEED,
        "bound_th": TOLERANCE,
        "dtype": "float64",
        "tolerance": "1e-6; both sides divide the same counts of pixels, so that equal to rounding is expected",
    }
    place.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
