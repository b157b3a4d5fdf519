"""The published image tokenizer behind the protocol: one code of 13 signs for every 16 x 16 pixels.

Enters: pictures in [-1, 1] of any size with sides that are multiples of 16, several at a time. Leaves: codes in raster
order, and pictures again. Does not know where weights are stored (convert.py) or ids of a vocabulary.

    pixels --> encoder --> latent --> signs --> codes 0..8191 --> signs --> decoder --> pixels
    B 3 Y X                B 13 Y/16 X/16       B N

The network runs in the dtype and on the device of its weights; `to(memory_format=torch.channels_last)` turns it into
the layout that convolutions prefer. Pixels are float32 either way.
"""

from dataclasses import asdict

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn

from dynin.errors import MediaError, VocabularyError
from dynin.media.image import fit_square, from_pil, to_pil
from dynin.tokenizers.fingerprint import fingerprint
from dynin.tokenizers.magvit2.decoder import Decoder
from dynin.tokenizers.magvit2.encoder import Encoder
from dynin.tokenizers.magvit2.layers import Magvit2Config
from dynin.tokenizers.magvit2.quantizer import Quantizer

PUBLISHED = Magvit2Config()


class Magvit2Tokenizer(nn.Module):
    """Convolutional encoder and decoder around signs; meets `tokenizers.protocol.ImageTokenizer`."""

    def __init__(self, config: Magvit2Config = PUBLISHED) -> None:
        """Build with weights that mean nothing yet; `convert.load` reads the published ones."""
        super().__init__()
        self.config = config
        self.codebook_size = 2**config.num_bits
        self.downsample = config.downsample
        self.image_size = config.image_size
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quantize = Quantizer(config.num_bits)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of codes for a picture of this size in pixels; MediaError when they do not fit.

        Parity:
            The published code rounds such sizes down without a word.
        """
        cell = self.downsample
        if height < cell or width < cell or height % cell or width % cell:
            raise MediaError(
                f"picture is {width} x {height} px; the image tokenizer needs sides that are multiples of {cell} px; "
                "resize it with media.image.fit_square"
            )
        return height // cell, width // cell

    @torch.no_grad()
    def latent(self, pixels: Float[Tensor, "B 3 Y X"]) -> Float[Tensor, "B K _ _"]:
        """What the encoder says of pictures in [-1, 1], before only the signs are kept; MediaError as in `grid`."""
        self.grid(*pixels.shape[-2:])
        like = self.encoder.conv_in.weight
        return self.encoder(pixels.to(like.device, like.dtype))

    def encode(self, pixels: Float[Tensor, "B 3 Y X"]) -> Int[Tensor, "B N"]:
        """Pixels in [-1, 1] to codes in raster order.

        Raises:
            MediaError: If a side is no multiple of the downsampling, or the network's numbers are not finite, which
                comes from such pixels or from a dtype of too small a range.
        """
        latent = self.latent(pixels)
        if not bool(latent.isfinite().all()):
            raise MediaError(
                f"the image tokenizer found numbers that are not finite, working in {latent.dtype}; expected finite "
                "pixels in [-1, 1]; check the picture, or use float32 or bfloat16"
            )
        return self.quantize.codes(latent)

    @torch.no_grad()
    def decode_unclamped(self, codes: Int[Tensor, "B N"], grid: tuple[int, int]) -> Float[Tensor, "B 3 Y X"]:
        """Codes in raster order to what the decoder says, a little outside [-1, 1] in places.

        Raises:
            VocabularyError: If the codes do not fill the grid or one is outside the codebook.
        Parity:
            The published code clamps codes into the codebook and takes every grid to be square; here both are checked.
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
        like = self.decoder.conv_in.weight
        signs = self.quantize.signs(codes.to(like.device), grid)
        return self.decoder(signs.to(like.dtype)).float()

    def decode(self, codes: Int[Tensor, "B N"], grid: tuple[int, int]) -> Float[Tensor, "B 3 Y X"]:
        """Codes in raster order to pixels in [-1, 1]; errors as in `decode_unclamped`."""
        return self.decode_unclamped(codes, grid).clamp(-1, 1)

    def fingerprint(self) -> str:
        """A hash of configuration, weights and the dtype they work in: equal fingerprints give equal codes."""
        return fingerprint(asdict(self.config), self.state_dict())


def preprocess(pixels: Float[Tensor, "3 Y X"], size_px: int, *, squash: bool = False) -> Float[Tensor, "3 _ _"]:
    """A picture of any size to the square that is encoded, by Pillow alone.

    Args:
        size_px: 512 for making pictures, 336 for understanding and editing them.
        squash: Resize both sides to `size_px` instead of cutting the centre square. The published training does so
            with diagrams and documents (AI2D, CLEVR, DocVQA, geometry), whose borders matter.

    Raises:
        MediaError: If the square would be cut from too long a strip; see `media.image.fit_square`.
    Parity:
        The shorter side becomes `size_px` by an antialiased bicubic resize of 8-bit levels, the longer side is
        truncated, the cut is rounded to even: the published levels exactly. Transparency over white and orientation
        by EXIF are ours, see `media.image`.
    """
    if not squash:
        return fit_square(pixels, size_px)
    return from_pil(to_pil(pixels).resize((size_px, size_px), Image.Resampling.BICUBIC))
