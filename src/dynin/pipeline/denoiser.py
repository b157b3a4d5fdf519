"""The network as the decoder wants it: ids to logits at some places over some ids.

Enters: a `Transformer`. Leaves: a `decoding.decoder.Denoiser`. Does not know tasks or policies.
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor

from dynin.model.transformer import Transformer


class TransformerDenoiser:
    """Runs the network over whole sequences, and its output table only where it matters."""

    def __init__(self, model: Transformer) -> None:
        """Keep the network."""
        self._model = model

    def __call__(
        self,
        ids: Int[Tensor, "B S"],
        attend: Bool[Tensor, "B S"] | None,
        rows: Int[Tensor, " K"],
        allowed: Int[Tensor, " A"] | None,
    ) -> Float[Tensor, "K A"]:
        """Logits in float32 at flat positions, over the allowed ids."""
        hidden = self._model.hidden(ids, attend).flatten(0, 1)[rows]  # K D
        return self._model.head(hidden, allowed).float()
