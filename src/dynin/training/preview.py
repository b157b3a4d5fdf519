"""What a model makes while it is still learning: the same few requests, written as files.

Enters: a model and a step. Leaves: pictures, sentences and sounds in a folder of that step. Does not know losses. What
cannot be made yet (a sentence without an end, say) is noted, never hidden, and stops nothing.
"""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from dynin.data.emoji_world.world import EmojiWorld
from dynin.errors import DyninError
from dynin.pipeline.dynin import Dynin
from dynin.pipeline.request import Request
from dynin.types import Modality

SHOWN = ("t2i", "i2i", "t2v", "i2t", "v2t", "t2t", "t2s")
"""Tasks that are shown, where a run learns them."""
SUFFIXES = {Modality.IMAGE: ".png", Modality.VIDEO: ".webp", Modality.SPEECH: ".wav"}
PLACE = 0
"""Index of the example of each task, among held-out ones."""


def make(model: Dynin, tasks: Collection[str], folder: Path, step: int) -> Path:
    """Write what the model makes of one held-out example of each task; returns the step's folder."""
    place = folder / f"step-{step:08d}"
    place.mkdir(parents=True, exist_ok=True)
    world = EmojiWorld(0, "held_out")
    told: dict[str, Any] = {}
    with torch.no_grad():
        for task in SHOWN:
            if task in tasks:
                told[task] = _one(model, world, task, place)
    (place / "made.json").write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return place


def _one(model: Dynin, world: EmojiWorld, task: str, place: Path) -> dict[str, object]:
    """One request and where its outcome lies."""
    example = world.example(task, PLACE) if not task.endswith("s") else world.sentence(task, PLACE)
    (made,) = example.target
    given = {str(modality): value for modality, value in example.condition.items() if isinstance(value, str)}
    try:
        result = model.run(Request.to_fulfil(example.condition, str(made)))
        if result.text is not None:
            return {**given, "made": result.text}
        path = place / f"{task}{SUFFIXES[made]}"
        result.save(path)
    except DyninError as error:
        return {**given, "failed": str(error)}
    return {**given, "made": path.name}
