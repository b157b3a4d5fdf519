"""What a run tells while it goes on: lines of JSON, and curves for TensorBoard.

Enters: figures of a step. Leaves: log.jsonl, and event files that TensorBoard shows without an account. Does not know
networks.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from dynin.errors import ConfigError
from dynin.training import processes

Figures = Mapping[str, int | float]
"""What is reported: step, steps, rates, and loss and accuracy by task."""


@runtime_checkable
class Told(Protocol):
    """Settings of a run, whatever it trains."""

    @property
    def steps(self) -> int:
        """How many steps it takes."""
        ...

    @property
    def tensorboard(self) -> bool:
        """Whether curves are written."""
        ...


class Journal:
    """Counts positions, or other units, and time of one run; the first process writes."""

    def __init__(self, folder: Path, config: Told, first: int, unit: str = "tokens") -> None:
        self.folder, self.config, self.first, self.unit = folder, config, first, unit
        self.started, self.tokens = time.monotonic(), 0
        self._events: Any = None
        if config.tensorboard and processes.rank() == 0:
            self._events = _writer(folder / "tensorboard", first)

    def count(self, tokens: int) -> None:
        """Add units that went through the network; of positions, padding left out."""
        self.tokens += tokens

    def entry(self, done: int, more: Figures) -> Figures:
        """The figures of a step, with speed and time left."""
        seconds = time.monotonic() - self.started
        return {
            "step": done,
            "steps": self.config.steps,
            f"{self.unit}_per_s": self.tokens / seconds,
            "seconds_left": seconds / (done - self.first) * (self.config.steps - done),
            **more,
        }

    def write(self, entry: Figures) -> None:
        """Add a line, and a point to every curve."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({key: round(value, 6) for key, value in entry.items()}) + "\n")
        if self._events is not None:
            for name, value in entry.items():
                if name not in ("step", "steps"):
                    self._events.add_scalar(name, value, int(entry["step"]))
            self._events.flush()

    def notes(self, before: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
        """Time, positions and hardware of the run so far, earlier sittings included."""
        return {
            "seconds": before.get("seconds", 0.0) + time.monotonic() - self.started,
            self.unit: before.get(self.unit, 0) + self.tokens,
            "hardware": f"{device.type}, {processes.count()} processes of {torch.get_num_threads()} threads",
        }

    def close(self) -> None:
        """Close the event file."""
        if self._events is not None:
            self._events.close()


def _writer(folder: Path, first: int) -> Any:
    """TensorBoard's own writer; points behind `first`, left by a run that was killed, are hidden."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "setting 'tensorboard' is true, but the package tensorboard is missing; run: pip install 'dynin[train]', "
            "or give --set tensorboard=false"
        ) from error
    return SummaryWriter(str(folder), purge_step=first + 1)
