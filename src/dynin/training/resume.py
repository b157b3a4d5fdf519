"""Whether a run may go on from what was saved: the same settings, data, code and number of processes, or it says so.

Enters: what a run is made of. Leaves: marks that are saved with it, and an error that names what differs. Does not know
networks or files of weights.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from dynin import checkpoint
from dynin.config import to_dict
from dynin.errors import CheckpointError
from dynin.repository import SUMS, sha256
from dynin.training import processes

PACKAGES = ("data", "diffusion", "model", "nn", "sequence", "training")
"""The code whose change can change a training."""
FREE = ("log_every", "save_every", "preview_every", "tensorboard", "output", "name", "workers")
"""Settings that change nothing that is computed."""
TOLD = {
    "settings": "other settings",
    "start": "another content of the model that it started from",
    "data": "other data",
    "code": "another state of the code",
    "processes": "another number of processes",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """How a run goes on."""

    is_previous: bool = False
    """From the step before the latest one."""
    is_exact: bool = True
    """Only if the outcome will be that of an unbroken run, bit for bit."""


EXACT = Policy()


@runtime_checkable
class Started(Protocol):
    """Settings of a run, whatever it trains; a frozen dataclass."""

    @property
    def init(self) -> str:
        """The model that it starts from; empty for none."""
        ...


def marks(config: Started, data: str, packages: Sequence[str] = PACKAGES) -> dict[str, Any]:
    """What must be equal for a run to go on exactly.

    Args:
        packages: The code that the run goes through.
    """
    settings = json.loads(json.dumps(to_dict(config), default=str, sort_keys=True))
    return {
        "settings": {name: value for name, value in settings.items() if name not in FREE},
        "start": start_fingerprint(config.init),
        "data": data,
        "code": code_fingerprint(packages),
        "processes": processes.count(),
    }


def require_same(folder: Path, then: Mapping[str, Any] | None, now: Mapping[str, Any], policy: Policy) -> None:
    """Refuse to go on where the outcome could not be that of an unbroken run.

    Raises:
        CheckpointError: If something differs and the policy is exact; every difference is named.
    """
    if then is None or not policy.is_exact:
        return
    told = [f"{TOLD[key]}{_difference(then.get(key), now[key])}" for key in TOLD if then.get(key) != now[key]]
    if told:
        raise CheckpointError(
            f"the run in {folder} was saved with {'; '.join(told)}: going on would not end where the unbroken run "
            "ends; undo the change, give the run another name, or give --resume changed to go on all the same"
        )


def code_fingerprint(packages: Sequence[str] = PACKAGES) -> str:
    """SHA-256 over the sources that a training runs through."""
    digest = hashlib.sha256()
    for package in packages:
        folder = Path(str(resources.files("dynin").joinpath(package)))
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def start_fingerprint(init: str) -> str:
    """SHA-256 over the weights that a run starts from, by the sums that its folder lists; empty without such a model.

    What is frozen is not saved with a step but read from there again.
    """
    if not init:
        return ""
    if Path(init).is_file():  # a TOML file that names the model's parts
        return sha256(Path(init))
    folder = checkpoint.resolve(init)
    sums = sorted(folder.rglob(SUMS)) or sorted(folder.rglob("*.safetensors"))
    return hashlib.sha256("".join(sha256(path) for path in sums).encode()).hexdigest()


def _difference(then: Any, now: Any) -> str:
    """Which values differ, in words."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        then, now = _flat(then), _flat(now)
        names = sorted(name for name in {*then, *now} if then.get(name) != now.get(name))
        return " (" + ", ".join(f"{name}: {then.get(name)!r}, now {now.get(name)!r}" for name in names) + ")"
    if isinstance(now, int):
        return f" ({then}, now {now})"
    return ""


def _flat(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Nested settings by dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{path}{name}.") if isinstance(value, Mapping) else {path + name: value}
    return flat
