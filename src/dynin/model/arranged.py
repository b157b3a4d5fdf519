"""A network whose matrices lie as the products of a processor want them.

Enters: a `Transformer` on a processor. Leaves: another that computes the same. Does not know why it is to be quicker.

    blocks          every matrix in tiles, in place of the one that was given     as much memory
    embedding       shared with the one that was given
    output table    shared, and tiles of those rows that are asked for            their memory once more
"""

import torch
from torch import nn

from dynin.errors import RequestError
from dynin.model.output import ArrangedTable
from dynin.model.transformer import Transformer
from dynin.nn.arranged import ArrangedLinear, can_arrange


def is_arranged(model: nn.Module) -> bool:
    """Whether a network was laid out so, and can be run but neither saved nor trained."""
    return any(isinstance(module, ArrangedLinear) for module in model.modules())


def arranged(model: Transformer) -> Transformer:
    """The same network with matrices in tiles, to be run and neither saved, trained nor moved.

    Whoever keeps the one that was given pays for the blocks twice.

    Raises:
        RequestError: If a matrix is not on a processor with oneDNN in float32 or bfloat16.
    """
    if is_arranged(model):
        return model
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and not can_arrange(module.weight):
            kind, place = str(module.weight.dtype).removeprefix("torch."), module.weight.device
            raise RequestError(
                f"{name} is a {type(module.weight.data).__name__} of {kind} on {place}; only plain float32 or bfloat16 "
                "on a processor, in a PyTorch with oneDNN, is laid out in tiles: load the model so, or use it as it is"
            )
    with torch.device("meta"):
        copy = Transformer(model.config)
    copy.embed, copy.norm = model.embed, model.norm
    copy.output = ArrangedTable(model.output.weight)  # type: ignore[assignment]
    for target, source in zip(copy.blocks, model.blocks, strict=True):
        for name, part in source.named_modules():
            if isinstance(part, nn.Linear):
                owner, _, leaf = name.rpartition(".")
                setattr(target.get_submodule(owner), leaf, ArrangedLinear(part.weight))
            elif name.endswith("norm"):
                setattr(target, name, part)
    return copy.train(model.training)
