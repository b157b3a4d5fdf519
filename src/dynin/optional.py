"""Packages that are not always installed: imported when they are needed, and without a word.

Enters: the name of a module. Leaves: the module, or Python's own ImportError, which the caller turns into what to
install. Does not know what any package is for.

`transformers` imports `torchao` wherever that is installed, and `torchao` tells on stderr of kernels that are not there
and not needed; nobody who asked for a voice wants to read it.
"""

import importlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

_TALKATIVE = ("torchao", "torch.utils._pytree")


def import_quietly(name: str) -> ModuleType:
    """A module, imported without notices; ImportError where it is missing or too old."""
    with quietly():
        return importlib.import_module(name)


@contextmanager
def quietly() -> Iterator[None]:
    """No notices about kernels and about the packages' own source while they are imported."""
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="invalid escape sequence")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
