"""The datasets of referring examples by name: where each lies, which splits it has, and who reads it.

Enters: a name, a folder and a split. Leaves: a `ReferringSource`. Does not know layouts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dynin.config import suggest
from dynin.data.referring import (
    ade20k,
    coco_stuff,
    lv_vis,
    mevis,
    paco,
    pascal_part,
    reason_seg,
    ref_davis17,
    ref_youtube_vos,
    refcoco,
    revos,
)
from dynin.data.referring.source import ReferringSource
from dynin.errors import DataError


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """One row of the table."""

    name: str
    folders: tuple[str, ...]
    """What its folder is called where it lies beside others; none where it consists of several beside each other."""
    splits: tuple[str, ...]
    """Names of its splits; the first is the one that is scored where none is named."""
    open: Callable[[Path, str], ReferringSource]
    """Opens a split of the dataset whose own folder is given."""


def _refer(name: str, *splits: str) -> Dataset:
    return Dataset(
        name=name, folders=("refer_seg",), splits=splits, open=lambda root, split: refcoco.Refer(root, name, split)
    )


DATASETS: tuple[Dataset, ...] = (
    Dataset(name="mevis", folders=("mevis", "MeViS", "MeViS_release"), splits=mevis.SPLITS, open=mevis.read),
    Dataset(name="revos", folders=("ReVOS", "revos", "REVOS"), splits=revos.SPLITS, open=revos.read),
    Dataset(
        name="ref-youtube-vos",
        folders=("Ref-Youtube-VOS", "refytvos", "Ref-YouTube-VOS", "ref-youtube-vos", "Refer-YouTube-VOS"),
        splits=ref_youtube_vos.SPLITS,
        open=ref_youtube_vos.read,
    ),
    Dataset(
        name="ref-davis17",
        folders=("davis17", "ref-davis", "Ref-DAVIS17"),
        splits=ref_davis17.SPLITS,
        open=ref_davis17.read,
    ),
    Dataset(name="lv-vis", folders=("lvvis", "LV-VIS", "lv-vis"), splits=lv_vis.SPLITS, open=lv_vis.read),
    _refer("refcoco", "val", "testA", "testB", "train"),
    _refer("refcoco+", "val", "testA", "testB", "train"),
    _refer("refcocog", "val", "test", "train"),
    _refer("refclef", "val", "testA", "testB", "testC", "train"),
    _refer("grefcoco", "val", "testA", "testB", "train"),
    Dataset(name="reason-seg", folders=("reason_seg", "ReasonSeg"), splits=reason_seg.SPLITS, open=reason_seg.read),
    Dataset(name="ade20k", folders=("ade20k", "ADEChallengeData2016"), splits=ade20k.SPLITS, open=ade20k.read),
    Dataset(name="coco-stuff", folders=(), splits=coco_stuff.SPLITS, open=coco_stuff.read),
    Dataset(name="paco", folders=(), splits=paco.SPLITS, open=paco.read),
    Dataset(name="pascal-part", folders=(), splits=pascal_part.SPLITS, open=pascal_part.read),
)

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
