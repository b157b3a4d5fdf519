"""How well a training does on videos that it does not learn from, while it goes on.

Enters: an objective, its averaged weights, sources that are held out. Leaves: the figures of their steps, named by
source. Does not know optimizers or files. What is looked at follows from settings alone, and a look draws with
generators of its own, so it changes nothing of the training.
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from dynin.training.optim import Average
from dynin.virst.batch import Sizes
from dynin.virst.training.config import VirstTrainConfig
from dynin.virst.training.objective import Objective
from dynin.virst.training.source import Drawer

SEED = 7_000
"""Added to the run's: other videos than those of any seed that is trained or scored with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOut:
    """Steps of every source."""

    drawers: dict[str, Drawer]
    count: int
    """Steps of each of them."""

    @classmethod
    def open(cls, config: VirstTrainConfig, sizes: Sizes) -> "HeldOut":
        """Open the sources, with all frames that a step may have, chosen without drawing.

        Raises:
            DataError: If one is missing, empty, or not laid out as published.
        """
        plain = replace(config, seed=config.seed + SEED, sampling="centres", fewest_frames=0, text={}, texts_per_step=0)
        drawers = {
            name: Drawer.open(replace(plain, data={name: told}), sizes) for name, told in config.held_out.items()
        }
        return cls(drawers=drawers, count=config.held_out_steps)

    @torch.no_grad()
    def look(self, objective: Objective, average: Average) -> dict[str, float]:
        """Means over a source's steps, as "held_out_NAME_FIGURE".

        Raises:
            DataError: If an example is faulty.
        """
        device = next(objective.parameters()).device
        sums: dict[str, list[float]] = defaultdict(list)
        with averaged(objective, average):
            for source, drawer in self.drawers.items():
                for step in range(self.count):
                    generator = torch.Generator().manual_seed(SEED + step)
                    loss, figures = objective(drawer.step(step).to(device), generator, drops=False)
                    for name, value in {"loss": float(loss), **figures}.items():
                        sums[f"held_out_{source}_{name}"].append(value)
        return {name: sum(values) / len(values) for name, values in sums.items()}


@contextmanager
@torch.no_grad()
def averaged(objective: Objective, average: Average) -> Iterator[None]:
    """The averaged weights in the place of the present ones, which come back bit for bit."""
    parts = {name: value for name, value in objective.named_parameters() if name in average.tensors}
    present = {name: value.clone() for name, value in parts.items()}
    try:
        for name, value in parts.items():
            value.copy_(average.tensors[name])
        yield
    finally:
        for name, value in parts.items():
            value.copy_(present[name])
