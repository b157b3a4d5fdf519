"""Where the network computes: the only place that chooses a device.

Enters: what the user wrote after `--device`. Leaves: a `torch.device`. Does not know models.
"""

from typing import TYPE_CHECKING

from dynin.config import suggest
from dynin.errors import RequestError

if TYPE_CHECKING:
    import torch

KINDS = ("auto", "cpu", "cuda", "mps")


def resolve(name: str) -> "torch.device":
    """A device by name; `auto` takes cuda, then mps, then cpu, whichever is there first.

    Raises:
        RequestError: If the name is unknown, or this machine has no such device.
    """
    import torch

    has = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, is_there in has.items() if is_there))
    kind, _, number = name.partition(":")
    if kind not in has or (number and not number.isdigit()):
        raise RequestError(f"unknown device {name!r}{suggest(kind, KINDS)}")
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if not has[kind] or int(number or 0) >= count:
        raise RequestError(f"this machine has no device {name!r}; use --device auto or --device cpu")
    return torch.device(name)
