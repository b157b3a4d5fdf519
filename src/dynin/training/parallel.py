"""Several processes that train one network, as `torchrun` starts them: each takes its share of a step's batches.

Enters: gradients and sums of one process. Leaves: those of all. Does not know losses or tasks. Outside `torchrun` there
is one process and nothing is exchanged. Every process holds the whole network and makes the same rows, so a run may be
continued by another number of processes.
"""

import os
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Item = TypeVar("Item")


def join() -> None:
    """Meet the other processes, if `torchrun` started any; call once, before training."""
    if "WORLD_SIZE" not in os.environ or dist.is_initialized():
        return
    if torch.accelerator.is_available():
        torch.accelerator.set_device_index(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group()


def leave() -> None:
    """Part from the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """The number of this process, from 0; process 0 alone logs and saves."""
    return dist.get_rank() if dist.is_initialized() else 0


def count() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def share(items: Sequence[Item]) -> list[tuple[int, Item]]:
    """The items of this process, each with its place among all."""
    return list(enumerate(items))[rank() :: count()]


def add_up(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor by its sum over all processes."""
    if not dist.is_initialized():
        return
    kept = list(tensors)
    flat = torch.cat([tensor.flatten() for tensor in kept])
    dist.all_reduce(flat)
    for tensor, part in zip(kept, flat.split([tensor.numel() for tensor in kept]), strict=True):
        tensor.copy_(part.view_as(tensor))


def gather(value: Any) -> list[Any]:
    """The values of all processes, in the order of their numbers."""
    if not dist.is_initialized():
        return [value]
    values = [None] * count()
    dist.all_gather_object(values, value)
    return values
