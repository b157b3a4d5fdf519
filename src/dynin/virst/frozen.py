"""A VIRST that learns no more, made lighter: the same masks but for rounding, with less to compute.

Enters: a `Virst`. Leaves: the same, changed in place. Does not know what is segmented, or how often.

Adapters are added into their matrices: one product in place of three. Parts of the mask branch give way to those of
`virst.light`, which have the same weights by the same names, so that a state is saved and loaded as before.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from dynin.training import adapters
from dynin.virst import light
from dynin.virst.branch.sam2 import Sam2Branch
from dynin.virst.model import Virst

Lighter = Mapping[str, Callable[[Any], nn.Module]]
"""By the names of classes in `transformers`; networks of other families keep what they have."""
ENCODER: Lighter = {
    "Sam2MultiScaleAttention": light.PooledAttention,
    "Sam2SinePositionEmbedding": light.RememberedPosition,
}
"""Here the library does what the published code of SAM 2 does not."""
TRACKER: Lighter = {
    "Sam2VideoMemoryAttention": light.MemoryAttention,
    "Sam2VideoTwoWayTransformer": light.TwoWayTransformer,
    "Sam2VideoMaskDecoder": light.MaskDecoder,
    "Sam2VideoPositionEmbeddingSine": light.RememberedPosition,
}


def settle(model: Virst, *, folds: bool = True) -> Virst:
    """Make a model lighter that is asked and learns no more.

    Args:
        folds: Add the adapters into their matrices.
    """
    if folds and isinstance(model.backbone, nn.Module):
        adapters.fold(model.backbone)
    if isinstance(model.branch, Sam2Branch):
        lighten(model.branch.network, {**ENCODER, **TRACKER})
        model.branch.settle()
    return model


def lighten(network: nn.Module, parts: Lighter) -> None:
    """Put the lighter parts in the place of the library's, inner ones first."""
    for name, part in reversed(list(network.named_modules())):
        if (lighter := parts.get(type(part).__name__)) is not None:
            network.set_submodule(name, lighter(part))
