"""Annotation ids that no file writes down: Ref-YouTube-VOS and Ref-DAVIS17 number their sentences.

Enters: the videos of a whole annotation file. Leaves: the same videos, each sentence with its id. Does not know masks.

The id of a sentence is its place among all sentences: videos sorted by name, and within a video sentences sorted by id
as strings ("0", "1", "10", "2"). So ids are given over the whole file, before any video is left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from dynin.data.referring import annotation
from dynin.data.referring.annotation import MaskTable
from dynin.data.referring.expressions import Expression, VideoEntry
from dynin.errors import DataError


def read_expression(_: str, sentence_id: str, entry: Mapping[str, object], place: str) -> Expression:
    """A sentence before it has an annotation id."""
    words = annotation.words(annotation.field(entry, "exp", place), f"{place}, exp")
    return Expression(id=sentence_id, words=words, family="referring", anno_ids=())


def number(videos: Sequence[VideoEntry]) -> list[VideoEntry]:
    """Give every sentence its annotation id."""
    count = 0
    numbered = []
    for video in sorted(videos, key=lambda video: video.name):
        expressions = []
        for expression in sorted(video.expressions, key=lambda expression: expression.id):
            expressions.append(replace(expression, anno_ids=(str(count),)))
            count += 1
        numbered.append(replace(video, expressions=tuple(expressions)))
    return numbered


class NumberedMasks(MaskTable):
    """A table of masks that must have as many ids as the annotation file has sentences, or the numbers mean nothing."""

    def __init__(self, path: Path, videos: Sequence[VideoEntry]) -> None:
        """Expect one id for every sentence."""
        super().__init__(path)
        self._expected = sum(len(video.expressions) for video in videos)

    def track(self, anno_id: str, num_frames: int, place: str) -> list:
        """As `MaskTable.track`; DataError also where the numbers of sentences and ids differ."""
        if len(self) != self._expected:
            raise DataError(
                f"{self.path}: {len(self)} annotations for {self._expected} sentences; sentences are numbered by their "
                "place in the file, so both must be published together; fetch both again"
            )
        return super().track(anno_id, num_frames, place)
