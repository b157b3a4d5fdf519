"""The matrices of the blocks in 8 or 4 bits, by the package `torchao`; the only file that knows that package.

Enters: the name of a form, weights as they are read. Leaves: the same weights, the matrices of the blocks as tensors
that take less room and multiply as before. Does not know files. The two tables and the norms stay as they are: the
output table is read by rows (`Transformer.head`).

    int8    one scale for each row of a matrix; any device; a matrix is turned back for as long as it multiplies
    int4    a scale and a zero for every 32 numbers of a row; on the processor and in bfloat16 alone, by a kernel of
            torch that takes fifty times as long in float32

Parity:
    The published model is run in bfloat16. What the forms cost in scores is in docs/checkpoints.md.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dynin.config import suggest
from dynin.errors import RequestError
from dynin.model.memory import INT4_GROUP as GROUP
from dynin.optional import import_quietly, quietly

FORMS = ("int8", "int4")

Reform = Callable[[str, Tensor], Tensor]
"""From a weight's name and value to the value in another form."""


def reform_of(form: str, device: torch.device | str | None = None) -> Reform:
    """What turns weights into a form as they are read; an empty name leaves them as they are.

    Raises:
        RequestError: If the form is unknown, is not to be had on that device, or torchao is missing.
    """
    if not form:
        return lambda name, value: value
    if form not in FORMS:
        raise RequestError(f"unknown weights {form!r}{suggest(form, FORMS)}")
    place = torch.get_default_device() if device is None else torch.device(device)
    if form == "int4" and place.type != "cpu":
        raise RequestError(f"weights in int4 are to be had on cpu alone, not on {place}; take int8 there")
    with quietly():
        quantize = _torchao("torchao.quantization").quantize_
        settings = _settings(form)

    def reform(name: str, value: Tensor) -> Tensor:
        if value.ndim != 2 or not name.startswith("blocks."):
            return value
        if form == "int4" and value.dtype != torch.bfloat16:
            kind = str(value.dtype).removeprefix("torch.")
            raise RequestError(f"weights in int4 multiply in bfloat16, not in {kind}; take dtype bfloat16, or int8")
        if form == "int4" and (value.shape[1] % GROUP or value.shape[0] % 16):
            raise RequestError(
                f"{name} is {tuple(value.shape)}; int4 needs rows in multiples of 16 and columns in multiples of "
                f"{GROUP}; take int8"
            )
        holder = nn.Linear(value.shape[1], value.shape[0], bias=False, device="meta")
        holder.weight = nn.Parameter(value, requires_grad=False)
        quantize(holder, settings)
        return holder.weight

    return reform


def is_reformed(model: nn.Module) -> bool:
    """Whether some weights are held in fewer bits, so that they can be run but neither saved nor trained."""
    return any(type(parameter.data) is not Tensor for parameter in model.parameters())


def _settings(form: str) -> Any:
    """The package's own description of a form."""
    if form == "int8":
        return _torchao("torchao.quantization").Int8WeightOnlyConfig()
    module = "torchao.prototype.quantization.int4"
    try:
        return import_quietly(module).PrototypeInt4WeightOnlyConfig(group_size=GROUP)
    except (ImportError, AttributeError) as error:
        raise RequestError(
            "weights in int4 need torchao 0.18, in which they are a prototype; this version has none: take int8, or "
            "run: pip install 'torchao==0.18'"
        ) from error


def _torchao(name: str) -> Any:
    try:
        return import_quietly(name)
    except ImportError as error:
        raise RequestError(
            "weights in fewer bits need the package torchao, which is missing; run: pip install 'dynin[quantize]'"
        ) from error
