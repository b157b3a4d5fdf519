"""How fine numbers can be on a device.

Enters: a device. Leaves: a dtype. Does not know what is computed.
"""

from functools import cache

import torch


@cache
def _has_float64(kind: str) -> bool:
    """Whether a kind of device computes in float64; some have none."""
    try:
        torch.zeros(1, device=kind).to(torch.float64)
    except (TypeError, RuntimeError):
        return False
    return True


def finest(device: torch.device) -> torch.dtype:
    """float64, or float32 on devices that know nothing finer."""
    return torch.float64 if _has_float64(device.type) else torch.float32
