"""How large a picture may be, checked from its first bytes alone; needs no array library, so it answers at once.

Enters: a path, or a size. Leaves: nothing, or a `MediaError`. Does not know pixels.
"""

import os
from dataclasses import dataclass

from dynin.errors import MediaError
from dynin.media import containers, files


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageLimits:
    """What is refused before a decoder allocates anything."""

    max_px: int = 1 << 24
    """Largest width times height, about 16.8 million pixels."""
    max_side_px: int = 8192
    max_bytes: int = 64 << 20
    max_aspect: int = 32
    """Longest side over shortest side that `image.fit_square` accepts."""


LIMITS = ImageLimits()


def check_size(width: int, height: int, name: str) -> None:
    """MediaError unless a picture of this size in pixels is within `LIMITS`."""
    is_side_allowed = min(width, height) >= 1 and max(width, height) <= LIMITS.max_side_px
    if not is_side_allowed or width * height > LIMITS.max_px:
        raise MediaError(
            f"{name}: {width} x {height} pixels, expected sides of 1 to {LIMITS.max_side_px} and at most "
            f"{LIMITS.max_px / 1e6:.1f} million pixels; make it smaller"
        )


def check_header(data: bytes, name: str) -> str:
    """The format of a picture by its content, once its declared size is within `LIMITS`.

    Raises:
        MediaError: If `data` is no picture in a known format, its header is damaged, or it is too large.
    """
    kind = containers.sniff(data[: containers.HEAD_BYTES])
    if kind not in containers.PICTURES:
        received = f"is {kind}" if kind else "is in no known format"
        raise MediaError(
            f"{name}: {received}, expected a picture as {', '.join(containers.PICTURES)}; convert it first"
        )
    with files.decoding_untrusted(name, f"a {kind} picture"):
        check_size(*containers.picture_size(data, kind), name)
    return kind


def check_file(path: str | os.PathLike[str]) -> None:
    """MediaError if a picture is missing, empty, of no known format, or declares a size over `LIMITS`."""
    check_header(files.read_bytes(path, LIMITS.max_bytes), str(path))
