"""What comes next, made by a thread while what came before is used.

Enters: an iterator. Leaves: the same values in the same order. Does not know what they are.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
_END = object()


def ahead(values: Iterator[Item], *, count: int = 1) -> Iterator[Item]:
    """Values that a thread draws, from now on, up to `count` of them before they are asked for.

    What the iterator raises is raised where its value would have come. Once nobody asks any more, the thread ends with
    the value that it is at.
    """
    worker = ThreadPoolExecutor(max_workers=1)
    waiting = deque(worker.submit(next, values, _END) for _ in range(count + 1))
    return _drawn(values, worker, waiting)


def _drawn(values: Iterator[Item], worker: ThreadPoolExecutor, waiting: deque[Future[Item | object]]) -> Iterator[Item]:
    try:
        while (value := waiting.popleft().result()) is not _END:
            waiting.append(worker.submit(next, values, _END))
            yield value  # type: ignore[misc]
    finally:  # no waiting: whoever closes this may be the worker itself
        worker.shutdown(wait=False, cancel_futures=True)
