"""Lines of progress with the time that is left.

Enters: how far a slow command is. Leaves: one printed line for each call. Does not know what the command does.
"""

import time
from collections.abc import Mapping

import typer

SECONDS_BETWEEN = 2.0
"""Lines that would come sooner are left out, the last one excepted."""
NO_FIGURES: Mapping[str, float] = {}


class Progress:
    """Prints where a command stands; the time left follows from the pace since the first line."""

    def __init__(self, what: str, total: int) -> None:
        """`what` is counted, such as "step"; `total` is the count at the end."""
        self.what = what
        self.total = total
        self._first: tuple[int, float] | None = None
        self._printed_at = float("-inf")

    def __call__(self, done: int, figures: Mapping[str, float] = NO_FIGURES) -> None:
        """Print one line, unless the one before is fresh."""
        now = time.monotonic()
        if self._first is None:
            self._first = (done, now)
        if now < self._printed_at + SECONDS_BETWEEN and done < self.total:
            return
        self._printed_at = now
        since, started = self._first
        parts = [f"{self.what} {done} of {self.total}", *(f"{name} {value:.4g}" for name, value in figures.items())]
        if since < done < self.total:
            parts.append(f"{told_time((now - started) / (done - since) * (self.total - done))} left")
        typer.echo("  ".join(parts))


def told_time(seconds: float) -> str:
    """Seconds as "40 s", "12 min" or "3 h 05 min"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
