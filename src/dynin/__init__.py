"""Any modality in, any modality out: text, pictures, video and speech as one sequence of integers.

    media  ->  tokenizers  ->  sequence  ->  model  ->  decoding  ->  sequence  ->  tokenizers  ->  media
    files      arrays to       codes to      ids to     logits to     ids to        codes to        files
    to arrays  codes           ids           logits     ids           codes         arrays          again

    import dynin

    model = dynin.load()
    model.generate("a dog above a star", to="image", seed=0).image.save("dog.png")

The names below are loaded when first used, so that `import dynin` is quick. The package `transformers`, where it is
used besides, gets to know our model class when it needs to.
"""

import importlib
from typing import TYPE_CHECKING

from dynin.model.announce import announce as _announce

if TYPE_CHECKING:
    from dynin.errors import DyninError
    from dynin.media.audio import Audio
    from dynin.media.video import Video
    from dynin.pipeline.dynin import Dynin
    from dynin.pipeline.folder import load
    from dynin.pipeline.redo import RedoBox, RedoSeconds, RedoWords
    from dynin.pipeline.request import Request
    from dynin.pipeline.result import Result
    from dynin.types import Modality

__version__ = "0.1.0"

_HOMES = {
    "Audio": "dynin.media.audio",
    "Dynin": "dynin.pipeline.dynin",
    "DyninError": "dynin.errors",
    "Modality": "dynin.types",
    "RedoBox": "dynin.pipeline.redo",
    "RedoSeconds": "dynin.pipeline.redo",
    "RedoWords": "dynin.pipeline.redo",
    "Request": "dynin.pipeline.request",
    "Result": "dynin.pipeline.result",
    "Video": "dynin.media.video",
    "load": "dynin.pipeline.folder",
}
__all__ = [
    "Audio",
    "Dynin",
    "DyninError",
    "Modality",
    "RedoBox",
    "RedoSeconds",
    "RedoWords",
    "Request",
    "Result",
    "Video",
    "load",
]


def __getattr__(name: str) -> object:
    """Load a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'dynin' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names."""
    return [*__all__, "__version__"]


_announce()
