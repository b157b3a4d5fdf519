"""Muon for the matrices inside the blocks, AdamW for the rest; rates over time; a running average of the weights.

Enters: a network and an `OptimizerConfig`. Leaves: optimizers, rates and averaged weights. Does not know losses.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import get_ema_multi_avg_fn

from dynin.errors import ConfigError
from dynin.optional import import_quietly
from dynin.training import parallel, processes
from dynin.training.config import OptimizerConfig
from dynin.training.freeze import Frozen

TURNED_BYTES = 64 * 1024**2
"""Room for the matrices that Muon turns together, in bfloat16; a larger one is turned alone."""


def build(model: nn.Module, config: OptimizerConfig, frozen: Frozen | None = None) -> Sequence[Optimizer]:
    """The optimizers of a network; every group keeps its highest rate under "peak".

    Matrices of the blocks turn their momentum into its nearest orthogonal matrix (Muon), scaled to the size of AdamW's
    steps. Tables (embedding and output) and vectors follow AdamW; vectors, the embedding, and tables of which some rows
    are frozen are not decayed.

    Raises:
        ConfigError: If states in 8 bits are wanted where they are not to be had.

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
        optimizers.append(_adamw(filled, config))
    if matrices:
        optimizers.append(Muon(matrices, lr=config.matrix_rate, weight_decay=config.weight_decay))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak"] = float(group["lr"])
    return optimizers


def _adamw(groups: list[dict[str, Any]], config: OptimizerConfig) -> Optimizer:
    """AdamW, with what it remembers in 32 or in 8 bits.

    Source:
        Dettmers et al., arXiv:2110.02861 (states in 8 bits, each block of 256 scaled by its largest).
    """
    settings: dict[str, Any] = {"lr": config.learning_rate, "betas": (config.beta1, config.beta2), "eps": config.eps}
    if config.state_bits == 32:
        return torch.optim.AdamW(groups, fused=True, **settings)
    if processes.count() > 1:
        raise ConfigError(
            f"setting 'optimizer.state_bits' is 8 and there are {processes.count()} processes, which share the states "
            "out already; give --set optimizer.state_bits=32"
        )
    parallel.require_compiler("optimizer.state_bits", "32", is_cpu=groups[0]["params"][0].is_cpu)
    try:
        made: Optimizer = import_quietly("torchao.optim").AdamW8bit(groups, **settings)
    except ImportError as error:
        raise ConfigError(
            "setting 'optimizer.state_bits' is 8, which needs the package torchao; run: pip install 'dynin[quantize]'"
        ) from error
    return made


def plain(name: str, state: Tensor) -> dict[str, Tensor]:
    """What an optimizer remembers as tensors of its own, by name, so that they can be saved and filled again.

    States in 8 bits are one tensor to PyTorch and two in memory: codes, and a scale for each block of them.
    """
    names = ("codes", "scale") if hasattr(state, "codes") else ()
    return {f"{name}.{part}": getattr(state, part) for part in names} or {name: state}


def set_rate(group: dict[str, Any], rate: float) -> None:
    """The rate of one group; some optimizers keep it in a tensor."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate


class Muon(torch.optim.Muon):
    """Muon that turns matrices of one shape together, split over processes or not.

    PyTorch's own step turns one after another, which a GPU spends on starting small kernels; and where matrices are
    split it multiplies shards with each other, which takes many exchanges for each matrix and rounds their sums to
    bfloat16. Here momentum stays split; only the matrices that are being turned are put together, in each process.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step; the numbers are those of `torch.optim.Muon` over whole matrices."""
        for group in self.param_groups:
            alike: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike[parameter.shape].append(parameter)
            for shape, matrices in alike.items():
                size = max(1, TURNED_BYTES // (torch.bfloat16.itemsize * shape.numel()))
                for first in range(0, len(matrices), size):
                    self._move(matrices[first : first + size], group)

    def _move(self, matrices: list[Tensor], group: Mapping[str, Any]) -> None:
        """Move matrices of one shape."""
        gradients = [matrix.grad for matrix in matrices if matrix.grad is not None]
        for matrix, gradient in zip(matrices, gradients, strict=True):
            if not self.state[matrix]:
                self.state[matrix]["momentum_buffer"] = torch.zeros_like(gradient)
        momenta = [self.state[matrix]["momentum_buffer"] for matrix in matrices]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        updates = [parallel.whole(update) for update in torch._foreach_lerp(gradients, momenta, group["momentum"])]
        changes = orthogonalized(
            torch.stack(updates), group["ns_coefficients"], group["ns_steps"], group["eps"]
        ).float()
        del updates
        rate = 0.2 * math.sqrt(max(matrices[0].shape)) * group["lr"]  # the size of AdamW's steps
        torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
        split = [parallel.like(change, matrix) for change, matrix in zip(changes, matrices, strict=True)]
        torch._foreach_add_(matrices, split, alpha=-rate)


def orthogonalized(
    matrices: Float[Tensor, "N R C"], coefficients: tuple[float, float, float], num_steps: int, eps: float
) -> Float[Tensor, "N R C"]:
    """Each matrix with its singular values brought near 1, in bfloat16, by a Newton-Schulz iteration.

    Source:
        Jordan et al., https://kellerjordan.github.io/posts/muon; `torch.optim.Muon` computes the same for one matrix.
    """
    first, second, third = coefficients
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.to(torch.bfloat16)
    x = x.mT if is_tall else x
    x = x / torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True).clamp(min=eps)
    for _ in range(num_steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=second, alpha=third), x, beta=first)
    return x.mT if is_tall else x


def set_rates(optimizers: Sequence[Optimizer], share: float) -> None:
    """Every rate to this share of its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            set_rate(group, group["peak"] * share)


def share_of_peak(step: int, steps: int, config: OptimizerConfig) -> float:
    """The share of the peak rates at a step, counted from 0.

    linear    (step + 1) / warm-up, level, then a straight line to the final fraction at `steps`
    cosine    step / warm-up, so that the first step moves nothing, then half a cosine to the final fraction

    Parity:
        With "cosine" and a final fraction of 0 the schedule of the published trainings, to the step.
    """
    warmup, final = config.warmup_steps, config.final_fraction
    if config.schedule == "cosine":
        if step < warmup:
            return step / warmup
        progress = min(1.0, (step - warmup) / max(1, steps - warmup))
        return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2
    if step < warmup:
        return (step + 1) / warmup
    first = max(warmup, int(steps * (1 - config.decay_share)))
    if step < first:
        return 1.0
    progress = min(1.0, (step - first) / max(1, steps - first))
    return 1 - (1 - final) * progress


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
        present = {name: parameter for name, parameter in model.named_parameters() if name in self.tensors}
        averages = [self.tensors[name] for name in present]
        get_ema_multi_avg_fn(decay)(averages, [parameter.detach().float() for parameter in present.values()], None)
