"""What is decoded: the sequences with their hidden places, and the segments those places belong to.

Enters: ids with the mask id at every place to be filled. Leaves: the places of a segment in order, and wider canvases.
Does not know how places are filled.

    ids        [ pad pad | prompt ...      | MASK MASK MASK MASK | suffix ]
    attend     [  0   0  |   1  ...        |  1    1    1    1   |   1    ]
    is_target  [  0   0  |   0  ...        |  1    1    1    1   |   0    ]
    ordinal                                   0    1    2    3
"""

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dynin.decoding.policy import DecodingPolicy


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Canvas:
    """A batch of sequences to be completed."""

    ids: Int[Tensor, "B S"]
    """Conditions and targets; hidden targets hold the mask id."""
    attend: Bool[Tensor, "B S"] | None = None
    """False at padding, on any side; None when there is none."""
    uncond_ids: Int[Tensor, "B S"] | None = None
    """The same sequences without what guidance should strengthen; their target columns are overwritten at each step."""
    uncond_attend: Bool[Tensor, "B S"] | None = None
    """`attend` of the unconditional sequences; None means the same as `attend`."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Segment:
    """One target of the batch: where it is, what it may hold, how it is decoded."""

    name: str
    is_target: Bool[Tensor, "B S"]
    """Places that belong to the segment. Those that hold no mask id are taken as given."""
    allowed_ids: Int[Tensor, " A"] | None
    """Ids a place may take; None allows every row of the vocabulary."""
    policy: DecodingPolicy
    stop_ids: tuple[int, ...] = field(default=())
    """Ids that end the segment; they must be allowed to have an effect."""
    grid: tuple[int, ...] | None = None
    """Shape in which its places lie in every row, such as (Y, X) or (T, Y, X), the last fastest; None where they lie
    in no grid. Orders of revealing need it."""


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """The columns of a segment in order: ordinal n of row b is column `columns[b, n]` where `is_valid[b, n]`."""

    columns: Int[Tensor, "B N"]
    is_valid: Bool[Tensor, "B N"]

    def window(self, start: int, stop: int) -> "Places":
        """The places of ordinals [start, stop)."""
        return Places(self.columns[:, start:stop], self.is_valid[:, start:stop])


def locate(is_target: Bool[Tensor, "B S"]) -> Places:
    """The places of a segment, rows with fewer targets padded on the right with invalid ones."""
    counts = is_target.sum(dim=1)
    width = int(counts.max()) if counts.numel() else 0
    columns = (~is_target).to(torch.uint8).argsort(dim=1, stable=True)[:, :width]
    ordinals = torch.arange(width, device=is_target.device)
    return Places(columns, ordinals < counts[:, None])


def grow(
    canvas: Canvas,
    is_target: tuple[Bool[Tensor, "B S"], ...],
    index: int,
    num_new: Int[Tensor, " B"],
    mask_id: int,
) -> tuple[Canvas, tuple[Bool[Tensor, "B W"], ...]]:
    """Insert hidden places after the last target of a segment; what follows moves to the right.

    Every row becomes wider by the largest of `num_new`; what a row does not need is padding at its right end, so that
    the distances inside a row do not depend on its neighbours.

    Args:
        is_target: Of every segment; `index` says which one grows.
        num_new: New places per row; rows without a target of that segment must ask for 0.
    """
    batch, length = canvas.ids.shape
    device = canvas.ids.device
    extra = int(num_new.max())
    ordinals = torch.arange(length, device=device)
    end = (is_target[index] * (ordinals + 1)).amax(dim=1, keepdim=True)  # B 1
    new = num_new[:, None]
    column = torch.arange(length + extra, device=device).expand(batch, -1)
    is_new = (column >= end) & (column < end + new)
    is_padding = column >= length + new
    source = torch.where(column < end, column, column - new).clamp(0, length - 1)

    def widen(values: Tensor, new_value: int, padding: int) -> Tensor:
        moved = values.gather(1, source)
        return moved.masked_fill(is_new, new_value).masked_fill(is_padding, padding)

    def widen_attend(attend: Tensor | None) -> Tensor | None:
        if attend is None and bool((num_new == extra).all()):
            return None
        known = torch.ones_like(canvas.ids, dtype=torch.bool) if attend is None else attend
        return widen(known, 1, 0)

    grown = replace(
        canvas,
        ids=widen(canvas.ids, mask_id, int(canvas.ids[0, 0])),
        attend=widen_attend(canvas.attend),
        uncond_ids=None if canvas.uncond_ids is None else widen(canvas.uncond_ids, mask_id, int(canvas.ids[0, 0])),
        uncond_attend=None if canvas.uncond_attend is None else widen_attend(canvas.uncond_attend),
    )
    return grown, tuple(widen(mask, int(which == index), 0) for which, mask in enumerate(is_target))
