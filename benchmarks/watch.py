"""Seconds and peak memory of the stages that a request goes through, read from outside.

Enters: a device. Leaves: a `Watch` that wraps the functions of the library which are the stages, one inside another as
they come. Does not know models. The peak of each stage is counted anew where the system can: of a CUDA device always,
of a process on Linux where it may reset its own account.
"""

import resource
import sys
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import torch

_RESET, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def process_peak() -> int:
    """The most memory that this process has held since its account was reset."""
    told = _STATUS.read_text(encoding="ascii") if _STATUS.exists() else ""
    if "VmHWM:" in told:  # the other account begins with what the process had that started this one
        return int(told.split("VmHWM:")[1].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def forget_process_peak() -> None:
    """Let the account begin anew from what is held now, where the system allows it."""
    try:
        _RESET.write_text("5", encoding="ascii")
    except OSError:
        return


class Watch:
    """What stages took since `clear`: `seconds` and `peaks` in bytes, by stage; the peak of all is `whole`."""

    def __init__(self, device: torch.device) -> None:
        """Nothing is watched yet."""
        self.device = device
        self.seconds: dict[str, float] = {}
        self.peaks: dict[str, int] = {}
        self._open: list[str] = []
        if device.type == "cuda":
            torch.cuda.init()

    def clear(self) -> None:
        """Begin anew."""
        self.seconds.clear()
        self._fold()
        self.peaks.clear()

    @property
    def whole(self) -> int:
        """The most that was held since `clear`."""
        self._fold()
        return max(self.peaks.values())

    def around(self, owner: Any, name: str, stage: str) -> None:
        """Watch a function or a method, which is wrapped where it stands."""
        function: Callable[..., Any] = getattr(owner, name)

        @wraps(function)
        def watched(*given: Any, **more: Any) -> Any:
            self._fold()
            self._open.append(stage)
            started = time.monotonic()
            try:
                return function(*given, **more)
            finally:
                self._wait()
                self.seconds[stage] = self.seconds.get(stage, 0.0) + time.monotonic() - started
                self._fold()
                self._open.pop()

        setattr(owner, name, watched)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _fold(self) -> None:
        """Note the peak for the stages that are open, and count from here."""
        is_cuda = self.device.type == "cuda"
        peak = torch.cuda.max_memory_allocated(self.device) if is_cuda else process_peak()
        for stage in self._open or ["between"]:
            self.peaks[stage] = max(peak, self.peaks.get(stage, 0))
        if is_cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            forget_process_peak()
