"""Rows of the two tables moved from one layout of ids to another.

Enters: tables and two layouts of equal size. Leaves: tables in which every code and every text id has its row again.
Does not know files.

    126,349 text ids    [ text | image | speech | spare ]
    126,464 text ids    [ text | spare | image | speech ]

Rows that mean nothing in either layout change places with those that moved, so that the move can be undone.

Source:
    The published code counts its text tokenizer to find the first image code, which has given three offsets so far.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dynin.errors import VocabularyError
from dynin.types import Modality
from dynin.vocabulary import Vocabulary

TABLES = ("embed.weight", "output.weight")


def row_order(before: Vocabulary, after: Vocabulary) -> Int[Tensor, " V"]:
    """For every row of the new layout, the row of the old one that it takes.

    Raises:
        VocabularyError: If the layouts differ in more than where their codes begin.
    """
    if before.size != after.size or before.text != after.text or dict(before.special) != dict(after.special):
        raise VocabularyError("layouts can be exchanged where they have the same rows, text ids and special ids")
    order = torch.full((after.size,), -1)
    for modality in (Modality.IMAGE, Modality.SPEECH):
        old, new = before.range_of(modality), after.range_of(modality)
        if len(old) != len(new):
            raise VocabularyError(
                f"the layouts have {len(old)} and {len(new)} {modality} codes; expected equal numbers"
            )
        order[new.start : new.stop] = torch.arange(old.start, old.stop)
    is_taken = torch.zeros(after.size, dtype=torch.bool)
    is_taken[order[order >= 0]] = True
    stays = (order < 0) & ~is_taken
    order[stays] = stays.nonzero().flatten()
    is_taken |= stays
    order[order < 0] = (~is_taken).nonzero().flatten()
    return order


def remap(
    state: Mapping[str, Float[Tensor, "..."]], before: Vocabulary, after: Vocabulary
) -> dict[str, Float[Tensor, "..."]]:
    """The weights of a network with the rows of both tables in the new layout; errors as in `row_order`."""
    order = row_order(before, after)
    return {name: value[order.to(value.device)] if name in TABLES else value for name, value in state.items()}
