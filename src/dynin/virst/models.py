"""A VIRST by what a user calls it: a folder of ours, a published one, a hub id, or nothing for the one that ships.

Enters: a name, or None. Leaves: a `Virst` that is ready to segment. Does not know what is in the folders:
`virst.folder` and `virst.published` do.
"""

import os
from pathlib import Path

import torch

from dynin import checkpoint
from dynin.virst import folder, published
from dynin.virst.frozen import settle
from dynin.virst.model import Virst

EMBEDDED_FOLDER = Path(__file__).resolve().parents[1] / "assets" / "virst"
"""The small VIRST that ships with the code."""


def load(path_or_id: str | os.PathLike[str] | None = None, *, device: torch.device | str | None = None) -> Virst:
    """The model that is named, in the layout of this project or the published one, frozen.

    It is made lighter, as `virst.frozen` says: what is to learn on is loaded by `virst.folder.load`.

    Args:
        path_or_id: A folder, or `org/name` on the model hub; None for the small one that ships.
        device: Where it goes; None leaves it where tensors are made by default.

    Raises:
        CheckpointError: If a file is missing or damaged, it is no VIRST, or its backbone is another than it was trained
            with.
        ConfigError: If a package that its adapters need is missing.
        RequestError: If a package that its networks need is missing.
    """
    place = checkpoint.resolve(EMBEDDED_FOLDER if path_or_id is None else path_or_id)
    config = place / "config.json"
    is_ours = config.is_file() and "format_version" in config.read_text("utf-8")
    return settle(folder.load(place, device=device) if is_ours else published.load(place, device=device))
