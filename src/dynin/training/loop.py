"""Step, add up, clip, average, log, save; handed an objective and a source of rows.

Enters: a network, rows by step, settings. Leaves: trained weights and a log. Does not know diffusion, tasks or media.
"""

import json
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as Rows
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from dynin.errors import TrainingError
from dynin.model.transformer import Transformer
from dynin.sequence.batch import Batch, pack
from dynin.sequence.layout import Sequence
from dynin.training import optim, parallel, state
from dynin.training.config import TrainConfig
from dynin.training.objective import Objective, Tally, add_tallies

Figures = Mapping[str, int | float]
"""What is reported: step, steps, rates, and loss and accuracy by task."""
STEPS_AHEAD = 3
"""Steps whose rows are made while the network is at work."""


@runtime_checkable
class RowSource(Protocol):
    """Where training rows come from; equal steps give equal rows, so a run resumes without remembering any."""

    def rows(self, step: int) -> Rows[Sequence]:
        """The rows of one step, of any tasks and lengths."""
        ...


def train(
    model: Transformer,
    objective: Objective,
    source: RowSource,
    config: TrainConfig,
    *,
    report: Callable[[Figures], None],
) -> optim.Average:
    """Run or resume a training; returns the averaged weights. See `parallel` for several processes.

    Args:
        report: Called every `log_every` steps with figures: step, steps, loss and accuracy by task, seconds left.

    Raises:
        TrainingError: If a loss is not finite; the message names step and tasks.
    """
    folder = config.output / config.name
    optimizers = optim.build(model, config.optimizer)
    average = optim.Average(model, config.optimizer.average_decay)
    first = state.load(folder / "state", model, average, optimizers)
    before = state.read_notes(folder / "state")
    device = next(model.parameters()).device
    tallies: dict[str, Tally] = defaultdict(Tally)
    started, tokens = time.monotonic(), 0
    for step, batches in _batches(source, first, objective.vocabulary.pad_id, config):
        share = optim.share_of_peak(step, config.steps, config.optimizer)
        optim.set_rates(optimizers, share)
        add_tallies(tallies, _gradients(model, objective, batches, step, config))
        nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.max_grad_norm)
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad(set_to_none=True)
        average.update(model, step)
        tokens += sum(int(batch.attend.sum()) for batch in batches)
        done = step + 1
        if done % config.log_every == 0 or done == config.steps:
            seconds = time.monotonic() - started
            whole: dict[str, Tally] = defaultdict(Tally)
            for part in parallel.gather(dict(tallies)):
                add_tallies(whole, part)
            tallies.clear()
            entry = {
                "step": done,
                "steps": config.steps,
                "learning_rate": share * config.optimizer.learning_rate,
                "tokens_per_s": tokens / seconds,
                "seconds_left": seconds / (done - first) * (config.steps - done),
                **_figures(whole),
            }
            if parallel.rank() == 0:
                _append(folder / "log.jsonl", entry)
                report(entry)
        if parallel.rank() == 0 and (done % config.save_every == 0 or done == config.steps):
            seconds = time.monotonic() - started
            notes = {
                "seconds": before.get("seconds", 0.0) + seconds,
                "tokens": before.get("tokens", 0) + tokens,
                "hardware": f"{device.type}, {parallel.count()} processes of {torch.get_num_threads()} threads",
            }
            state.save(folder / "state", done, model, average, optimizers, notes)
    return average


def _batches(source: RowSource, first: int, pad_id: int, config: TrainConfig) -> Iterator[tuple[int, list[Batch]]]:
    """The packed batches of every step from `first` on; those of later steps are made in the background."""

    def make(step: int) -> list[Batch]:
        return pack(source.rows(step), pad_id=pad_id, tokens_per_batch=config.tokens_per_batch)

    with ThreadPoolExecutor(max_workers=1) as worker:
        ahead = deque(worker.submit(make, step) for step in range(first, min(first + STEPS_AHEAD, config.steps)))
        for step in range(first, config.steps):
            batches = ahead.popleft().result()
            if step + STEPS_AHEAD < config.steps:
                ahead.append(worker.submit(make, step + STEPS_AHEAD))
            yield step, batches


def _gradients(
    model: Transformer, objective: Objective, batches: Rows[Batch], step: int, config: TrainConfig
) -> dict[str, Tally]:
    """Leave the gradients of the step's mean loss in the network; figures by task.

    Weights are only known once places are hidden, so sums are differentiated and divided at the end.
    """
    device = next(model.parameters()).device
    tallies: dict[str, Tally] = defaultdict(Tally)
    weight = 0.0
    for index, batch in parallel.share(batches):
        generator = torch.Generator(device=device).manual_seed(config.seed + 7919 * step + index)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=config.dtype == "bfloat16"):
            loss = objective(model, batch.to(device), generator=generator)
        if not bool(torch.isfinite(loss.total)):
            tasks = ", ".join(sorted(set(batch.tasks)))
            raise TrainingError(f"the loss of task {tasks} at step {step} is not finite; lower the learning rate")
        loss.total.backward()
        weight += loss.weight
        add_tallies(tallies, loss.tallies)
    total = torch.tensor([weight], device=device)
    for parameter in model.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    parallel.add_up([*gradients, total])
    for gradient in gradients:
        gradient.div_(total)
    return tallies


def _figures(tallies: Mapping[str, Tally]) -> dict[str, float]:
    """Loss and accuracy of every task that was met."""
    met = {task: tally for task, tally in sorted(tallies.items()) if tally.count}
    losses = {f"loss/{task}": tally.entropy / tally.count for task, tally in met.items()}
    return losses | {f"accuracy/{task}": tally.right / tally.count for task, tally in met.items()}


def _append(path: Path, entry: Figures) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({key: round(value, 6) for key, value in entry.items()}) + "\n")
