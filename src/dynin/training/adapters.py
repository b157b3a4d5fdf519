"""Low-rank adapters (LoRA) by the package `peft`: put beside a network's matrices, and added into them at the end.

Enters: a network and settings. Leaves: the same network with adapters that alone learn; or plain weights again. Does
not know losses or files. The only file that knows `peft`.

Source:
    Hu et al., arXiv:2106.09685.
"""

import re
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dynin.errors import ConfigError
from dynin.optional import import_quietly
from dynin.training.config import LoraConfig

_A, _B = ".lora_A.default.weight", ".lora_B.default.weight"


def add(model: nn.Module, config: LoraConfig, *, seed: int, within: str = "blocks") -> None:
    """Freeze the network and put an adapter beside each target; in float32, whatever the network holds.

    Args:
        within: The part of the network that has the targets.

    Raises:
        ConfigError: If the package is missing, or a target is not there.
    """
    peft = _peft()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    parts = model.get_submodule(within).named_modules()
    matrices = {name.rpartition(".")[2] for name, part in parts if isinstance(part, nn.Linear)}
    unknown = sorted(set(config.targets) - matrices)
    if unknown or not config.targets:
        raise ConfigError(f"setting 'lora.targets' names {unknown or 'nothing'}; known: {', '.join(sorted(matrices))}")
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        target_modules=rf"{re.escape(within)}\..*\.({'|'.join(config.targets)})",
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="TorchaoLoraLinear")  # it cannot merge by itself; `merged` does
        peft.inject_adapter_in_model(settings, model)
    device = next(model.parameters()).device
    generator = torch.Generator(device=device).manual_seed(seed)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)
        if name.endswith(_A):  # peft's own values, from a generator of ours; the other factor starts at zero
            bound = parameter.shape[1] ** -0.5
            parameter.data.uniform_(-bound, bound, generator=generator)


@torch.no_grad()
def merged(weights: Mapping[str, Tensor], learned: Mapping[str, Tensor], config: LoraConfig) -> dict[str, Tensor]:
    """Plain weights with the adapters added in, in float32.

    Args:
        weights: Of the network without adapters.
        learned: Of the adapters, by the names they have beside it.
    """
    result = dict(weights)
    for name, first in learned.items():
        if name.endswith(_A):
            owner = name.removesuffix(_A)
            product = learned[owner + _B].float() @ first.float()
            base = weights[owner + ".weight"]
            result[owner + ".weight"] = (base.float() + config.alpha / config.rank * product).to(base.dtype)
    return result


def fold(model: nn.Module) -> None:
    """Add the adapters into the matrices where they are, for a network that is asked and learns no more.

    Each matrix is one product then instead of three. Adapters beside matrices of fewer than 32 bits stay beside them:
    their sum would be rounded.
    """
    layer = (
        import_quietly("peft.tuners.lora").LoraLayer if any(".lora_" in n for n, _ in model.named_parameters()) else ()
    )
    for part in model.modules():
        if isinstance(part, layer) and part.get_base_layer().weight.dtype == torch.float32:
            part.merge()


def _peft() -> Any:
    try:
        return import_quietly("peft")
    except ImportError as error:
        raise ConfigError(
            f"setting 'lora.rank' needs the package peft, which cannot be imported ({error}); run: "
            "pip install 'dynin[train]'"
        ) from error
