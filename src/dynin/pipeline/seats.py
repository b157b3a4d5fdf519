"""Memory at fixed addresses for passes of fixed shapes: keys, values and inputs of so many rows of so many columns.

Enters: a `Transformer`, shapes. Leaves: seats, those of the shapes used last kept within a bound. Does not know queries
or recordings.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dynin.model.config import ModelConfig
from dynin.model.transformer import Transformer
from dynin.nn.rope import rotary_table

COLUMNS = 64
"""Lengths are rounded up to multiples of so many columns."""
UNSEEN = -1
"""What a column has in place of an id before it is computed."""

Shape = tuple[int, int]
"""Rows and columns."""


@dataclass(frozen=True, slots=True, eq=False)
class Seats:
    """The memory and the inputs of so many rows of so many columns, always at the same addresses.

    Each has a column more, for seats that nobody took: it is computed, and never attended.
    """

    ids: Int[Tensor, "B C1"]
    known: Int[Tensor, "B C1"]
    """The id of each column when it was computed; `UNSEEN` before."""
    is_asked: Bool[Tensor, "B C"]
    is_due: Bool[Tensor, " B"]
    is_real: Bool[Tensor, "B C"]
    """False at padding and beyond the end."""
    table: Float[Tensor, "2 C1 half"]
    """Of rotary positions."""
    keys: tuple[Float[Tensor, "B C1 G E"], ...]
    values: tuple[Float[Tensor, "B C1 G E"], ...]


def seats_bytes(config: ModelConfig, shape: Shape, dtype: torch.dtype) -> int:
    """Memory of the keys and values of seats; all else is small beside them."""
    num_rows, num_columns = shape
    return 2 * config.num_layers * config.num_kv_heads * config.head_dim * dtype.itemsize * num_rows * (num_columns + 1)


class SeatStore:
    """Seats by shape."""

    def __init__(self, model: Transformer, max_bytes: int | None = None) -> None:
        """Keep the network.

        Args:
            max_bytes: Largest memory for keys and values of all shapes together; None for no bound.
        """
        self._config, self._weight = model.config, model.embed.weight
        self._max_bytes = max_bytes
        self._by_shape: dict[Shape, Seats] = {}
        """The one used last comes last."""

    def __getitem__(self, shape: Shape) -> Seats:
        """Those of a shape that has some."""
        return self._by_shape[shape]

    def get(self, shape: Shape) -> Seats | None:
        """Those of a shape; None where it has none."""
        return self._by_shape.get(shape)

    @property
    def num_bytes(self) -> int:
        """Memory of keys and values now."""
        return sum(self._size(shape) for shape in self._by_shape)

    def fits(self, shape: Shape) -> bool:
        """Whether there is room for a shape beside one that is no larger, from which it is filled."""
        return self._max_bytes is None or 2 * self._size(shape) <= self._max_bytes

    def take(self, shape: Shape, kept: Shape, device: torch.device) -> list[Shape]:
        """See that a shape has seats; those that were given up for it.

        Args:
            kept: Of which the seats are still read.
        """
        if shape in self._by_shape:
            self._by_shape[shape] = self._by_shape.pop(shape)
            return []
        gone: list[Shape] = []
        if self._max_bytes is not None:
            for old in [old for old in self._by_shape if old != kept]:
                if self.num_bytes + self._size(shape) <= self._max_bytes:
                    break
                del self._by_shape[old]
                gone.append(old)
        self._by_shape[shape] = self._new(shape, device)
        return gone

    def _size(self, shape: Shape) -> int:
        return seats_bytes(self._config, shape, self._weight.dtype)

    def _new(self, shape: Shape, device: torch.device) -> Seats:
        """Empty ones."""
        config = self._config
        wide = (shape[0], shape[1] + 1)

        def parts() -> tuple[Tensor, ...]:
            size, dtype = (*wide, config.num_kv_heads, config.head_dim), self._weight.dtype
            return tuple(torch.zeros(size, dtype=dtype, device=device) for _ in range(config.num_layers))

        return Seats(
            ids=torch.zeros(wide, dtype=torch.int64, device=device),
            known=torch.full(wide, UNSEEN, dtype=torch.int64, device=device),
            is_asked=torch.zeros(shape, dtype=torch.bool, device=device),
            is_due=torch.zeros(shape[0], dtype=torch.bool, device=device),
            is_real=torch.ones(shape, dtype=torch.bool, device=device),
            table=rotary_table(wide[1], config.head_dim, config.rope_theta, device),
            keys=parts(),
            values=parts(),
        )
