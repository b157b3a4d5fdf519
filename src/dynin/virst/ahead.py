"""What comes next, made by a thread while what came before is used.

Enters: an iterator. Leaves: the same values in the same order. Does not know what they are.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def ahead(values: Iterator[Item], *, count: int = 1) -> Iterator[Item]:
    """Values that a thread draws, up to `count` of them before they are asked for.

    What the iterator raises is raised where its value would have come. Once nobody asks any more, the thread ends with
    the value that it is at.
    """
    worker = ThreadPoolExecutor(max_workers=1)
    end = object()
    try:
        waiting = deque(worker.submit(next, values, end) for _ in range(count + 1))
        while (value := waiting.popleft().result()) is not end:
            waiting.append(worker.submit(next, values, end))
            yield value  # type: ignore[misc]
    finally:  # no waiting: whoever closes this may be the worker itself
        worker.shutdown(wait=False, cancel_futures=True)
