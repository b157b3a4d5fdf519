"""Put a training of VIRST together, run or resume it, and write what it learned.

Enters: a `VirstTrainConfig`. Leaves: a run's folder with log and state, and a VIRST folder. Does not know what a step
costs (`objective`), or how states, logs and rates are kept (`dynin.training`).
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn

from dynin.config import to_dict
from dynin.errors import TrainingError
from dynin.training import optim, prefetch, resume, state
from dynin.training.journal import Figures, Journal
from dynin.virst import folder as folders
from dynin.virst.build import build
from dynin.virst.model import Virst
from dynin.virst.training import held_out
from dynin.virst.training.config import VirstTrainConfig
from dynin.virst.training.objective import Objective
from dynin.virst.training.source import STRIDE, Drawer, Step

PACKAGES = (*resume.PACKAGES, "virst")
"""The code whose change can change a training."""
MODEL = "model."
FREE = ("held_out", "held_out_every", "held_out_steps")
"""Settings that change nothing that is learned."""


def train(
    config: VirstTrainConfig,
    *,
    device: torch.device | str = "cpu",
    report: Callable[[Figures], None] = lambda figures: None,
    resuming: resume.Policy = resume.EXACT,
) -> Objective:
    """Run or resume one stage, in one process; what it learned is in the run's folder.

    Raises:
        TrainingError: If a loss is not finite; the message names step and sentences.
        CheckpointError: If `init` is no VIRST, or the state cannot be resumed or saved.
        ConfigError: If settings contradict each other.
        DataError: If an example is faulty.
    """
    objective = Objective(start(config, device), config).to(device)
    drawer = Drawer.open(config, objective.model.sizes)
    unseen = held_out.HeldOut.open(config, objective.model.sizes)
    optimizers = optimizers_of(objective, config)
    average = optim.Average(objective, config.optimizer.average_decay)
    kept = config.output / config.name / "state"
    marks = marks_of(config, objective.model, drawer)
    stood = state.choose(kept, is_previous=resuming.is_previous)
    before = state.read_notes(kept, stood)
    resume.require_same(kept, before.get("marks"), marks, resuming)
    first = state.load(kept, objective, average, optimizers, stood)
    journal = Journal(config.output / config.name, config, first, unit="sentences")
    sums: dict[str, list[float]] = defaultdict(list)
    for step, made in enumerate(prefetch.in_thread(drawer.step, range(first, config.steps)), first):
        share = optim.share_of_peak(step, config.steps, config.optimizer)
        optim.set_rates(optimizers, share)
        figures = _step(objective, made.to(device), step, config)
        norm = nn.utils.clip_grad_norm_(objective.parameters(), config.optimizer.max_grad_norm)
        for optimizer in optimizers:
            optimizer.step()
        objective.zero_grad(set_to_none=True)
        average.update(objective, step)
        journal.count(len(made.batch.sentences))
        for name, value in figures.items():
            sums[name].append(value)
        done = step + 1
        if done % config.log_every == 0 or done == config.steps:
            means = {name: sum(values) / len(values) for name, values in sums.items()}
            sums.clear()
            rates = {"learning_rate": share * config.optimizer.learning_rate, "grad_norm": float(norm)}
            looked = unseen.look(objective, average) if _is_due(done, config) else {}
            entry = journal.entry(done, {**rates, **means, **looked})
            journal.write(entry)
            report(entry)
        if done % config.save_every == 0 or done == config.steps:
            notes = journal.notes(before, torch.device(device)) | {"marks": marks}
            state.save(kept, done, objective, average, optimizers, notes)
    journal.close()
    return objective


def _is_due(done: int, config: VirstTrainConfig) -> bool:
    """Whether what is held out is looked at."""
    every = config.held_out_every
    return every > 0 and (done == config.steps or done // every > (done - config.log_every) // every)


def start(config: VirstTrainConfig, device: torch.device | str) -> Virst:
    """What the run starts from; errors as in `train`.

    In evaluation mode, as it stays: what is dropped in training is drawn by generators that are handed on.
    """
    if config.init:
        return folders.load(config.init, device=device, is_learning=True)
    return build(config.model, seed=config.seed, device=device).eval()


def export(config: VirstTrainConfig, place: Path, provenance: Mapping[str, object]) -> None:
    """Write the averaged weights of a run, as they stand, as a VIRST folder.

    Args:
        place: Must not exist, or be a folder that a model was saved in, which is replaced as a whole.
        provenance: What the folder tells beside steps, hours, hardware and settings.

    Raises:
        CheckpointError: If the run has saved no state yet.
    """
    kept = config.output / config.name / "state"
    averages = state.read_tensors(kept, "average")
    model = start(config, "cpu")
    notes = state.read_notes(kept)
    facts = {
        **provenance,
        "stage": config.stage,
        "init": config.init,
        "steps": state.read_step(kept),
        "sentences": notes.get("sentences", 0),
        "hours": round(notes.get("seconds", 0.0) / 3600, 3),
        "hardware": notes.get("hardware", "not recorded"),
        "settings": json.loads(json.dumps(to_dict(config), default=str)),
    }
    learned = {name.removeprefix(MODEL): value for name, value in averages.items() if name.startswith(MODEL)}
    folders.save(place, model, tensors=learned, provenance=facts)


def optimizers_of(objective: Objective, config: VirstTrainConfig) -> list[torch.optim.Optimizer]:
    """AdamW for the backbone at its own rate, and for the rest."""
    model = objective.model
    parts: dict[str, nn.Module | None] = {"initial": model.initial, "second": model.second, "boxes": objective.boxes}
    parts["pointer"] = objective.pointer
    rest = nn.ModuleDict({name: part for name, part in parts.items() if part is not None})
    assert isinstance(model.branch, nn.Module)
    assert isinstance(model.backbone, nn.Module)
    rest["branch"] = model.branch
    backbone = list(optim.build(model.backbone, config.optimizer))
    for optimizer in backbone:
        for group in optimizer.param_groups:
            group["peak"] *= config.backbone_rate
    return [*optim.build(rest, config.optimizer), *backbone]


def marks_of(config: VirstTrainConfig, model: Virst, drawer: Drawer) -> dict[str, object]:
    """What must be equal for a run to go on exactly; a backbone that reads nothing may be another."""
    marks = resume.marks(config, drawer.fingerprint(), PACKAGES)
    settings = {name: value for name, value in marks["settings"].items() if name not in FREE}
    branch = "" if config.init else resume.start_fingerprint(config.model.branch.start)
    backbone = "" if config.stage == "warm" else model.backbone.origin()
    started = f"{marks['start']} {backbone} {branch}"
    return marks | {"settings": settings, "start": hashlib.sha256(started.encode()).hexdigest()}


def _step(objective: Objective, made: Step, step: int, config: VirstTrainConfig) -> dict[str, float]:
    """Leave the gradients of a step's loss in the model; figures."""
    generator = torch.Generator().manual_seed(config.seed * STRIDE + step)
    device = made.batch.canvases.device.type
    with torch.autocast(device, dtype=torch.bfloat16, enabled=config.dtype == "bfloat16"):
        loss, figures = objective(made, generator)
    if not bool(torch.isfinite(loss)):
        raise TrainingError(
            f"the loss of {', '.join(made.names)} at step {step} is not finite; look at these examples, or lower the "
            "learning rate; the state saved last is whole"
        )
    loss.backward()
    for parameter in objective.parameters():
        if parameter.grad is None and parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    return {"loss": float(loss.detach()), **figures}
