"""Step, add up, clip, average, log, save; handed an objective and a source of rows.

Enters: a network, rows by step, settings. Leaves: trained weights and a log. Does not know diffusion, tasks or media.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Rows
from dataclasses import dataclass, replace

import torch
from torch import nn

from dynin.errors import TrainingError
from dynin.model.transformer import Transformer
from dynin.sequence.batch import Batch
from dynin.training import optim, parallel, prefetch, processes, resume, state
from dynin.training.config import TrainConfig
from dynin.training.freeze import Frozen
from dynin.training.journal import Figures, Journal
from dynin.training.objective import Hidden, Loss, LossModule, Objective, Tally, add_tallies
from dynin.training.prefetch import RowSource


@dataclass(frozen=True, kw_only=True, slots=True)
class Hooks:
    """What is called while a run goes on."""

    report: Callable[[Figures], None]
    """Every `log_every` steps, with figures: step, steps, loss and accuracy by task, seconds left."""
    preview: Callable[[int, Transformer, optim.Average], None] | None = None
    """Every `preview_every` steps, in every process."""


def train(
    model: Transformer,
    objective: Objective,
    source: RowSource,
    config: TrainConfig,
    hooks: Hooks,
    *,
    resuming: resume.Policy = resume.EXACT,
) -> optim.Average:
    """Run or resume a training; returns the averaged weights. See `processes` for several processes.

    Args:
        model: Already on its device; it is changed in place.

    Raises:
        TrainingError: If a loss is not finite; the message names step, tasks and examples.
        CheckpointError: If the state cannot be resumed, or cannot be saved.
    """
    folder = config.output / config.name / "state"
    device = next(model.parameters()).device
    root = prepare(model, objective, config)
    frozen = Frozen.of(model, objective.vocabulary, config.frozen)
    optimizers = optim.build(model, config.optimizer, frozen)
    average = optim.Average(model, config.optimizer.average_decay)
    marks = resume.marks(config, source.fingerprint())
    stood = state.choose(folder, is_previous=resuming.is_previous)
    before = processes.shared(lambda: state.read_notes(folder, stood))
    resume.require_same(folder, before.get("marks"), marks, resuming)
    first = state.load(folder, model, average, optimizers, stood)
    journal = Journal(config.output / config.name, config, first)
    tallies: dict[str, Tally] = defaultdict(Tally)
    for step, made in prefetch.steps(source, objective, config, first):
        share = optim.share_of_peak(step, config.steps, config.optimizer)
        optim.set_rates(optimizers, share)
        add_tallies(tallies, gradients(root, made.hidden, step, config))
        frozen.clear()
        norm = nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.max_grad_norm)
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad(set_to_none=True)
        average.update(model, step)
        journal.count(made.num_tokens)
        done = step + 1
        if done % config.log_every == 0 or done == config.steps:
            whole: dict[str, Tally] = defaultdict(Tally)
            for part in processes.gather(dict(tallies)):
                add_tallies(whole, part)
            tallies.clear()
            more = {"learning_rate": share * config.optimizer.learning_rate, "grad_norm": float(parallel.whole(norm))}
            entry = journal.entry(done, {**more, **_figures(whole)})
            if processes.rank() == 0:
                journal.write(entry)
                hooks.report(entry)
        if done % config.save_every == 0 or done == config.steps:
            notes = journal.notes(before, device) | {"marks": marks}
            state.save(folder, done, model, average, optimizers, notes)
        if hooks.preview and config.preview_every and (done % config.preview_every == 0 or done == config.steps):
            hooks.preview(done, model, average)
    journal.close()
    return average


def prepare(model: Transformer, objective: Objective, config: TrainConfig) -> LossModule:
    """Recompute, compile and shard as the settings say; every process comes out with what it trains."""
    root = LossModule(model, objective)
    if config.recompute:
        parallel.recompute_blocks(model)
    if config.compile:
        parallel.compile_blocks(model, is_dynamic=config.dynamic_shapes)
    parallel.shard(root, model.blocks, is_frugal=config.reshard)
    return root


def gradients(root: LossModule, mine: Rows[Hidden], step: int, config: TrainConfig) -> dict[str, Tally]:
    """Leave the gradients of the step's loss in the network; figures by task.

    All processes agree on the divisors, then the network runs over one batch of this process after another.
    """
    device = next(root.parameters()).device
    divisors: Counter[str] = Counter()
    for part in processes.gather([hidden.divisors for hidden in mine]):
        for one in part:
            divisors.update(one)
    losses: list[Loss] = []
    for index, hidden in enumerate(mine):
        is_last = index + 1 == len(mine)
        parallel.exchange(root, is_last=is_last, is_frugal=config.reshard)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=config.dtype == "bfloat16"):
            total, loss = root(hidden.to(device), divisors)
        total.backward()
        losses.append(replace(loss, total=total.detach()))
    is_finite = torch.stack([loss.total for loss in losses]).isfinite().tolist()  # the first wait for the device
    _require_finite([_told(hidden.batch) for hidden, fine in zip(mine, is_finite, strict=True) if not fine], step)
    tallies: dict[str, Tally] = defaultdict(Tally)
    for loss in losses:
        add_tallies(tallies, loss.tallies)
    for parameter in root.parameters():
        if parameter.grad is None and parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    return tallies


def _told(batch: Batch) -> str:
    """Which tasks and examples a batch holds."""
    names = ", ".join(name for name in batch.names if name)
    return f"task {', '.join(sorted(set(batch.tasks)))}{f' (examples {names})' if names else ''}"


def _require_finite(faults: Rows[str], step: int) -> None:
    """Stop in every process when one of them met a loss that is no number; the weights are still those before."""
    met = [fault for part in processes.gather(list(faults)) for fault in part]
    if met:
        raise TrainingError(
            f"the loss of {met[0]} at step {step} is not finite; look at these examples, or lower the learning rate; "
            "the state saved last is whole"
        )


def _figures(tallies: Mapping[str, Tally]) -> dict[str, float]:
    """Loss and accuracy of every task that was met."""
    met = {task: tally for task, tally in sorted(tallies.items()) if tally.count}
    losses = {f"loss/{task}": tally.entropy / tally.count for task, tally in met.items()}
    return losses | {f"accuracy/{task}": tally.right / tally.count for task, tally in met.items()}
