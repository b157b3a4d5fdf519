"""What is done to a network from outside before it trains: recomputing, compiling, sharding over processes.

Enters: a network whose weights are there. Leaves: the same network, changed in place; names of weights stay as they
are. Does not know losses, data or files. The order is that of torchtitan: each block recomputed, then compiled, then
sharded.

    recompute    a block's inner values are made again on the way back instead of kept
    compile      `torch.compile` of each block
    shard        FSDP2: weights, gradients and optimizer states are split over the processes by rows
"""

import shutil
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils.checkpoint import checkpoint

from dynin.errors import ConfigError
from dynin.model.transformer import Transformer

COMPILERS = ("c++", "g++", "clang++", "cl")
LAUNCHERS = ("cc", "gcc", "clang")
"""C compilers, which suffice where kernels do not run on the processor."""
MOST_SHAPES = 64
"""Shapes of batches that the blocks are compiled for."""


def recompute_blocks(model: Transformer) -> None:
    """Keep only the inputs of the blocks until the way back (activation checkpointing)."""
    for block in model.blocks:
        block.forward = _recomputed(block.forward)


def _recomputed(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The same function, made again on the way back; a closure, since `torch.compile` leaves partials uncompiled."""

    def again(*given: Any) -> Tensor:
        made: Tensor = checkpoint(forward, *given, use_reentrant=False)
        return made

    return again


def compile_blocks(model: Transformer, *, is_dynamic: bool = False) -> None:
    """Compile the blocks in place, once for each shape of a batch, or once for any.

    Raises:
        ConfigError: If no compiler is there.
    """
    require_compiler("compile", "false", is_cpu=next(model.parameters()).is_cpu)
    torch._dynamo.config.recompile_limit = MOST_SHAPES
    for block in model.blocks:
        block.compile(dynamic=is_dynamic)


def require_compiler(setting: str, instead: str, *, is_cpu: bool) -> None:
    """ConfigError where `torch.compile` would find no compiler; it names the setting and what to give instead."""
    names = COMPILERS if is_cpu else COMPILERS + LAUNCHERS
    if not any(shutil.which(name) for name in names):
        raise ConfigError(
            f"setting {setting!r} compiles, but none of the compilers {', '.join(names)} was found; install one, or "
            f"give --set {setting}={instead}"
        )


def shard(root: nn.Module, blocks: Iterable[nn.Module], *, is_frugal: bool) -> None:
    """Split every weight over the processes of the run; nothing happens where there is one process.

    Gradients are summed, not averaged: losses are sums, divided by the weight of all processes' batches.

    Args:
        root: The module whose `forward` is called.
        is_frugal: Give up the whole weights of a block after each use (less memory, more traffic); otherwise they are
            put together once a step.

    Raises:
        ConfigError: If processes share an accelerator.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return
    device = next(root.parameters()).device
    if device.type != "cpu" and dist.get_backend() == "gloo":
        raise ConfigError(
            f"{dist.get_world_size()} processes share fewer accelerators, and this training splits its weights over "
            "processes, for which each needs one of its own; start fewer with --nproc-per-node"
        )
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for module in (*blocks, root):
        fully_shard(module, mesh=mesh, reshard_after_forward=is_frugal)
    for part in root.modules():
        if isinstance(part, FSDPModule):
            part.set_gradient_divide_factor(1.0)
            part.set_force_sum_reduction_for_comms(True)  # gloo has no scaled sums


def exchange(root: nn.Module, *, is_last: bool, is_frugal: bool) -> None:
    """Say before each batch of a step whether its gradients are exchanged: at the last one alone, or always."""
    if isinstance(root, FSDPModule):
        root.set_requires_gradient_sync(is_last or is_frugal)
        root.set_reshard_after_backward(is_last or is_frugal)
        root.set_is_last_backward(is_last)


def like(value: Tensor, parameter: Tensor) -> Tensor:
    """A tensor split as a parameter is; every process has the whole one, so nothing is exchanged."""
    if isinstance(parameter, DTensor):
        return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)
    return value


def whole(value: Tensor) -> Tensor:
    """A tensor put together from all processes."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def even(items: Sequence[Any], blank: Any, num_processes: int) -> list[Any]:
    """As many items for each process, filled up with blank ones."""
    return [*items, *[blank] * (-len(items) % num_processes)]
