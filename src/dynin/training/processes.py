"""The processes of one run, as `torchrun` starts them, and how they meet.

Enters: values of one process. Leaves: those of all. Does not know networks, losses or tasks. Outside `torchrun` there
is one process and nothing is exchanged. How a network is shared out among them is in `training.parallel`.
"""

import gc
import os
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

Item = TypeVar("Item")
PATIENCE = timedelta(seconds=int(os.environ.get("DYNIN_PATIENCE_S", "600")))
"""How long a process waits for the others before it gives up; the first steps may compile for minutes."""
QUIET_S = 0.5
"""The pause after the last exchange."""


def join() -> None:
    """Meet the other processes, if `torchrun` started any; call once, before training.

    Where there are more of them than accelerators, they share these, and meet by way of the host: a small network that
    waits for its next kernel most of the time leaves room for others. Processes that are each shown one accelerator
    alone count as sharing it.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or dist.is_initialized():
        return
    num_devices = torch.accelerator.device_count() if torch.accelerator.is_available() else 0
    backend, here = None, int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if num_devices:
        torch.accelerator.set_device_index(int(os.environ.get("LOCAL_RANK", "0")) % num_devices)
        backend = "gloo" if here > num_devices else None
    dist.init_process_group(backend, timeout=PATIENCE)


def leave() -> None:
    """Part from the other processes.

    Threads of gloo may hold on to values of the last exchange for a moment. Letting go of them needs the interpreter,
    so one that comes too late ends the process with SIGABRT; the pause lets them finish.
    """
    if dist.is_initialized():
        dist.destroy_process_group()
        gc.collect()
        time.sleep(QUIET_S)


def rank() -> int:
    """The number of this process, from 0; process 0 alone logs."""
    return dist.get_rank() if dist.is_initialized() else 0


def count() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def meet() -> None:
    """Wait until every process is here."""
    if dist.is_initialized():
        dist.barrier()


def share(items: Sequence[Item]) -> list[tuple[int, Item]]:
    """The items of this process, each with its place among all."""
    return list(enumerate(items))[rank() :: count()]


def gather(value: Any) -> list[Any]:
    """The values of all processes, in the order of their numbers."""
    if not dist.is_initialized():
        return [value]
    values = [None] * count()
    dist.all_gather_object(values, value)
    return values


def shared(make: Callable[[], Item]) -> Item:
    """What the first process makes, in all of them; an error that it meets is raised in all of them."""
    if not dist.is_initialized():
        return make()
    kept: list[Any] = [None, None]
    if rank() == 0:
        try:
            kept[0] = make()
        except Exception as error:  # noqa: BLE001 - raised below, in every process
            kept[1] = error
    dist.broadcast_object_list(kept)
    if kept[1] is not None:
        raise kept[1]
    return kept[0]  # type: ignore[no-any-return]
