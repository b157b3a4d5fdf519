"""Where a command may write: checked before anything slow begins.

Enters: the path a user wrote. Leaves: nothing, or an error. Does not know what will be written.
"""

from pathlib import Path

from dynin.errors import RequestError


def require_place(path: Path) -> None:
    """RequestError unless a file of this name could be written."""
    if path.is_dir():
        raise RequestError(f"{path} is a folder; give the name of a file")
    if not path.resolve().parent.is_dir():
        raise RequestError(f"{path}: the folder {path.parent} does not exist; create it first")
