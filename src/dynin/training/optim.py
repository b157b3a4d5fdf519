"""AdamW, its learning rate over time, and a running average of the weights.

Enters: a network and an `OptimizerConfig`. Leaves: an optimizer, rates and averaged weights. Does not know losses.
"""

import math

import torch
from torch import Tensor, nn

from dynin.training.config import OptimizerConfig


def build(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW over all parameters; vectors (norms) and embeddings are not decayed."""
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    is_plain = {name: parameter.ndim < 2 or "embed" in name for name, parameter in named}
    groups = [
        {"params": [p for name, p in named if not is_plain[name]], "weight_decay": config.weight_decay},
        {"params": [p for name, p in named if is_plain[name]], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, config.beta2), fused=True)


def rate(step: int, steps: int, config: OptimizerConfig) -> float:
    """The learning rate at a step: linear warm-up, then a cosine from the peak to its final fraction."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    share = config.final_fraction + (1 - config.final_fraction) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return config.learning_rate * share


class Average:
    """A running average of the weights, in float32, with a short memory at the start."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.tensors: dict[str, Tensor] = {
            name: parameter.detach().clone().float() for name, parameter in model.named_parameters()
        }

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move the average towards the network's present weights."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, parameter in model.named_parameters():
            self.tensors[name].lerp_(parameter.detach().float(), 1 - decay)
