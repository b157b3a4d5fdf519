"""`dynin data`: what the training data look like, as files.

Enters: flags. Leaves: a folder of pictures, videos, sounds and `captions.jsonl`. Does not know models.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from dynin.config import suggest
from dynin.errors import RequestError

SOURCES = ("emoji-world",)
SPLITS = ("train", "held_out")
MOST_EXAMPLES = 100_000


def data(
    source: Annotated[str, typer.Argument(help="Which data: emoji-world.")],
    task: Annotated[str, typer.Option(help="A row of the task table, such as t2i or v2t.")] = "t2i",
    count: Annotated[int, typer.Option(help="How many examples.")] = 5,
    output: Annotated[Path, typer.Option(metavar="DIR", help="The folder; made if it is missing.")] = Path("examples"),
    seed: Annotated[int, typer.Option(help="Same seed, same examples.")] = 0,
    split: Annotated[str, typer.Option(help="train or held_out.")] = "train",
) -> None:
    """Write examples of a task: media files, and one line of captions.jsonl for each."""
    for what, value, known in (("data source", source, SOURCES), ("split", split, SPLITS)):
        if value not in known:
            raise RequestError(f"unknown {what} {value!r}{suggest(value, known)}")
    if not 1 <= count <= MOST_EXAMPLES:
        raise RequestError(f"count is {count}; give a number from 1 to {MOST_EXAMPLES}")
    from dynin.data.emoji_world import voice
    from dynin.data.emoji_world.world import TASKS, EmojiWorld
    from dynin.media.files import replace_whole

    if task not in TASKS:
        raise RequestError(f"unknown task {task!r}{suggest(task, TASKS)}")
    if output.exists() and not output.is_dir():
        raise RequestError(f"{output} is a file; give a folder")
    world = EmojiWorld(seed, split="train" if split == "train" else "held_out", speak=voice.speak)
    first = world.example(task, 0)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"{output}: cannot be made ({error.strerror}); choose another folder") from error
    lines = []
    for index in range(count):
        example = first if index == 0 else world.example(task, index)
        stem = f"{task}-{index:05d}"
        line = {
            "task": task,
            "index": index,
            "condition": _written(example.condition, output, f"{stem}-given"),
            "target": _written(example.target, output, f"{stem}-target"),
        }
        lines.append(json.dumps(line) + "\n")
    with replace_whole(output / "captions.jsonl") as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")
    typer.echo(f"{count} examples of {task} ({split}, seed {seed}) in {output}")


def _written(values: Mapping, folder: Path, stem: str) -> dict[str, str]:
    """Text as it is; media as the names of the files they were written to."""
    from torch import Tensor

    from dynin.media import audio, image, video
    from dynin.media.audio import Audio
    from dynin.media.video import Video

    entries: dict[str, str] = {}
    for modality, value in values.items():
        name = f"{stem}-{modality}"
        match value:
            case str():
                entries[str(modality)] = value
            case Audio():
                audio.write(folder / f"{name}.wav", value)
                entries[str(modality)] = f"{name}.wav"
            case Video():
                video.write(folder / f"{name}.gif", value)
                entries[str(modality)] = f"{name}.gif"
            case Tensor():
                image.write(folder / f"{name}.png", value)
                entries[str(modality)] = f"{name}.png"
    return entries
