"""At which size pictures are read and made.

Enters: a task, a wished side in pixels, the pixels that one code stands for. Leaves: the wish checked, and the numbers
of codes that follow from it. Does not know requests, tokenizers or how rows are laid out.
"""

import math

from dynin.errors import RequestError
from dynin.sequence.layout import Sequence
from dynin.sequence.task import Task
from dynin.types import Modality


def require_size(task: Task, size_px: int, cell_px: int) -> None:
    """RequestError for a side that a task's pictures cannot have, with what would do."""
    shown = {*task.conditions, *task.targets}
    if Modality.IMAGE not in shown:
        raise RequestError(f"{task.name} neither reads nor makes a picture; leave `size` (--size) out")
    if Modality.VIDEO in shown:
        raise RequestError(f"{task.name} has a picture of the size of its video's frames; leave `size` (--size) out")
    if size_px % cell_px or size_px < cell_px:
        below = max(size_px // cell_px, 1) * cell_px
        raise RequestError(
            f"size is {size_px}, but one code of a picture stands for {cell_px} x {cell_px} px; give a multiple of "
            f"{cell_px}, such as {below} or {below + cell_px}"
        )


def lengths_at(task: Task, size_px: int | None, cell_px: int) -> dict[str, int]:
    """The places of the picture that is made at a size; none where no picture is made or nothing is wished."""
    if size_px is None or Modality.IMAGE not in task.targets:
        return {}
    return {Modality.IMAGE: (size_px // cell_px) ** 2}


def growth(task: Task, size_px: int | None, cell_px: int) -> float:
    """How many times as long as usual the side of the picture is that is made."""
    if size_px is None or Modality.IMAGE not in task.targets:
        return 1.0
    return size_px / (math.isqrt(task.lengths[Modality.IMAGE]) * cell_px)


def largest_px(sequence: Sequence, max_len: int, cell_px: int) -> int:
    """The largest side at which the pictures of a row leave it within the model's length; 0 where none does."""
    spans = [span for span in sequence.spans if span.modality == Modality.IMAGE]
    others = len(sequence.ids) - sum(span.stop - span.start for span in spans)
    return math.isqrt(max(0, max_len - others) // max(1, len(spans))) * cell_px
