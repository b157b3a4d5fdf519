"""Step, add up, clip, average, log, save; handed an objective and a source of rows.

Enters: a network, rows by task, settings. Leaves: trained weights and a log. Does not know diffusion, tasks or media.
"""

import json
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as Rows
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from dynin.model.transformer import Transformer
from dynin.sequence.layout import Sequence
from dynin.training import optim, state
from dynin.training.config import TrainConfig
from dynin.training.objective import Objective, mean_by_task

Figures = Mapping[str, int | float]
"""What is reported: step, steps, rates, and loss and accuracy by task."""


@runtime_checkable
class RowSource(Protocol):
    """Where training rows come from; equal arguments give equal rows, so a run resumes without remembering any."""

    def rows(self, task: str, *, step: int, batch: int) -> Rows[Sequence]:
        """A batch of rows of one task."""
        ...


def train(
    model: Transformer,
    objective: Objective,
    source: RowSource,
    config: TrainConfig,
    *,
    report: Callable[[Figures], None],
) -> optim.Average:
    """Run or resume a training; returns the averaged weights.

    Args:
        report: Called every `log_every` steps with figures: step, steps, loss and accuracy by task, seconds left.

    Raises:
        FloatingPointError: If a loss is not finite; the message names step and task.
    """
    folder = config.output / config.name
    optimizer = optim.build(model, config.optimizer)
    average = optim.Average(model, config.optimizer.average_decay)
    first = state.load(folder / "state", model, average, optimizer)
    device = next(model.parameters()).device
    figures: dict[str, list[float]] = defaultdict(list)
    started, tokens = time.monotonic(), 0
    for step in range(first, config.steps):
        learning_rate = optim.rate(step, config.steps, config.optimizer)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        for batch, task in enumerate(_draw_tasks(config, step)):
            generator = torch.Generator(device=device).manual_seed(config.seed + 7919 * step + batch)
            rows = source.rows(task, step=step, batch=batch)
            loss = objective(model, rows, generator=generator)
            if not bool(torch.isfinite(loss.total)):
                raise FloatingPointError(
                    f"the loss of task {task} at step {step} is not finite; lower the learning rate"
                )
            (loss.total / config.batches_per_step).backward()
            tokens += sum(len(row.ids) for row in rows)
            figures[f"loss/{task}"].append(loss.cross_entropy)
            figures[f"accuracy/{task}"].append(loss.accuracy)
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average.update(model, step)
        done = step + 1
        if done % config.log_every == 0 or done == config.steps:
            seconds = time.monotonic() - started
            entry = {
                "step": done,
                "steps": config.steps,
                "learning_rate": learning_rate,
                "tokens_per_s": tokens / seconds,
                "seconds_left": seconds / (done - first) * (config.steps - done),
                **mean_by_task(figures),
            }
            _append(folder / "log.jsonl", entry)
            report(entry)
            figures.clear()
        if done % config.save_every == 0 or done == config.steps:
            state.save(folder / "state", done, model, average, optimizer)
    return average


def _draw_tasks(config: TrainConfig, step: int) -> Iterator[str]:
    """The tasks of a step's batches, drawn by weight."""
    draw = random.Random(config.seed * 1_000_003 + step)
    yield from draw.choices(list(config.tasks), weights=list(config.tasks.values()), k=config.batches_per_step)


def _append(path: Path, entry: Figures) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({key: round(value, 6) for key, value in entry.items()}) + "\n")
