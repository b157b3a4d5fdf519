"""Codes of pictures made of patches that come again and again, found by the patches' bytes.

Enters: pictures whose pixels are 8-bit values, and a tokenizer that looks at one patch at a time. Leaves: its codes.
Does not know what pictures show. Each patch is encoded alone, once, so a code does not depend on what was seen before.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dynin.tokenizers.small.image import SmallImageTokenizer

MOST_PATCHES = 200_000
"""Patches that are remembered; about 800 bytes each."""


@dataclass(frozen=True, slots=True)
class PatchMemo:
    """Stands in for `SmallImageTokenizer.encode`."""

    image: SmallImageTokenizer
    known: dict[bytes, int] = field(default_factory=dict)

    def encode(self, pixels: Float[Tensor, "B 3 Y X"]) -> Int[Tensor, "B N"]:
        """Codes in raster order; pictures that are no 8-bit ones are encoded as they are."""
        rows, columns = self.image.grid(*pixels.shape[-2:])
        whole = ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        if len(self.known) > MOST_PATCHES or not torch.equal(whole.float().div_(127.5).sub_(1), pixels):
            return self.image.encode(pixels)
        patch = self.image.downsample
        size = 3 * patch**2
        cut = whole.unflatten(2, (rows, patch)).unflatten(4, (columns, patch)).permute(0, 2, 4, 1, 3, 5)
        raw = cut.contiguous().numpy().tobytes()
        codes = [self._code(raw[start : start + size]) for start in range(0, len(raw), size)]
        return torch.tensor(codes).view(len(pixels), rows * columns)

    def _code(self, patch: bytes) -> int:
        code = self.known.get(patch)
        if code is None:
            side = self.image.downsample
            values = torch.frombuffer(bytearray(patch), dtype=torch.uint8).view(1, 3, side, side)
            code = self.known[patch] = int(self.image.encode(values.float().div_(127.5).sub_(1)))
        return code
