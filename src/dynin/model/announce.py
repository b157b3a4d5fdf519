"""Tells the package `transformers` of our model class at the moment when its classes by config are imported.

Enters: nothing. Leaves: one finder in `sys.meta_path`, which is what makes `import dynin` enough and still quick. Does
not know the class (`model.hub`); imports neither torch nor `transformers` by itself.

There is no other way without cost or remote code: `transformers` reads no entry points, and registering a class needs
the class, and with it torch. The finder looks for nothing but one module, leaves with it, and changes nothing else.
"""

import importlib
import logging
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

AWAITED = "transformers.models.auto.modeling_auto"
HUB = "dynin.model.hub"
log = logging.getLogger(__name__)


class Announcer:
    """Finds the awaited module as the other finders do, and registers our class once it has been executed."""

    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The module's spec with a loader that goes on to register; None for every other module."""
        if fullname != AWAITED:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next((found for finder in others if (found := finder.find_spec(fullname, path, target))), None)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            sys.meta_path.remove(self)  # type: ignore[arg-type]
            register()

        setattr(spec.loader, "exec_module", execute_and_register)  # noqa: B010 - a method of this one loader
        return spec


def announce() -> None:
    """Register now if the classes by config are there already, else when they are imported; once."""
    if AWAITED in sys.modules:
        register()
    elif not any(isinstance(finder, Announcer) for finder in sys.meta_path):
        sys.meta_path.insert(0, Announcer())  # type: ignore[arg-type]


def register() -> None:
    """Import our class, which registers it; a version that is too old for it is told and left alone."""
    from dynin.errors import DyninError

    try:
        importlib.import_module(HUB)
    except DyninError as error:
        log.warning("transformers will not know dynin_omni: %s", error)
