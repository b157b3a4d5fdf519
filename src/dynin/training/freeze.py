"""What of a network stays as it is while the rest learns.

Enters: a network, the layout of ids, names of parts. Leaves: parameters without gradients, and rows of the two tables
whose gradients are cleared. Does not know losses or optimizers.

    text, image, speech    the rows of both tables that belong to a modality; image rows serve videos too
    special                the rows of control ids
    embed, output          a whole table
    blocks, blocks.0-3     all layers, or some, counted from 0; blocks.5 is one
    attention, mlp, norms  those matrices of every layer; norms with the last one
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dynin.errors import ConfigError
from dynin.model.transformer import Transformer
from dynin.training.parallel import like
from dynin.types import Modality
from dynin.vocabulary import Vocabulary

ROWS = {"text": Modality.TEXT, "image": Modality.IMAGE, "speech": Modality.SPEECH}
_PARTS: dict[str, Callable[[str], bool]] = {
    "embed": lambda name: name.startswith("embed."),
    "output": lambda name: name.startswith("output."),
    "blocks": lambda name: name.startswith("blocks."),
    "attention": lambda name: ".attention." in name,
    "mlp": lambda name: ".mlp." in name,
    "norms": lambda name: "norm" in name,
}


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """Rows that are frozen of one network; whole parameters that are frozen have no gradient to clear."""

    tables: tuple[tuple[Tensor, Tensor], ...]
    """Tables of which some rows are frozen, each with 1 at rows that learn and 0 at the others."""

    @classmethod
    def of(cls, model: Transformer, vocabulary: Vocabulary, parts: Sequence[str]) -> "Frozen":
        """Freeze the named parts.

        Raises:
            ConfigError: If a part is unknown, or nothing would be left to learn.
        """
        names = set()
        rows = torch.ones(vocabulary.size, 1)
        for part in parts:
            if part in ROWS:
                span = vocabulary.range_of(ROWS[part])
                rows[span.start : span.stop] = 0
            elif part == "special":
                rows[sorted(vocabulary.special.values())] = 0
            else:
                names |= {name for name, _ in model.named_parameters() if _matcher(part, model)(name)}
        for name, parameter in model.named_parameters():
            if name in names:
                parameter.requires_grad_(False)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise ConfigError(f"setting 'frozen' is {list(parts)}: nothing is left to learn; leave one of them out")
        tables = [model.embed.weight, model.output.weight] if bool((rows == 0).any()) else []
        return cls(tables=tuple((table, like(rows.to(table.device), table)) for table in tables if table.requires_grad))

    def clear(self) -> None:
        """Clear the gradients of frozen rows; call after the gradients are there, before they are used."""
        for table, rows in self.tables:
            if table.grad is not None:
                table.grad.mul_(rows)

    def is_partial(self, parameter: nn.Parameter) -> bool:
        """Whether some rows of a parameter are frozen; such a table must not decay."""
        return any(table is parameter for table, _ in self.tables)


def _matcher(part: str, model: Transformer) -> Callable[[str], bool]:
    """Whether a parameter's name belongs to a part."""
    if part in _PARTS:
        return _PARTS[part]
    layers = re.fullmatch(r"blocks\.(\d+)(?:-(\d+))?", part)
    if layers:
        first, last = int(layers[1]), int(layers[2] or layers[1])
        if first <= last < len(model.blocks):
            chosen = tuple(f"blocks.{index}." for index in range(first, last + 1))
            return lambda name: name.startswith(chosen)
        raise ConfigError(f"setting 'frozen' names {part}; the network has layers 0 to {len(model.blocks) - 1}")
    known = ", ".join([*ROWS, "special", *_PARTS, "blocks.0-3"])
    raise ConfigError(f"setting 'frozen' names the unknown part {part!r}; known: {known}")
