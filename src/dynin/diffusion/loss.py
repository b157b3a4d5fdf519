"""Weighted cross-entropy over allowed ids.

Enters: logits over allowed ids and the true ids. Leaves: one loss per position. Does not know masks, tasks or networks.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from dynin.errors import VocabularyError


class AllowedIds:
    """A list of ids a target may take, with the way from an id to its place in the list."""

    def __init__(self, ids: Int[Tensor, " A"], num_rows: int) -> None:
        """Keep the ids and a table of `num_rows` places."""
        self.ids = ids
        self._place = torch.full((num_rows,), -1, dtype=torch.long)
        self._place[ids] = torch.arange(len(ids))

    def to(self, device: torch.device) -> "AllowedIds":
        """The same list on another device."""
        moved = object.__new__(AllowedIds)
        moved.ids, moved._place = self.ids.to(device), self._place.to(device)
        return moved

    def places(self, ids: Int[Tensor, " K"]) -> Int[Tensor, " K"]:
        """Where each id stands in the list; VocabularyError for an id that is not in it."""
        places = self._place[ids]
        if bool((places < 0).any()):
            wrong = ids[places < 0][0].item()
            raise VocabularyError(f"target id {wrong} is not among the {len(self.ids)} ids allowed at its position")
        return places


def cross_entropy(logits: Float[Tensor, "K A"], places: Int[Tensor, " K"]) -> Float[Tensor, " K"]:
    """Cross-entropy per position in float32."""
    return F.cross_entropy(logits.float(), places, reduction="none")
