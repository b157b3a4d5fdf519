"""The bytes of one picture, video or sound, wherever a row says they are.

Enters: paths, data URLs, bytes. Leaves: a `Medium` that is read when it is wanted; `MediaError` in one line. Does not
know pixels or samples.
"""

import base64
import binascii
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path

from dynin.errors import MediaError
from dynin.media import files
from dynin.media.video import LIMITS

MAX_BYTES = LIMITS.max_bytes
"""Largest file of any kind; pictures have a smaller limit of their own."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Medium:
    """One file's content."""

    name: str
    """What messages call it."""
    key: Hashable
    """Equal keys mean equal bytes, while nobody writes to the files."""
    read: Callable[[], bytes]
    """MediaError if there is nothing to be read."""


def of_file(path: Path) -> Medium:
    """A file of at most `MAX_BYTES`; it need not exist until it is read."""
    try:
        state = path.stat()
        key: Hashable = (str(path), state.st_mtime_ns, state.st_size)
    except (OSError, ValueError):
        key = (str(path), None)
    return Medium(name=str(path), key=key, read=lambda: _read(path))


def of_bytes(data: bytes, name: str, key: Hashable) -> Medium:
    """Bytes that are there already."""
    return Medium(name=name, key=key, read=lambda: _not_empty(data, name))


def of_url(url: str) -> Medium:
    """A data URL: `data:image/png;base64,` and the content; other URLs are refused when they are read."""

    def read() -> bytes:
        head, comma, body = url.partition(",")
        if not url.startswith("data:"):
            raise MediaError(f"{url[:60]}: is a URL, expected a path; download the file and name it")
        if not comma or not head.endswith(";base64"):
            raise MediaError(f"{head[:60]}: is no data URL in base64, expected data:TYPE;base64,CONTENT; correct it")
        try:
            return _not_empty(base64.b64decode(body, validate=True), head[:60])
        except binascii.Error as error:
            raise MediaError(f"{head[:60]}: the base64 content is damaged; encode it again") from error

    return Medium(name=url.partition(",")[0][:60], key=url, read=read)


def is_url(path: str) -> bool:
    """Whether a path is a URL of any kind."""
    return path.startswith(("data:", "http://", "https://", "file://"))


def _read(path: Path) -> bytes:
    try:
        return files.read_bytes(path, MAX_BYTES)
    except (OSError, ValueError) as error:  # a path that the system cannot even look up
        if isinstance(error, MediaError):
            raise
        raise MediaError(f"{str(path)[:200]}: cannot be a file's path; correct it") from error


def _not_empty(data: bytes, name: str) -> bytes:
    if not data:
        raise MediaError(f"{name}: the file is empty (0 bytes); save or download it again")
    return data
