"""Step, add up, clip, average, log, save; handed an objective and a source of rows.

Enters: a network, rows by step, settings. Leaves: trained weights and a log. Does not know diffusion, tasks or media.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as Rows
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from dynin.errors import TrainingError
from dynin.model.transformer import Transformer
from dynin.sequence import packing
from dynin.sequence.batch import Batch, pack
from dynin.sequence.layout import Sequence
from dynin.training import optim, parallel, processes, resume, state
from dynin.training.config import TrainConfig
from dynin.training.freeze import Frozen
from dynin.training.journal import Figures, Journal
from dynin.training.objective import Hidden, LossModule, Objective, Tally, add_tallies

STEPS_AHEAD = 3
"""Steps whose rows are made while the network is at work."""


@runtime_checkable
class RowSource(Protocol):
    """Where training rows come from; equal steps give equal rows, so a run resumes without remembering any."""

    def rows(self, step: int) -> Rows[Sequence]:
        """The rows of one step, of any tasks and lengths."""
        ...

    def fingerprint(self) -> str:
        """What tells this data from other data; a run goes on with the same alone."""
        ...


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
    for step, batches in _batches(source, first, objective.vocabulary.pad_id, config):
        share = optim.share_of_peak(step, config.steps, config.optimizer)
        optim.set_rates(optimizers, share)
        add_tallies(tallies, gradients(root, objective, batches, step, config))
        frozen.clear()
        norm = nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.max_grad_norm)
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad(set_to_none=True)
        average.update(model, step)
        journal.count(sum(int(batch.attend.sum()) for batch in batches))
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
        parallel.compile_blocks(model)
    parallel.shard(root, model.blocks, is_frugal=config.reshard)
    return root


def _batches(source: RowSource, first: int, pad_id: int, config: TrainConfig) -> Iterator[tuple[int, list[Batch]]]:
    """The packed batches of every step from `first` on; those of later steps are made in the background."""

    def make(step: int) -> list[Batch]:
        if config.pack_length:
            size = {"length": config.pack_length, "tokens_per_batch": config.tokens_per_batch}
            return packing.batches(source.rows(step), pad_id=pad_id, **size)
        return pack(source.rows(step), pad_id=pad_id, tokens_per_batch=config.tokens_per_batch)

    with ThreadPoolExecutor(max_workers=1) as worker:
        ahead = deque(worker.submit(make, step) for step in range(first, min(first + STEPS_AHEAD, config.steps)))
        for step in range(first, config.steps):
            batches = ahead.popleft().result()
            if step + STEPS_AHEAD < config.steps:
                ahead.append(worker.submit(make, step + STEPS_AHEAD))
            yield step, batches


def gradients(
    root: LossModule, objective: Objective, batches: Rows[Batch], step: int, config: TrainConfig
) -> dict[str, Tally]:
    """Leave the gradients of the step's loss in the network; figures by task.

    What is hidden is drawn first, for all batches of this process; then all processes agree on the divisors, and the
    network runs over one batch after another.
    """
    device = next(root.parameters()).device
    mine = _of_this_process(objective, batches, step, config)
    divisors: Counter[str] = Counter()
    for part in processes.gather([hidden.divisors for hidden in mine]):
        for one in part:
            divisors.update(one)
    tallies: dict[str, Tally] = defaultdict(Tally)
    faults: list[str] = []
    for index, hidden in enumerate(mine):
        is_last = index + 1 == len(mine)
        parallel.exchange(root, is_last=is_last, is_frugal=config.reshard)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=config.dtype == "bfloat16"):
            total, loss = root(_moved(hidden, device), divisors)
        if not bool(torch.isfinite(total)):
            faults.append(_told(hidden.batch))
        total.backward()
        add_tallies(tallies, loss.tallies)
    _require_finite(faults, step)
    for parameter in root.parameters():
        if parameter.grad is None and parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    return tallies


def _of_this_process(objective: Objective, batches: Rows[Batch], step: int, config: TrainConfig) -> list[Hidden]:
    """This process's batches with what is hidden in them; at least one, and as many as the others have if frugal.

    Draws depend on a batch's place among all, so they are the same in any number of processes.
    """
    count = processes.count()
    blank = _blank(batches[0])
    all_of_them = parallel.even(batches, blank, count) if config.reshard else list(batches)
    all_of_them += [blank] * (count - len(all_of_them))
    return [
        objective.hide(batch, generator=torch.Generator().manual_seed(config.seed + 7919 * step + index))
        for index, batch in processes.share(all_of_them)
    ]


def _blank(batch: Batch) -> Batch:
    """One row without targets."""
    ids, kind = batch.ids[:1], torch.full_like(batch.kind[:1], -1)
    nothing = torch.zeros_like(batch.is_target[:1])
    return replace(batch, ids=ids, is_target=nothing, attend=batch.attend[:1], kind=kind, tasks=(), names=())


def _moved(hidden: Hidden, device: torch.device) -> Hidden:
    """The same on the network's device."""
    tensors: dict[str, Any] = {name: getattr(hidden, name).to(device) for name in ("xt", "weights", "counted")}
    return replace(hidden, batch=hidden.batch.to(device), **tensors)


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
