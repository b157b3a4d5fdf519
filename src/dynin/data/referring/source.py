"""What every collection of referring examples is to its reader: so many videos, and the sentences of each.

Enters: nothing. Leaves: the protocol `ReferringSource` and a walk through all of its examples. Does not know layouts
on disk, worlds or networks.
"""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from dynin.data.referring.example import ReferringExample


@runtime_checkable
class ReferringSource(Protocol):
    """Videos or pictures by index; nothing of a video is read before it is asked for."""

    def __len__(self) -> int:
        """Number of videos or pictures."""
        ...

    def examples(self, index: int) -> list[ReferringExample]:
        """Every sentence about the video or picture at an index, from 0; they share its frames.

        Raises:
            DataError: If a frame or mask of it is missing or wrong; names the file, the video and the sentence.
            IndexError: If the index is outside the source.
        """
        ...


def walk(source: ReferringSource) -> Iterator[ReferringExample]:
    """Every example of a source in its order."""
    for index in range(len(source)):
        yield from source.examples(index)
