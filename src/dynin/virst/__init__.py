"""VIRST: a sentence and a video or picture enter; a mask of what the sentence means leaves, for every frame.

    from dynin import virst

    segmenter = virst.Segmenter(virst.load())
    for found in segmenter.segment(virst.open_frames("clip.mp4"), "the dog that turns back"):
        print(found.index, found.probability, found.mask.sum())

The names below are loaded when first used, as those of `dynin` are.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dynin.media.stream import open_frames
    from dynin.virst.model import Virst
    from dynin.virst.models import load
    from dynin.virst.outputs import About, FrameMask, writing
    from dynin.virst.segment import SegmentConfig, Segmenter

_HOMES = {
    "About": "dynin.virst.outputs",
    "FrameMask": "dynin.virst.outputs",
    "SegmentConfig": "dynin.virst.segment",
    "Segmenter": "dynin.virst.segment",
    "Virst": "dynin.virst.model",
    "load": "dynin.virst.models",
    "open_frames": "dynin.media.stream",
    "writing": "dynin.virst.outputs",
}
__all__ = ["About", "FrameMask", "SegmentConfig", "Segmenter", "Virst", "load", "open_frames", "writing"]


def __getattr__(name: str) -> object:
    """Load a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'dynin.virst' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names."""
    return list(__all__)
