"""The loop of a training whose network is whole in every process: draw, learn, move, look, write, keep, go on.

Enters: a `Learning`, settings. Leaves: a run's folder with log and state. Does not know networks, losses, data, or
networks that are split over processes (`training.loop`).

Each of several processes learns from a part of every step (data parallelism): step s of process r of n is from part
n s + r, and all move by the mean of their gradients, so that their weights stay the same.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from dynin.config import to_dict
from dynin.training import optim, prefetch, processes, resume, state
from dynin.training.config import OptimizerConfig
from dynin.training.journal import Figures, Journal, Told

Item = TypeVar("Item")


class Settings(Told, Protocol):
    """What every such training is told."""

    @property
    def name(self) -> str:
        """The run's folder below `output`."""
        ...

    @property
    def output(self) -> Path:
        """Where runs lie."""
        ...

    @property
    def log_every(self) -> int:
        """Steps between lines of the log."""
        ...

    @property
    def save_every(self) -> int:
        """Steps between states."""
        ...

    @property
    def optimizer(self) -> OptimizerConfig:
        """Rates, and how the average of the weights is taken."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Learning(Generic[Item]):
    """One training: what learns, from what, and how a step is learned from."""

    network: nn.Module
    optimizers: Sequence[torch.optim.Optimizer]
    draw: Callable[[int], Item]
    """What a part of a step learns from; it follows from the part's number alone, which in one process is the step's.
    Called in a thread."""
    learn: Callable[[Item, int], Mapping[str, float]]
    """Leave the gradients of a part in the network, of every tensor that learns; figures for the log."""
    count: Callable[[Item], int]
    """How many of `unit` a part holds."""
    unit: str
    marks: Mapping[str, Any]
    """What must be the same for a run to go on exactly; see `resume.marks`."""
    moved: Callable[[], None] = lambda: None
    """Called when the weights have moved, before their average does."""
    look: Callable[[int, optim.Average], Mapping[str, float]] = lambda done, average: {}
    """Further figures of a line of the log, by the number of steps done; asked for in the first process alone."""
    notes: Mapping[str, Any] | None = None
    """What the state tells besides."""


def run(
    learning: Learning[Item],
    config: Settings,
    *,
    device: torch.device | str,
    report: Callable[[Figures], None],
    resuming: resume.Policy,
) -> None:
    """Run or resume a training; every process of `processes` calls it.

    Raises:
        CheckpointError: If the state cannot be resumed or saved.
        TrainingError, DataError: As drawing and learning raise them.
    """
    network, optimizers, place = learning.network, list(learning.optimizers), config.output / config.name
    average = optim.Average(network, config.optimizer.average_decay)
    kept = place / "state"
    stood = state.choose(kept, is_previous=resuming.is_previous)
    before = processes.shared(lambda: state.read_notes(kept, stood))
    marks = dict(learning.marks)
    resume.require_same(kept, before.get("marks"), marks, resuming)
    first = state.load(kept, network, average, optimizers, stood)
    journal = Journal(place, config, first, unit=learning.unit)
    sums: dict[str, list[float]] = defaultdict(list)
    count, is_first = processes.count(), processes.rank() == 0
    numbers = range(first * count + processes.rank(), config.steps * count, count)
    for step, item in enumerate(prefetch.in_thread(learning.draw, numbers), first):
        share = optim.share_of_peak(step, config.steps, config.optimizer)
        optim.set_rates(optimizers, share)
        figures = learning.learn(item, numbers[step - first])
        amount = _shared(network, learning.count(item))
        norm = nn.utils.clip_grad_norm_(network.parameters(), config.optimizer.max_grad_norm)
        for optimizer in optimizers:
            optimizer.step()
        network.zero_grad(set_to_none=True)
        learning.moved()
        average.update(network, step)
        journal.count(amount)
        for name, value in figures.items():
            sums[name].append(value)
        done = step + 1
        if done % config.log_every == 0 or done == config.steps:
            means = _means(processes.gather(dict(sums)))
            sums.clear()
            rates = {"learning_rate": share * config.optimizer.learning_rate, "grad_norm": float(norm)}
            if is_first:
                entry = journal.entry(done, {**rates, **means, **learning.look(done, average)})
                journal.write(entry)
                report(entry)
        if done % config.save_every == 0 or done == config.steps:
            notes = journal.notes(before, torch.device(device)) | {"marks": marks} | dict(learning.notes or {})
            state.save(kept, done, network, average, optimizers, notes)
    journal.close()


def _shared(network: nn.Module, amount: int) -> int:
    """Make the gradients of all processes their mean; returns the sum of all amounts."""
    if processes.count() == 1:
        return amount
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients] + [gradients[0].new_tensor([amount])])
    dist.all_reduce(flat)
    whole = int(flat[-1])
    flat /= processes.count()
    for gradient, shared in zip(gradients, flat[:-1].split([each.numel() for each in gradients]), strict=True):
        gradient.copy_(shared.view_as(gradient))
    return whole


def _means(parts: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, float]:
    """The mean of each figure over the steps and processes that told it."""
    sums: dict[str, list[float]] = defaultdict(list)
    for part in parts:
        for name, values in part.items():
            sums[name] += values
    return {name: sum(values) / len(values) for name, values in sums.items()}


def provenance(config: Settings, unit: str, told: Mapping[str, object]) -> dict[str, object]:
    """What a folder tells of the run that it was made by: what is told, steps, how many of a unit, hours, hardware.

    Raises:
        CheckpointError: If the run has saved no state yet.
    """
    kept = config.output / config.name / "state"
    notes = state.read_notes(kept)
    return {
        **told,
        "steps": state.read_step(kept),
        unit: notes.get(unit, 0),
        "hours": round(notes.get("seconds", 0.0) / 3600, 3),
        "hardware": notes.get("hardware", "not recorded"),
        "settings": json.loads(json.dumps(to_dict(config), default=str)),
    }
