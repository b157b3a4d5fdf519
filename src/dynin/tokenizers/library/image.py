"""The picture codec of Janus, a network of the package `transformers`, behind the image protocol.

Enters: pictures in [-1, 1] of any size with sides that are multiples of the downsampling. Leaves: codes in raster
order, and pictures again. Does not know how networks are read (networks.py).

    pixels --> encoder --> latent --> row of the codebook nearest in direction --> codes --> rows --> decoder --> pixels
    B 3 Y X                B E y x                                                 B N
"""

import os
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from dynin.errors import ConfigError, MediaError, VocabularyError
from dynin.tokenizers.fingerprint import fingerprint
from dynin.tokenizers.library import networks
from dynin.tokenizers.library.networks import Kind

KINDS = {
    "janus": Kind(class_name="JanusVQVAE", prefix="model.vqmodel."),
    "janus_vqgan": Kind(class_name="JanusVQVAE"),
}
"""A whole Janus model, of which the picture codec is read alone, and the codec by itself."""


class LibraryImageTokenizer(nn.Module):
    """The picture codec of Janus; meets `tokenizers.protocol.ImageTokenizer`."""

    def __init__(self, network: Any) -> None:
        """Wrap a `JanusVQVAE`; ConfigError for another network."""
        super().__init__()
        config = network.config
        if config.model_type != "janus_vqgan" or (config.in_channels, config.out_channels) != (3, 3):
            raise ConfigError(
                f"a network of type {config.model_type!r} was given, expected a JanusVQVAE for colour pictures"
            )
        self.network = network.eval().requires_grad_(False)
        self.codebook_size = config.num_embeddings
        self.downsample = 1 << (len(config.channel_multiplier) - 1)
        self.image_size = config.num_patches * self.downsample

    @classmethod
    def load(cls, place: str | os.PathLike[str], *, dtype: torch.dtype = torch.float32) -> "LibraryImageTokenizer":
        """The codec in a folder or under an id on the model hub; errors as in `networks.load`."""
        return cls(networks.load(place, KINDS, dtype))

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of codes for a picture of this size in pixels; MediaError when they do not fit."""
        cell = self.downsample
        if height < cell or width < cell or height % cell or width % cell:
            raise MediaError(
                f"picture is {width} x {height} px; the image tokenizer needs sides that are multiples of {cell} px; "
                "resize it with media.image.fit_square"
            )
        return height // cell, width // cell

    @torch.no_grad()
    def encode(self, pixels: Float[Tensor, "B 3 Y X"]) -> Int[Tensor, "B N"]:
        """Pixels in [-1, 1] to codes in raster order.

        Raises:
            MediaError: If a side is no multiple of the downsampling, or the network's numbers are not finite.
        Source:
            Janus, arXiv:2410.13848; deepseek-ai/Janus janus/models/vq_model.py::VectorQuantizer.
        Parity:
            Rows are compared by direction, as the published code does and as the decoder looks them up.
            `transformers` compares by distance when it encodes, which is another row where lengths differ.
        """
        self.grid(*pixels.shape[-2:])
        like = self.network.quant_conv.weight
        latent = self.network.quant_conv(self.network.encoder(pixels.to(like.device, like.dtype)))  # B E y x
        if not bool(latent.isfinite().all()):
            raise MediaError(
                f"the image tokenizer found numbers that are not finite, working in {latent.dtype}; expected finite "
                "pixels in [-1, 1]; check the picture, or use float32 or bfloat16"
            )
        likeness = latent.float().flatten(2).transpose(1, 2) @ self._rows().float().T  # B N V
        return likeness.argmax(-1)

    @torch.no_grad()
    def decode(self, codes: Int[Tensor, "B N"], grid: tuple[int, int]) -> Float[Tensor, "B 3 Y X"]:
        """Codes in raster order to pixels in [-1, 1].

        Raises:
            VocabularyError: If the codes do not fill the grid or one is outside the codebook.
        Parity:
            `transformers` decodes squares of the trained size only; here any grid is decoded.
        """
        rows, columns = grid
        if min(rows, columns) < 1 or codes.shape[-1] != rows * columns:
            raise VocabularyError(
                f"{codes.shape[-1]} image codes do not fill a grid of {rows} rows x {columns} columns; pass the rows "
                "and columns that `grid` gave for the picture"
            )
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < self.codebook_size:
            raise VocabularyError(
                f"image codes lie in [{int(codes.min())}, {int(codes.max())}]; the codebook has 0 to "
                f"{self.codebook_size - 1}; take the vocabulary's offset off ids first"
            )
        found = self._rows()[codes.to(self.network.quant_conv.weight.device)]  # B N E
        latent = found.transpose(1, 2).unflatten(2, grid)
        return self.network.decoder(self.network.post_quant_conv(latent)).float().clamp(-1, 1)

    def fingerprint(self) -> str:
        """A hash of the codec's settings, its weights and the dtype they work in."""
        return fingerprint({"config": networks.settings(self.network)}, self.network.state_dict())

    def _rows(self) -> Float[Tensor, "V E"]:
        """The codebook, every row of length 1."""
        return F.normalize(self.network.quantize.embedding.weight, dim=-1)
