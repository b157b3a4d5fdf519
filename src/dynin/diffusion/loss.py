"""Weighted cross-entropy over allowed ids, in pieces, so that the logits of all places never exist at once.

Enters: hidden states of the places that count, the output table, the ids that may stand there, weights. Leaves: a
scalar and what each place lost. Does not know masks, tasks or networks.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dynin.errors import VocabularyError

PIECE_BYTES = 64 * 1024**2
"""Room for the logits of one piece, in float32, where the table is small or does not learn."""
FLOAT_BYTES = 4
MOST_RUNS = 8


def piece_places(num_choices: int, num_learned: int = 0, piece_bytes: int = PIECE_BYTES) -> int:
    """How many places are compared at once.

    Each piece adds to the gradient of the table. Where that is large, a piece may take half as much room: adding up
    small pieces would move more memory than the products that are added.

    Args:
        num_choices: Ids that compete.
        num_learned: Width of the table where it learns, else 0.
        piece_bytes: Room for the logits of a piece, at least.
    """
    return max(1, piece_bytes // (FLOAT_BYTES * num_choices), num_learned // 2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Support:
    """The ids that a target may take: runs of the output table, so that its rows are read where they lie."""

    runs: tuple[tuple[int, int], ...]
    """[start, stop) of each run, in the order of the logits; no id lies in two."""

    @classmethod
    def of(cls, ids: Int[Tensor, " A"]) -> "Support":
        """From a list of ids in any order; doubles count once.

        Raises:
            VocabularyError: If there are none, or they lie in too many pieces to be read as runs.
        """
        runs: list[tuple[int, int]] = []
        for token in sorted(set(ids.tolist())):
            if runs and runs[-1][1] == token:
                runs[-1] = (runs[-1][0], token + 1)
            else:
                runs.append((token, token + 1))
        if not 0 < len(runs) <= MOST_RUNS:
            raise VocabularyError(f"{len(ids)} allowed ids lie in {len(runs)} runs; expected 1 to {MOST_RUNS}")
        return cls(runs=tuple(runs))

    def __len__(self) -> int:
        """How many ids there are."""
        return sum(stop - start for start, stop in self.runs)

    def rows(self, table: Float[Tensor, "V D"]) -> Float[Tensor, "A D"]:
        """The rows of a table; a view where there is one run."""
        parts = [table[start:stop] for start, stop in self.runs]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def add_to(self, table: Float[Tensor, "V D"], rows: Float[Tensor, "A D"]) -> None:
        """Add rows to those of a table, in place."""
        sizes = [stop - start for start, stop in self.runs]
        for (start, stop), part in zip(self.runs, rows.split(sizes), strict=True):
            table[start:stop] += part

    def places(self, ids: Int[Tensor, " K"], *, is_checked: bool = False) -> Int[Tensor, " K"]:
        """Where each id stands among the allowed ones.

        Args:
            is_checked: The ids are known to be allowed. Looking at them waits for the device that they are on.

        Raises:
            VocabularyError: For an id that is not one of them.
        """
        places = torch.full_like(ids, -1)
        first = 0
        for start, stop in self.runs:
            places = torch.where((ids >= start) & (ids < stop), ids - start + first, places)
            first += stop - start
        if not is_checked and bool((places < 0).any()):
            wrong = ids[places < 0][0].item()
            raise VocabularyError(f"target id {wrong} is not among the {len(self)} ids allowed at its position")
        return places


def cross_entropy(
    hidden: Float[Tensor, "K D"],
    table: Float[Tensor, "V D"],
    targets: Int[Tensor, " K"],
    weights: Float[Tensor, " K"],
    support: Support,
    piece_bytes: int = PIECE_BYTES,
    *,
    is_checked: bool = False,
) -> tuple[Float[Tensor, ""], Float[Tensor, " K"], Bool[Tensor, " K"]]:
    """The weighted sum of -log p(target) over the allowed ids.

    Logits are made, compared and left again piece by piece; the gradient of a piece is made beside it, since weights
    are known. Products follow autocast; sums are in float32.

    Args:
        targets: Ids of the unified vocabulary.
        piece_bytes: Room for the logits of a piece; see `piece_places`.
        is_checked: The targets are known to be allowed; see `Support.places`.

    Returns:
        The sum, what each place lost (without its weight or a gradient), and whether the target had the highest logit.
    """
    places = support.places(targets, is_checked=is_checked)
    total, losses, right = _CrossEntropy.apply(hidden, table, places, weights, support, piece_bytes)
    return total, losses, right


class _CrossEntropy(torch.autograd.Function):
    """See `cross_entropy`."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, table: Tensor, places: Tensor, weights: Tensor, support: Support, piece_bytes: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        kind = hidden.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else table.dtype
        with torch.autocast(kind, enabled=False):
            states, rows = hidden.to(dtype), support.rows(table).to(dtype)
            needs_hidden, needs_table = ctx.needs_input_grad[:2]
            to_hidden = torch.empty_like(hidden) if needs_hidden else None
            to_rows = torch.zeros(rows.shape, device=rows.device) if needs_table else None
            losses = torch.empty(len(hidden), device=hidden.device)
            right = torch.empty(len(hidden), dtype=torch.bool, device=hidden.device)
            size = piece_places(len(support), table.shape[1] if needs_table else 0, piece_bytes)
            for first in range(0, len(hidden), size):
                at = slice(first, first + size)
                logits = (states[at] @ rows.T).float()
                wanted = places[at, None]
                right[at] = logits.argmax(dim=-1) == wanted[:, 0]
                logits = logits.log_softmax(dim=-1)
                losses[at] = -logits.gather(1, wanted)[:, 0]
                if not (needs_hidden or needs_table):
                    continue
                slope = logits.exp_().scatter_add_(1, wanted, logits.new_full(wanted.shape, -1.0)).to(dtype)
                if to_hidden is not None:
                    to_hidden[at] = (slope @ rows) * weights[at, None]
                if to_rows is not None:
                    to_rows += slope.T @ (states[at] * weights[at, None]).to(dtype)
                del logits, slope
        ctx.made = (to_hidden, to_rows)  # no inputs: nothing to watch over, and they may be scaled in place
        ctx.support, ctx.table = support, (table.shape, {"dtype": table.dtype, "device": table.device})
        ctx.mark_non_differentiable(losses, right)
        return (losses * weights).sum(), losses, right

    @staticmethod
    def backward(ctx: Any, slope: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
        to_hidden, to_rows = ctx.made
        del ctx.made  # a second way back would scale them twice
        if to_hidden is not None:
            to_hidden.mul_(slope)
        to_table = None
        if to_rows is not None:  # the whole table's gradient is made only now: several supports hold their rows alone
            shape, kind = ctx.table
            to_table = torch.zeros(shape, **kind)
            ctx.support.add_to(to_table, to_rows.mul_(slope).to(to_table.dtype))
        return to_hidden, to_table, None, None, None, None
