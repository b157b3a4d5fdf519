"""What a person sees while a result is made: text as it is unmasked, a bar with time left, or plain lines.

Enters: snapshots. Leaves: lines on stderr or another console. Does not know requests or files.
"""

import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

if TYPE_CHECKING:
    from dynin.pipeline.result import Snapshot

PLAIN_EVERY_S = 5.0
"""Seconds between two plain lines."""
MIDDLE_DOT = "\u00b7"


class Watcher:
    """Shows snapshots: on a terminal they replace each other and vanish at the end, elsewhere long work says lines."""

    def __init__(self, title: str, console: Console | None = None) -> None:
        """Show nothing yet; on stderr, unless another console is given."""
        self._title = title
        self._console = console or Console(stderr=True)
        self._live: Live | None = None
        self._progress: Progress | None = None
        self._started = self._said = time.monotonic()

    def __enter__(self) -> "Watcher":
        """Start."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Clear what was shown."""
        self._close()

    def __call__(self, snapshot: "Snapshot") -> None:
        """Show one step."""
        if not self._console.is_terminal:
            self._say(snapshot)
        elif snapshot.text is not None:
            self._show_text(snapshot.text)
        else:
            self._show_bar(snapshot)

    def _say(self, snapshot: "Snapshot") -> None:
        now = time.monotonic()
        if now - self._said < PLAIN_EVERY_S:
            return
        self._said = now
        left = (now - self._started) / snapshot.num_forwards * (snapshot.num_planned - snapshot.num_forwards)
        self._console.print(
            f"{self._title}: {snapshot.num_forwards} of {snapshot.num_planned} steps, about {left:.0f} s left",
            highlight=False,
        )

    def _show_text(self, text: str) -> None:
        shown = Text(text)
        shown.highlight_regex(f"{MIDDLE_DOT}+", "dim")
        shown.highlight_regex(r"<think>.*?(</think>|$)", "italic dim")
        if self._live is None:
            self._close()
            self._live = Live(console=self._console, transient=True, auto_refresh=False)
            self._live.start()
        self._live.update(shown, refresh=True)

    def _show_bar(self, snapshot: "Snapshot") -> None:
        if self._progress is None:
            self._close()
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._progress = Progress(*columns, console=self._console, transient=True)
            self._progress.add_task(self._title, total=snapshot.num_planned)
            self._progress.start()
        task = self._progress.task_ids[0]
        self._progress.update(task, completed=snapshot.num_forwards, total=snapshot.num_planned)

    def _close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
