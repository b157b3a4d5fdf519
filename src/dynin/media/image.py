"""Picture files to pixels and back.

Enters: PNG, JPEG, WebP, or the first picture of a GIF or animation, as a file or bytes; pixels to write or to paste.
Leaves: float32 (3, Y, X) RGB in [-1, 1]; PNG, JPEG and WebP files. Levels 0..255 are `(pixel + 1) * 127.5` and survive
the way there and back exactly. Does not know grids, codes or tasks.

What is done to unusual pictures: the EXIF orientation is applied; transparency is laid over white; palettes, greys and
CMYK become RGB; 16-bit greys are rounded to 8 bits, 16-bit colours lose their low byte; colour profiles are ignored.
"""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor

from dynin.errors import MediaError
from dynin.media import files
from dynin.media.limits import LIMITS, check_header, check_size

WRITE_SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WebP"}

_PNG_DEPTH_AT = 24
"""Where a PNG says how many bits a channel has."""
_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "PNG": {},
    "JPEG": {"quality": 95, "subsampling": 0},
    "WebP": {"lossless": True, "exact": True},
}


def read(path: str | os.PathLike[str]) -> Float[Tensor, "3 Y X"]:
    """Read a picture; see `decode`. MediaError if it is missing, empty, damaged, no picture, or over the limits."""
    return decode(files.read_bytes(path, LIMITS.max_bytes), str(path))


def decode(data: bytes, name: str = "<bytes>") -> Float[Tensor, "3 Y X"]:
    """The picture in `data`, its format told by its content.

    Args:
        name: What error messages call the picture.

    Raises:
        MediaError: If `data` is no picture in a known format, is damaged, or is over `LIMITS`.
    """
    kind = check_header(data, name)
    with (
        files.decoding_untrusted(name, f"a {kind} picture"),
        Image.open(io.BytesIO(data), formats=[kind.upper()]) as picture,
    ):
        check_size(*picture.size, name)
        picture.load()
        return from_pil(ImageOps.exif_transpose(picture))


def check_plain(picture: Image.Image, name: str) -> None:
    """MediaError unless `from_pil` keeps every level of a picture: 8 bits a channel and no transparency.

    A part of a picture can only be replaced bit for bit where the rest is not changed by being read.
    """
    is_see_through = picture.has_transparency_data and picture.convert("RGBA").getchannel(3).getextrema() != (255, 255)
    if is_see_through:
        raise MediaError(f"{name}: is transparent in places, expected an opaque picture; flatten it first")
    if picture.mode.startswith(("I", "F")):
        raise _too_deep(name)


def check_plain_file(path: str | os.PathLike[str]) -> None:
    """The same of a file; MediaError also if it cannot be opened or is over the limits."""
    data = files.read_bytes(path, LIMITS.max_bytes)
    kind = check_header(data, str(path))
    if kind == "PNG" and data[_PNG_DEPTH_AT] > 8:  # Pillow reads 16-bit colours as 8-bit ones without a word
        raise _too_deep(str(path))
    with (
        files.decoding_untrusted(str(path), f"a {kind} picture"),
        Image.open(io.BytesIO(data), formats=[kind.upper()]) as picture,
    ):
        check_plain(picture, str(path))


def _too_deep(name: str) -> MediaError:
    return MediaError(f"{name}: has more than 8 bits a channel, expected 8; convert it first")


def write(path: str | os.PathLike[str], pixels: Float[Tensor, "3 Y X"]) -> None:
    """Write a picture as PNG or WebP (both without loss) or JPEG (quality 95), by suffix; whole or not at all.

    Raises:
        MediaError: If the suffix is none of these, a pixel is not finite, or the file cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".gif":
        raise MediaError(f"{path}: a GIF is written as a video; use media.video.write, or choose .png")
    if suffix not in WRITE_SUFFIXES:
        raise MediaError(
            f"{path}: unknown suffix {suffix!r} for a picture, expected one of {' '.join(WRITE_SUFFIXES)}; rename it"
        )
    kind = WRITE_SUFFIXES[suffix]
    picture = to_pil(pixels)
    with files.replace_whole(path) as temporary:
        picture.save(temporary, format=kind.upper(), **_SAVE_OPTIONS[kind])


def to_levels(pixels: Float[Tensor, "... Y X"]) -> np.ndarray:
    """Pixels in [-1, 1] to levels 0..255 as uint8, channels last; values outside are clipped.

    Raises:
        MediaError: If a pixel is not finite.
    """
    if not bool(torch.isfinite(pixels).all()):
        raise MediaError("the picture holds pixels that are not finite, expected values in [-1, 1]; check its source")
    levels = ((pixels.detach().float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return levels.movedim(-3, -1).cpu().numpy()


def from_levels(levels: np.ndarray) -> Float[Tensor, "... 3 Y X"]:
    """Levels 0..255, channels last, to pixels in [-1, 1]."""
    return (torch.from_numpy(np.array(levels)).float() / 127.5 - 1).movedim(-1, -3).contiguous()


def to_pil(pixels: Float[Tensor, "3 Y X"]) -> Image.Image:
    """Pixels to an 8-bit RGB picture of Pillow; MediaError if a pixel is not finite."""
    return Image.fromarray(to_levels(pixels))


def from_pil(picture: Image.Image) -> Float[Tensor, "3 Y X"]:
    """A picture of Pillow in any mode to pixels; the module's docstring says what becomes of unusual modes."""
    if picture.mode.startswith("I"):  # 16-bit grey, which Pillow would clip at 255 instead of scaling
        grey = np.clip(np.rint(np.asarray(picture, dtype=np.float64) / 257), 0, 255).astype(np.uint8)
        picture = Image.fromarray(grey)
    elif picture.has_transparency_data:
        opaque = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", opaque.size, "white"), opaque)
    return from_levels(np.asarray(picture.convert("RGB")))


def fit_square(pixels: Float[Tensor, "3 Y X"], size_px: int) -> Float[Tensor, "3 size_px size_px"]:
    """Bring the shorter side to `size_px` (bicubic, antialiased, on 8-bit levels) and cut the centre square.

    Raises:
        MediaError: If one side is more than `LIMITS.max_aspect` times the other.
    Parity:
        The longer side is truncated and the cut is rounded to even, as in the usual resize and centre crop.
    """
    height, width = pixels.shape[-2:]
    short, long = min(height, width), max(height, width)
    if long > LIMITS.max_aspect * short:
        raise MediaError(
            f"the picture has {width} x {height} pixels, expected one side at most {LIMITS.max_aspect} times the "
            "other to cut a square from it; crop it first"
        )
    other = int(size_px * long / short)
    new_width, new_height = (size_px, other) if width <= height else (other, size_px)
    picture = to_pil(pixels)
    if picture.size != (new_width, new_height):
        picture = picture.resize((new_width, new_height), Image.Resampling.BICUBIC)
    left, top = round((new_width - size_px) / 2), round((new_height - size_px) / 2)
    return from_pil(picture.crop((left, top, left + size_px, top + size_px)))


def paste(
    original: Float[Tensor, "*B 3 Y X"],
    replacement: Float[Tensor, "*B 3 _ _"],
    box: tuple[int, int, int, int],
    margin_px: int,
) -> Float[Tensor, "*B 3 Y X"]:
    """Put a region of `replacement` into `original`, aligned, both of the same size.

    Inside the box the result is `replacement`, farther than the margin it is `original`, both bit for bit; in the
    margin around the box the two are blended, the weight falling linearly with the distance along each axis.

    Args:
        box: x, y, width and height in pixels, within the picture.
        margin_px: Width of the blended frame around the box, 0 for none.

    Raises:
        MediaError: If the sizes differ, the box is empty or outside the picture, or the margin is negative.
    """
    x, y, box_width, box_height = box
    height, width = original.shape[-2:]
    if replacement.shape != original.shape:
        raise MediaError(
            f"the replacement has the shape {tuple(replacement.shape)}, expected that of the original, "
            f"{tuple(original.shape)}; resize it first"
        )
    is_inside = min(x, y) >= 0 and x + box_width <= width and y + box_height <= height
    if not is_inside or box_width < 1 or box_height < 1 or margin_px < 0:
        raise MediaError(
            f"the box x,y,width,height = {x},{y},{box_width},{box_height} with margin {margin_px} was given, expected "
            f"a part of the {width} x {height} pixel picture and a margin of 0 or more; correct it"
        )
    rows = _ramp(height, y, y + box_height, margin_px)
    columns = _ramp(width, x, x + box_width, margin_px)
    weight = (rows[:, None] * columns[None, :]).to(original.device)
    blended = original + weight * (replacement - original)
    return torch.where(weight == 1, replacement, torch.where(weight == 0, original, blended))


def _ramp(length: int, start: int, stop: int, margin: int) -> Float[Tensor, " length"]:
    """1 in [start, stop), falling linearly to 0 just beyond `margin` places outside."""
    at = torch.arange(length, dtype=torch.float32)
    outside = torch.maximum(start - at, at - (stop - 1)).clamp(min=0)
    return (1 - outside / (margin + 1)).clamp(min=0)
