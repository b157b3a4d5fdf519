"""A place to a network of the package `transformers`, strictly; the only file that knows how that package loads.

Enters: a folder or an id on the model hub, and the classes that the caller can use by model type. Leaves: a network,
ready to be asked. Does not know codes.

Weights come from safetensors alone. Only classes of the installed package are built, chosen by the model type in
config.json, so that no code that came with a model is run. The package is imported when it is first needed.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from dynin.checkpoint import resolve
from dynin.errors import CheckpointError, RequestError
from dynin.optional import import_quietly, quietly

_CONFIG = "config.json"
_NOT_SETTINGS = ("architectures", "dtype", "transformers_version")
_LOAD_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    RuntimeError,
    ImportError,
    SafetensorError,
    StrictDataclassError,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """How a folder with one model type becomes a network."""

    class_name: str
    """In `transformers`."""
    prefix: str = ""
    """What the names of its tensors begin with where it is one part of the model; the other parts are not read."""


def library() -> ModuleType:
    """The package `transformers`; RequestError with the command that installs it where it is missing."""
    try:
        return import_quietly("transformers")
    except ImportError as error:
        raise RequestError(
            "the package transformers is missing and this tokenizer is one of its networks; "
            "run: pip install 'dynin[published]'"
        ) from error


def load(place: str | os.PathLike[str], kinds: Mapping[str, Kind], dtype: torch.dtype) -> Any:
    """The network in a folder or under an id such as org/name, on the CPU, in evaluation, without gradients.

    Args:
        kinds: What can be used, by model type.

    Raises:
        CheckpointError: If the place is unknown, its model type is none of `kinds`, there are no safetensors, or
            weights are damaged, missing, superfluous or of another shape.
        RequestError: If the package is missing or too old.
    """
    package = library()
    folder = resolve(place)
    kind = kinds[_model_type(folder, kinds)]
    with quietly():  # the package imports its parts when they are asked for
        network_class = getattr(package, kind.class_name, None)
    if network_class is None:
        raise RequestError(
            f"transformers {package.__version__} has no {kind.class_name}; run: pip install 'dynin[published]'"
        )
    if not any(folder.glob("*.safetensors")):
        raise CheckpointError(
            f"{folder}: holds no .safetensors file; pickled weights are not read, convert them to safetensors first"
        )
    try:
        with _silent(package):
            network, report = network_class.from_pretrained(
                folder,
                config=network_class.config_class.from_pretrained(folder, local_files_only=True),
                key_mapping={f"^{re.escape(kind.prefix)}": ""} if kind.prefix else None,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                dtype=dtype,
            )
    except _LOAD_ERRORS as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{folder}: config and weights make no {kind.class_name} ({reason}); fetch both again"
        ) from error
    _require_exact(folder, kind, report)
    return network.to(dtype=dtype).eval().requires_grad_(False)


def settings(network: Any) -> dict[str, object]:
    """What a network's config says apart from the defaults, as plain values.

    Left out is what does not change numbers, such as where a network came from and which version wrote it, and what
    the class does not know. A field that a later version adds has its default there: the settings stay the same.
    """
    config = network.config
    return _differences(_plain(config), _plain(type(config)()))


def _plain(config: Any) -> dict[str, Any]:
    return json.loads(json.dumps(config.to_dict(), default=str))


def _differences(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name in sorted(values.keys() & defaults.keys()):
        value, default = values[name], defaults[name]
        if name.startswith("_") or name in _NOT_SETTINGS or value == default:
            continue
        is_nested = isinstance(value, dict) and isinstance(default, dict)
        found[name] = _differences(value, default) if is_nested else value
    return found


def _model_type(folder: Path, kinds: Mapping[str, Kind]) -> str:
    try:
        config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / _CONFIG}: missing or no valid JSON; give the folder of a model") from error
    found = str(config.get("model_type")) if isinstance(config, dict) else "missing"
    if found not in kinds:
        raise CheckpointError(
            f"{folder / _CONFIG}: the model type is {found}, expected one of {', '.join(sorted(kinds))}; "
            "choose a model of these types"
        )
    return found


def _require_exact(folder: Path, kind: Kind, report: Mapping[str, Any]) -> None:
    """CheckpointError unless every weight of the network came from the file, and the file holds no other."""
    lists = {
        "missing": sorted(report["missing_keys"]),
        "unknown": [] if kind.prefix else sorted(report["unexpected_keys"]),
        "wrong shapes": sorted(str(key[0]) for key in report["mismatched_keys"]),
    }
    faults = [f"{fault}: {', '.join(names[:8])}" for fault, names in lists.items() if names]
    if faults:
        raise CheckpointError(
            f"{folder}: the weights do not fit {kind.class_name}; {'; '.join(faults)}; "
            "check that config and weights belong together"
        )


@contextmanager
def _silent(package: ModuleType) -> Iterator[None]:
    """No progress bars and no notices of the package: what is wrong is told by the errors of this file."""
    logging = package.utils.logging
    has_bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if has_bars:
            logging.enable_progress_bar()
