"""The datasets of referring examples by name: where each lies, which splits it has, and who reads it.

Enters: a name, a folder and a split. Leaves: a `ReferringSource`. Does not know layouts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dynin.config import suggest
from dynin.data.referring.source import ReferringSource
from dynin.errors import DataError


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """One row of the table."""

    name: str
    folders: tuple[str, ...]
    """What its folder is called where it lies beside others."""
    splits: tuple[str, ...]
    """Names of its splits; the first is the one that is scored where none is named."""
    open: Callable[[Path, str], ReferringSource]
    """Opens a split of the dataset whose own folder is given."""


DATASETS: tuple[Dataset, ...] = ()

_BY_NAME = {dataset.name: dataset for dataset in DATASETS}


def open_dataset(name: str, root: Path, split: str | None = None) -> ReferringSource:
    """Open a dataset in its published layout.

    Args:
        root: The dataset's own folder, or the folder in which it lies under one of the names that its authors use.
        split: One of the dataset's splits; the one that is scored where none is given.

    Raises:
        DataError: If the name or the split is unknown, or the folder is missing or not laid out as published.
    """
    dataset = _BY_NAME.get(name)
    if dataset is None:
        raise DataError(f"unknown dataset {name!r}{suggest(name, tuple(_BY_NAME))}")
    chosen = dataset.splits[0] if split is None else split
    if chosen not in dataset.splits:
        raise DataError(f"dataset {name} has no split {chosen!r}; choose one of {', '.join(dataset.splits)}")
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give the folder of {name}, or the one in which {name} lies")
    inner = [root / folder for folder in dataset.folders if (root / folder).is_dir()]
    return dataset.open(inner[0] if inner else root, chosen)
