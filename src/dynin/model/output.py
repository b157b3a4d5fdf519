"""The output table as a segment of a decoding needs it: some ids, every step the same ones.

Enters: states of places, and the ids that count. Leaves: logits over those ids. Does not know which ids are text,
picture or sound.

    ids in one run      a slice of the table, without a copy: every picture, sound and most texts
    in a few runs       a slice for each, written side by side into one result
    scattered           their rows, copied once and kept for as long as the same list is asked for
    arranged            their rows in tiles (`nn.arranged`), kept while there is room for lists of other segments too

A processor is given the table in pieces that stay in its cache while they are multiplied. The table is far larger than
the states, and a product of matrices rearranges it before it begins, which else means reading it from memory twice:
17 states over 138,752 ids of width 512 take 59 ms instead of 77 on one Zen 4 core.
"""

from weakref import ref

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from dynin.nn.arranged import ArrangedLinear

_MAX_RUNS = 8
_PIECE_BYTES = 2**21  # of a float32 table, for the cache of one core; narrower numbers are arranged anew in any case
_WIDE_PIECES = 8  # times as many bytes of those
_FEW = 6  # states that are multiplied as columns: reading the table once is all that they cost
_MAX_KEPT = 16  # lists of ids that are remembered; a decoding has one for each segment

Runs = tuple[tuple[int, int], ...]
"""Half-open ranges of ids, one behind another."""


class OutputRows:
    """Logits over lists of ids, each list looked at once.

    A list is known again by being the same tensor, so it must not be written to.
    """

    def __init__(self, weight: Float[Tensor, "V D"], *, arranges: bool = False) -> None:
        """Keep the table.

        Args:
            arranges: Multiply by copies of its rows in tiles, all lists together at most as many rows as the table has.
        """
        self._weight = weight
        self._known: dict[int, tuple[ref[Tensor], tuple[Tensor, ...]]] = {}
        self._arranges = arranges
        self._names: dict[int, tuple[ref[Tensor], Runs]] = {}
        self._tiles: dict[Runs, ArrangedLinear] = {}

    @classmethod
    def of(cls, output: nn.Module) -> "OutputRows":
        """Those that a network's output keeps, if it does (`ArrangedTable`), or new ones over its table."""
        return output.rows if isinstance(output, ArrangedTable) else cls(output.get_parameter("weight"))

    @property
    def tile_bytes(self) -> int:
        """What tiles take beside the table."""
        return sum(tiles.num_bytes for tiles in self._tiles.values())

    def logits(self, hidden: Float[Tensor, "K D"], allowed: Int[Tensor, " A"] | None) -> Float[Tensor, "K A"]:
        """Logits over the ids in their order, in the dtype of the table; None means every row of it."""
        if self._arranges:
            made: Tensor = self._arranged(allowed)(hidden)
            return made
        parts = (self._weight,) if allowed is None else self._parts(allowed)
        pieces = [piece for part in parts for piece in self._pieces(part)]
        if len(pieces) == 1:
            return F.linear(hidden, pieces[0])
        result = hidden.new_empty(len(hidden), sum(len(part) for part in parts))
        is_few = hidden.is_cpu and hidden.dtype == torch.float32 and 1 < len(hidden) <= _FEW
        start = 0
        for piece in pieces:
            place = result[:, start : start + len(piece)]
            if is_few:
                place.copy_(torch.mm(piece, hidden.T).T)
            else:
                torch.mm(hidden, piece.T, out=place)
            start += len(piece)
        return result

    def _pieces(self, part: Float[Tensor, "A D"]) -> tuple[Float[Tensor, "a D"], ...]:
        """Some rows of the table as they are multiplied."""
        if not part.is_cpu:
            return (part,)
        num_bytes = _PIECE_BYTES if part.element_size() == 4 else _WIDE_PIECES * _PIECE_BYTES
        return part.split(max(1, num_bytes // (part.shape[1] * part.element_size())))

    def _arranged(self, allowed: Int[Tensor, " A"] | None) -> ArrangedLinear:
        """The rows of a list in tiles; lists of the same ids share them, and those made first give way."""
        name: Runs = ((0, len(self._weight)),) if allowed is None else self._name(allowed)
        found = self._tiles.get(name)
        if found is None:
            while self._tiles and _count(name, *self._tiles) > len(self._weight):
                del self._tiles[next(iter(self._tiles))]
            found = ArrangedLinear(self._weight if allowed is None else F.embedding(allowed, self._weight))
            self._tiles[name] = found
        return found

    def _name(self, allowed: Int[Tensor, " A"]) -> Runs:
        """A list as runs, looked at once."""
        known = self._names.get(id(allowed))
        if known is not None and known[0]() is allowed:
            return known[1]
        self._names = {key: told for key, told in self._names.items() if told[0]() is not None}
        self._names[id(allowed)] = (ref(allowed), runs(allowed))
        return self._names[id(allowed)][1]

    def _parts(self, allowed: Int[Tensor, " A"]) -> tuple[Tensor, ...]:
        """The rows of a list, one behind another."""
        known = self._known.get(id(allowed))
        if known is not None and known[0]() is allowed:
            return known[1]
        for key in [key for key, (source, _) in self._known.items() if source() is None]:
            del self._known[key]
        while len(self._known) >= _MAX_KEPT:
            del self._known[next(iter(self._known))]
        found = runs(allowed)
        if 0 < len(found) <= _MAX_RUNS:
            parts = tuple(self._weight[start:stop] for start, stop in found)
        else:
            parts = (F.embedding(allowed, self._weight),)
        self._known[id(allowed)] = (ref(allowed), parts)
        return parts


class ArrangedTable(nn.Module):
    """An output table that keeps rows in tiles from one decoding to the next; the table itself stays beside them."""

    def __init__(self, weight: Tensor) -> None:
        """Keep the table; tiles are made when their ids are first asked for."""
        super().__init__()
        self.weight = weight
        self.rows = OutputRows(weight, arranges=True)

    def forward(self, x: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows V"]:
        """Logits over every id."""
        return self.rows.logits(x.flatten(0, -2), None).unflatten(0, x.shape[:-1])


def _count(*names: Runs) -> int:
    """The rows of some lists together."""
    return sum(stop - start for name in names for start, stop in name)


def runs(ids: Int[Tensor, " A"]) -> Runs:
    """The list as half-open ranges of ids, one behind another; reads the list from its device."""
    if len(ids) == 0:
        return ()
    found = ids.cpu()
    cuts = ((found[1:] - found[:-1]) != 1).nonzero().squeeze(1) + 1
    edges = [0, *cuts.tolist(), len(found)]
    return tuple(
        (int(found[start]), int(found[start]) + stop - start) for start, stop in zip(edges, edges[1:], strict=False)
    )
