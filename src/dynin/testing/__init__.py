"""Tiny models, small media and the published samplers, for our tests and for those of people who build on this.

Enters: folders, seeds, sizes. Leaves: what tests need. The names below are loaded when first used, so that the
published samplers (`oracle`, `oracle_text`, `oracle_grid`, `oracle_speech`) come without the rest of the house.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dynin.testing.media import small_picture, small_sound, small_video
    from dynin.testing.models import WORDS, published_text, tiny, tiny_model, tiny_published

_HOMES = {
    "WORDS": "dynin.testing.models",
    "published_text": "dynin.testing.models",
    "small_picture": "dynin.testing.media",
    "small_sound": "dynin.testing.media",
    "small_video": "dynin.testing.media",
    "tiny": "dynin.testing.models",
    "tiny_model": "dynin.testing.models",
    "tiny_published": "dynin.testing.models",
}
__all__ = [
    "WORDS",
    "published_text",
    "small_picture",
    "small_sound",
    "small_video",
    "tiny",
    "tiny_model",
    "tiny_published",
]


def __getattr__(name: str) -> object:
    """Load a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'dynin.testing' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names."""
    return list(__all__)
