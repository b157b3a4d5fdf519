"""Paths to bytes and back: every way a file can fail becomes one line that says what to do.

Enters: paths given by a user, and decoders that may raise anything. Leaves: open streams, whole files, `MediaError`.
Does not know any media format.
"""

import importlib
import io
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from dynin.errors import MediaError


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[io.BufferedIOBase]:
    """Open a regular, non-empty file for reading.

    Raises:
        MediaError: If the file is missing, empty, a folder, or may not be read.
    """
    place = Path(path)
    if not place.exists():
        raise MediaError(f"{place}: no such file; check the path")
    if not place.is_file():
        raise MediaError(f"{place}: is a folder or a device, expected a file; give the path of a media file")
    if place.stat().st_size == 0:
        raise MediaError(f"{place}: the file is empty (0 bytes); save or download it again")
    try:
        stream = place.open("rb")
    except OSError as error:
        raise MediaError(f"{place}: the file may not be read; check its permissions") from error
    with stream:
        yield stream


def read_bytes(path: str | os.PathLike[str], max_bytes: int) -> bytes:
    """The whole content of a file of at most `max_bytes`; MediaError as in `opened`, or if it is larger."""
    with opened(path) as stream:
        content = stream.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise MediaError(
            f"{path}: the file has more than {max_bytes >> 20} MiB, the most that is read; make it smaller or shorter"
        )
    return content


@contextmanager
def decoding_untrusted(name: str, expected: str) -> Iterator[None]:
    """The one boundary around other people's decoders: whatever they raise becomes a `MediaError`.

    Decoders fed with damaged files raise outside their own error families (SyntaxError, IndexError, struct.error,
    UnicodeDecodeError, MemoryError, ...), so this is the one place that catches every Exception. Their text is not
    shown, since it can quote file content or addresses; it stays reachable as `__cause__`.

    Args:
        expected: What the file should have been, such as "a PNG picture".
    """
    try:
        yield
    except MediaError:
        raise
    except Exception as error:
        raise MediaError(f"{name}: damaged or cut short, expected {expected}; save or download it again") from error


@contextmanager
def replace_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well, and vanishes when it does not.

    The temporary path keeps the suffix, because writers choose their format by it. A link is followed.

    Raises:
        MediaError: If the folder is missing, the place is not a regular file, or the disk refuses the data.
    """
    place = Path(path).resolve()
    if not place.parent.is_dir():
        raise MediaError(f"{path}: the folder {place.parent} does not exist; create it first")
    if place.exists() and not place.is_file():
        raise MediaError(f"{path}: is a folder or a device, expected a place for a file; choose another path")
    temporary = place.with_name(f".{place.stem[:80]}.{secrets.token_hex(6)}{place.suffix}")
    try:
        temporary.open("xb").close()
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.replace(place)
    except OSError as error:
        reason = error.strerror or "the system refused"
        raise MediaError(f"{path}: could not be written ({reason}); check permissions and free space") from error
    finally:
        temporary.unlink(missing_ok=True)


def import_optional(package: str) -> ModuleType:
    """Import a codec package of the extra `media`; MediaError with the command that installs it if it is missing."""
    try:
        return importlib.import_module(package)
    except (ImportError, OSError) as error:
        raise MediaError(
            f'the package {package} is missing and this file format needs it; run: pip install "dynin[media]"'
        ) from error
