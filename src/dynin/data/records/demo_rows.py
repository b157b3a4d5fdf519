"""Emoji World written as own data would be: twenty rows of each task with real files, in the schema.

Enters: a folder, how many rows, a seed. Leaves: `rows.jsonl` and a folder of media. Does not know tokenizers or models.
Pictures are PNG, videos WebP, sounds FLAC, none of which loses a level; a WebP keeps equal neighbours as one frame that
is shown longer.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from dynin.data.emoji_world import voice
from dynin.data.emoji_world.problem import NO_THINK, THINK
from dynin.data.emoji_world.world import TASKS, EmojiWorld
from dynin.data.example import Example
from dynin.errors import DataError, RequestError
from dynin.media import audio, image, video
from dynin.media.audio import Audio
from dynin.media.files import replace_whole
from dynin.media.video import Video
from dynin.types import Modality

ROWS, MEDIA = "rows.jsonl", "media"


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """What was written."""

    path: Path
    """The file of rows."""
    tasks: Mapping[str, int]
    left_out: tuple[str, ...]
    """Tasks that need a voice, where there is none."""
    reason: str = ""


def write_demo(folder: Path, *, count: int, seed: int = 0) -> Written:
    """Write `count` rows of each task.

    Raises:
        DataError: If the folder has something in it already.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} is not empty; name a new folder")
    reason = _without_voice()
    tasks = tuple(task for task in TASKS if not reason or "s" not in task)
    try:
        (folder / MEDIA).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made ({error.strerror}); choose another folder") from error
    world = EmojiWorld(seed, speak=voice.speak)
    lines = []
    for task in tasks:
        for index in range(count):
            row = _row(world.example(task, index), f"{task}-{index:04d}", folder)
            lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    with replace_whole(folder / ROWS) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")
    return Written(
        path=folder / ROWS,
        tasks=dict.fromkeys(tasks, count),
        left_out=tuple(task for task in TASKS if task not in tasks),
        reason=reason,
    )


def _without_voice() -> str:
    """Why nothing can be said aloud, if so."""
    try:
        voice.find_program(voice.VOICES[voice.VOICE_TARGET])
    except RequestError as error:
        return str(error)
    return ""


def _row(example: Example, name: str, folder: Path) -> dict[str, object]:
    """An example as a row, its media written."""
    given = [_part(modality, value, f"{name}-given", folder) for modality, value in example.condition.items()]
    made = [_part(modality, value, f"{name}-made", folder) for modality, value in example.target.items()]
    messages = [{"role": "user", "content": given}, {"role": "assistant", "content": made}]
    return {"id": name, "task": example.task, "messages": messages}


def _part(modality: Modality, value: object, name: str, folder: Path) -> dict[str, str]:
    """One typed part; the switch for reasoning is left to the answer, which shows it or does not."""
    match value:
        case str():
            return {"type": "text", "text": value.removesuffix(THINK).removesuffix(NO_THINK)}
        case Audio():
            path, kind = f"{MEDIA}/{name}.flac", "audio"
            audio.write(folder / path, value)
        case Video():
            path, kind = f"{MEDIA}/{name}.webp", "video"
            video.write(folder / path, value)
        case Tensor():
            path, kind = f"{MEDIA}/{name}.png", "image"
            image.write(folder / path, value)
        case _:
            raise TypeError(f"{type(value).__name__} as {modality}")
    return {"type": kind, "path": path}
