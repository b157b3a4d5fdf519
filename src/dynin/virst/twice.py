"""A video that is gone through twice, and decoded once where its frames fit into a little room.

Enters: frames, from the first on. Leaves: the first of them, then all of them. Does not know what is done with frames.

    first(count)   frame 0 .. count - 1, kept while there is room
    whole()        all were kept: those that were kept, and on from there; otherwise from the start again
"""

from collections.abc import Iterable, Iterator
from itertools import chain, islice

from dynin.media.stream import Frame

ROOM_BYTES = 8 << 20
"""Frames that are kept at most: some hundreds of 64 px, few of a camera. Memory stays flat in the video's length."""


class Twice:
    """See the file."""

    def __init__(self, video: Iterable[Frame], *, room_bytes: int = ROOM_BYTES) -> None:
        """Nothing is decoded yet."""
        self._video = video
        self._room_bytes = room_bytes
        self._rest: Iterator[Frame] | None = None
        self._kept: list[Frame] = []

    def first(self, count: int) -> Iterator[Frame]:
        """So many frames, or all that there are; call it once, and go through it before `whole`."""
        assert self._rest is None, "the first pass was gone through before"
        self._rest = frames = iter(self._video)
        num_bytes = 0
        for frame in islice(frames, count):
            num_bytes += frame.levels.nbytes
            if num_bytes <= self._room_bytes:
                self._kept.append(frame)
            else:
                self._rest, self._kept = None, []
            yield frame

    def whole(self) -> Iterator[Frame]:
        """Every frame from the first to the last; call it once."""
        kept, rest = self._kept, self._rest
        self._kept, self._rest = [], None
        return iter(self._video) if rest is None else chain(_handed_out(kept), rest)


def _handed_out(frames: list[Frame]) -> Iterator[Frame]:
    """One after another, none of which is held any longer."""
    frames.reverse()
    while frames:
        yield frames.pop()
