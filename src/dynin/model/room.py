"""Whether weights fit before they are read: what a device has free, and one error with both numbers.

Enters: bytes, and a device. Leaves: nothing, or an error. Does not know networks or files.
"""

import os
from pathlib import Path

import torch

from dynin.errors import CheckpointError

IGNORE = "DYNIN_IGNORE_MEMORY"
"""An environment variable: set to 1, weights are read however little is free."""
_MEMINFO = Path("/proc/meminfo")


def available_bytes(device: torch.device | str | None = None) -> int | None:
    """Bytes that a device can still give, None where it cannot be asked.

    Of the memory of the processor on Linux, what the system can give without swapping; elsewhere the free pages. Of a
    CUDA device, what is free and what this process holds without using it.
    """
    place = torch.get_default_device() if device is None else torch.device(device)
    if place.type == "cuda":
        free, _ = torch.cuda.mem_get_info(place)
        return free + torch.cuda.memory_reserved(place) - torch.cuda.memory_allocated(place)
    if place.type != "cpu":
        return None
    if _MEMINFO.is_file():
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text(encoding="ascii").splitlines() if ":" in line)
        if "MemAvailable" in lines:
            return int(lines["MemAvailable"].split()[0]) * 1024
    if hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def require_memory(what: str, num_bytes: int, device: torch.device | str | None = None, beside: int = 0) -> None:
    """Compare what weights need with what a device has free; where that cannot be told, nothing is refused.

    Args:
        beside: Bytes of the tokenizers of pictures and speech that a model has besides, which it needs as well.

    Raises:
        CheckpointError: If they do not fit and DYNIN_IGNORE_MEMORY is not 1; the message has both numbers.
    """
    free = available_bytes(device)
    if free is None or num_bytes + beside <= free or os.environ.get(IGNORE) == "1":
        return
    place = torch.get_default_device() if device is None else torch.device(device)
    more = f" and {gigabytes(beside)} for its tokenizers of pictures and speech" if beside else ""
    raise CheckpointError(
        f"{what}: needs {gigabytes(num_bytes)} for its weights{more}, {gigabytes(free)} are free on {place}; take a "
        f'shorter dtype (--dtype bfloat16, or weights = "int8" in a TOML file), another device, or free some memory; '
        f"{IGNORE}=1 tries all the same, and `dynin plan` tells what a request needs"
    )


def gigabytes(num_bytes: int) -> str:
    """Bytes as a person reads them, 1 GB being 10 ** 9; small numbers in MB."""
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"
