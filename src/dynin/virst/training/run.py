"""Put a training of VIRST together, run or resume it, and write what it learned.

Enters: a `VirstTrainConfig`. Leaves: a run's folder with log and state, and a VIRST folder. Does not know what a step
costs (`objective`), or how steps follow each other and what is kept (`training.whole`).
"""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn

from dynin.errors import TrainingError
from dynin.training import optim, resume, state, whole
from dynin.training.journal import Figures
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
UNIT = "sentences"
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
    learning = whole.Learning(
        network=objective,
        optimizers=optimizers_of(objective, config),
        draw=drawer.step,
        learn=lambda made, step: _step(objective, made.to(device), step, config),
        count=lambda made: len(made.batch.sentences),
        unit=UNIT,
        marks=marks_of(config, objective.model, drawer),
        look=lambda done, average: unseen.look(objective, average) if _is_due(done, config) else {},
    )
    whole.run(learning, config, device=device, report=report, resuming=resuming)
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
        model = folders.load(config.init, device=device, is_learning=True)
        return folders.grown(model, config.adds, seed=config.seed) if config.adds else model
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
    facts = whole.provenance(config, UNIT, {**provenance, "stage": config.stage, "init": config.init})
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
