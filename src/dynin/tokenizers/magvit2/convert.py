"""Published weights to a tokenizer and back; the only file that knows the published file names and tensor names.

Enters: a folder, or tensors by published name. Leaves: a tokenizer, or tensors by published name. Does not know what
the network does with them.

The modules carry the published names, so the mapping is the identity; what is left to do is to check it. The two tables
of the quantizer follow from the number of bits: they may be left out of a file, and are compared where they are there.

    encoder.conv_in  encoder.down.LEVEL.block.N.{norm1,conv1,norm2,conv2,nin_shortcut}
    encoder.down.LEVEL.downsample.conv
    encoder.mid.{block_1,attn_1,block_2}  encoder.{norm_out,conv_out,quant_conv}
    decoder.post_quant_conv  decoder.conv_in  decoder.mid.*  decoder.up.LEVEL.{block.N,upsample.conv}
    decoder.{norm_out,conv_out}
    quantize.{embedding,power_vals}
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from dynin.checkpoint import require_fit
from dynin.errors import CheckpointError
from dynin.repository import open_repository, require_of, verify
from dynin.tokenizers.magvit2.layers import Magvit2Config
from dynin.tokenizers.magvit2.quantizer import Quantizer
from dynin.tokenizers.magvit2.tokenizer import PUBLISHED, Magvit2Tokenizer

WEIGHTS_NAMES = ("pytorch_model.safetensors", "model.safetensors", "diffusion_pytorch_model.safetensors")
_TABLES = "quantize."
CONVOLUTION = 4
"""Dimensions of a convolution's weights."""


def expected_shapes(config: Magvit2Config = PUBLISHED) -> dict[str, tuple[int, ...]]:
    """Every published name with its shape, without allocating any memory."""
    with torch.device("meta"):
        tokenizer = Magvit2Tokenizer(config)
    return {name: tuple(tensor.shape) for name, tensor in tokenizer.state_dict().items()}


def from_published(tensors: Mapping[str, Tensor], config: Magvit2Config = PUBLISHED) -> dict[str, Tensor]:
    """The state of a tokenizer, sharing memory with the given tensors.

    Raises:
        CheckpointError: Listing every name that is missing or unknown and every shape that is wrong; or if a table of
            the quantizer holds another order of bits.
    """
    tables = {_TABLES + name: table for name, table in Quantizer(config.num_bits).state_dict().items()}
    require_fit(expected_shapes(config), {**tables, **tensors})
    for name, table in tables.items():
        if name in tensors and not torch.equal(tensors[name].to("cpu", table.dtype), table):
            raise CheckpointError(
                f"{name} differs from the table of {config.num_bits} bits, most significant first; codes would mean "
                "other signs; use the weights of the published image tokenizer"
            )
    return {**tensors, **tables}


def _laid_out(value: Tensor, dtype: torch.dtype, *, channels_last: bool) -> Tensor:
    """A copy in the dtype, and as convolutions prefer it; tables of whole numbers as they are."""
    order = torch.channels_last if channels_last and value.ndim == CONVOLUTION else torch.preserve_format
    return value.to(dtype=dtype if value.is_floating_point() else None, copy=True, memory_format=order)


def to_published(tensors: Mapping[str, Tensor], config: Magvit2Config = PUBLISHED) -> dict[str, Tensor]:
    """The inverse of `from_published`, with the same errors; the tables are float32 and int64 as published."""
    return from_published(tensors, config)


def load(folder: Path, *, dtype: torch.dtype = torch.float32, channels_last: bool = True) -> Magvit2Tokenizer:
    """The published tokenizer in a folder, on the CPU, ready to encode and decode.

    Weights lie in one file or in shards with an index. Nothing is drawn or allocated besides them.

    Args:
        dtype: What the weights are turned into and the network works in.
        channels_last: Lay the weights out as convolutions prefer; numbers change by rounding alone.

    Raises:
        CheckpointError: If the weights are missing, pickled, damaged, or not those of the published tokenizer.
    """
    stored = open_repository(folder, WEIGHTS_NAMES)
    verify(folder, stored.shards)
    given = dict(stored.stream())
    names = {name for name in expected_shapes() if not name.startswith(_TABLES)}
    require_of(folder, "image tokenizer", given, names)
    try:
        tensors = from_published(given)
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from error
    with torch.device("meta"):
        tokenizer = Magvit2Tokenizer()
    # Copied: what conversion leaves as it lies in the file would keep the whole file mapped beside the copies.
    tensors = {name: _laid_out(value, dtype, channels_last=channels_last) for name, value in tensors.items()}
    tokenizer.load_state_dict(tensors, assign=True)
    return tokenizer.eval().requires_grad_(False)
