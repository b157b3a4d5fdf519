"""`dynin doctor`: what this machine has, and whether everything that is needed is there.

Enters: nothing. Leaves: one line for each finding; status 1 if something is missing that generating needs.
"""

import os
import platform
import shutil
from importlib import metadata
from typing import Annotated

import typer

from dynin.errors import DyninError

PACKAGES = ("torch", "numpy", "pillow", "safetensors", "tokenizers", "av", "soundfile", "soxr", "pocketsphinx", "jiwer")
PROGRAMS = {"flite": "new speech data", "espeak-ng": "new speech data"}


def doctor(
    model: Annotated[str | None, typer.Option(metavar="PATH_OR_ID", help="A model's folder or hub id.")] = None,
) -> None:
    """Show versions, devices, memory, programs, and whether the model can be read."""
    import torch

    from dynin import __version__

    _say("dynin", __version__)
    _say("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for package in PACKAGES:
        try:
            _say(package, metadata.version(package))
        except metadata.PackageNotFoundError:
            _say(package, "missing; pip install 'dynin[media,eval]' brings it")
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    _say("devices", ", ".join(["cpu", *names, *(["mps"] if torch.backends.mps.is_available() else [])]))
    _say("threads", f"{torch.get_num_threads()} of {os.cpu_count()} processors")
    _say("memory", _memory())
    for program, purpose in PROGRAMS.items():
        _say(program, shutil.which(program) or f"missing; only {purpose} needs it")
    is_model_fine = _check_model(model)
    raise typer.Exit(0 if is_model_fine else 1)


def _check_model(path: str | None) -> bool:
    """Whether the model can be read, and what it is."""
    from dynin.pipeline.folder import load

    try:
        loaded = load(path)
    except DyninError as error:
        _say("model", f"cannot be used: {error}")
        return False
    count = sum(parameter.numel() for parameter in loaded.model.parameters())
    _say(
        "model",
        f"{count / 1e6:.1f} M parameters, {len(loaded.tasks)} tasks, vocabulary of {loaded.vocabulary.size} ids",
    )
    return True


def _memory() -> str:
    """Memory in gibibytes, where the system tells."""
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return "unknown"
    page = os.sysconf("SC_PAGE_SIZE")
    total = os.sysconf("SC_PHYS_PAGES") * page / 2**30
    free = os.sysconf("SC_AVPHYS_PAGES") * page / 2**30 if "SC_AVPHYS_PAGES" in os.sysconf_names else float("nan")
    return f"{total:.1f} GiB, {free:.1f} GiB free"


def _say(name: str, value: str) -> None:
    typer.echo(f"{name:14} {value}")
