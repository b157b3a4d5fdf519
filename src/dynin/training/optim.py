"""Muon for the matrices inside the blocks, AdamW for the rest; rates over time; a running average of the weights.

Enters: a network and an `OptimizerConfig`. Leaves: optimizers, rates and averaged weights. Does not know losses.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dynin.training import parallel
from dynin.training.config import OptimizerConfig
from dynin.training.freeze import Frozen


def build(model: nn.Module, config: OptimizerConfig, frozen: Frozen | None = None) -> Sequence[Optimizer]:
    """The optimizers of a network; every group keeps its highest rate under "peak".

    Matrices of the blocks turn their momentum into its nearest orthogonal matrix (Muon), scaled to the size of AdamW's
    steps. Tables (embedding and output) and vectors follow AdamW; vectors, the embedding, and tables of which some rows
    are frozen are not decayed.

    Source:
        Liu et al., arXiv:2502.16982 (Muon with AdamW's size of steps).
    """
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    matrices = [p for name, p in named if config.matrix_rate and name.startswith("blocks.") and p.ndim == 2]
    taken = {id(parameter) for parameter in matrices}
    rest = [(name, parameter) for name, parameter in named if id(parameter) not in taken]
    is_plain = {
        name: parameter.ndim < 2 or "embed" in name or (frozen is not None and frozen.is_partial(parameter))
        for name, parameter in rest
    }
    groups = [
        {"params": [p for name, p in rest if not is_plain[name]], "weight_decay": config.weight_decay},
        {"params": [p for name, p in rest if is_plain[name]], "weight_decay": 0.0},
    ]
    optimizers: list[Optimizer] = []
    if rest:
        filled = [group for group in groups if group["params"]]
        optimizers.append(torch.optim.AdamW(filled, lr=config.learning_rate, betas=(0.9, config.beta2), fused=True))
    if matrices:
        kind = ShardedMuon if parallel.is_sharded(matrices[0]) else torch.optim.Muon
        optimizers.append(
            kind(matrices, lr=config.matrix_rate, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw")
        )
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return optimizers


class ShardedMuon(torch.optim.Muon):
    """Muon over matrices that are split over processes.

    Momentum stays split; only the matrix that is to be turned is put together, in each process. PyTorch's own step
    multiplies shards with each other, which takes many exchanges for each matrix and rounds their sums to bfloat16.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step; the numbers are those of `torch.optim.Muon` over whole matrices."""
        for group in self.param_groups:
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is None:
                    continue
                momentum = self.state[parameter].setdefault("momentum_buffer", torch.zeros_like(gradient))
                momentum.lerp_(gradient, 1 - group["momentum"])
                update = gradient.lerp(momentum, group["momentum"])
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(parallel.like(_turned(parallel.whole(update), group), parameter))


def _turned(update: Tensor, group: Mapping[str, Any]) -> Tensor:
    """What Muon adds to a whole matrix for an update, momentum and decay apart."""
    change = nn.Parameter(torch.zeros_like(update))
    change.grad = update
    settings = {name: group[name] for name in ("lr", "ns_coefficients", "ns_steps", "eps", "adjust_lr_fn")}
    torch.optim.Muon([change], momentum=0.0, nesterov=False, weight_decay=0.0, **settings).step()
    return change.detach()


def set_rates(optimizers: Sequence[Optimizer], share: float) -> None:
    """Every rate to this share of its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * share


def share_of_peak(step: int, steps: int, config: OptimizerConfig) -> float:
    """The share of the peak rates at a step: linear warm-up, level, then a linear fall to the final fraction."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    first = max(config.warmup_steps, int(steps * (1 - config.decay_share)))
    if step < first:
        return 1.0
    progress = min(1.0, (step - first) / max(1, steps - first))
    return 1 - (1 - config.final_fraction) * progress


class Average:
    """A running average of the weights that learn, in float32, with a short memory at the start."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.tensors: dict[str, Tensor] = {
            name: parameter.detach().clone().float()
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move the average towards the network's present weights."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, parameter in model.named_parameters():
            if name in self.tensors:
                self.tensors[name].lerp_(parameter.detach().float(), 1 - decay)
