"""`dynin data`: what the training data look like, as files; and spoken sentences as codes.

Enters: flags. Leaves: a folder of pictures, videos, sounds and `captions.jsonl`, or a shard of codes
(speech_shard.py). Does not know models.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer

from dynin.cli.speech_shard import write_shard
from dynin.config import suggest
from dynin.errors import RequestError

SOURCES = ("emoji-world", "speech")
SPLITS = ("train", "held_out")
Split = Literal["train", "held_out"]
MOST_EXAMPLES = 100_000
COUNTS = {"emoji-world": 5, "speech": 10_000}
"""How many examples where it is not said."""
DEFAULT_CODEC = Path("runs/codecs/speech")
PLACES = {"emoji-world": Path("examples"), "speech": Path("runs/speech/codes_train.npz")}


def data(
    source: Annotated[str, typer.Argument(help="Which data: emoji-world or speech.")],
    task: Annotated[
        str | None, typer.Option(help="emoji-world: a row of the task table, such as v2t; t2i if left out.")
    ] = None,
    count: Annotated[int | None, typer.Option(help="How many examples or sentences; 5 or 10000 if left out.")] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="PATH", help="emoji-world: a folder; speech: a shard, NAME.npz.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same examples.")] = 0,
    split: Annotated[str, typer.Option(help="train or held_out.")] = "train",
    codec: Annotated[
        Path | None, typer.Option(metavar="DIR", help="speech: a tokenizer or a model; runs/codecs/speech if left out.")
    ] = None,
) -> None:
    """Write examples of a task (media files and captions.jsonl), or spoken sentences as codes for training."""
    for what, value, known in (("data source", source, SOURCES), ("split", split, SPLITS)):
        if value not in known:
            raise RequestError(f"unknown {what} {value!r}{suggest(value, known)}")
    count = COUNTS[source] if count is None else count
    if not 1 <= count <= MOST_EXAMPLES:
        raise RequestError(f"count is {count}; give a number from 1 to {MOST_EXAMPLES}")
    if seed < 0:
        raise RequestError(f"seed is {seed}; give 0 or more")
    output = output or PLACES[source]
    known_split: Split = "train" if split == "train" else "held_out"
    if source == "speech":
        if task is not None:
            raise RequestError("--task belongs to emoji-world; the sentences of a shard serve all tasks with speech")
        write_shard(output, codec=codec or DEFAULT_CODEC, count=count, seed=seed, split=known_split)
        return
    if codec is not None:
        raise RequestError("--codec belongs to speech; examples of emoji-world are files, not codes")
    _write_examples(task or "t2i", output, count=count, seed=seed, split=known_split)


def _write_examples(task: str, output: Path, *, count: int, seed: int, split: Split) -> None:
    """Media files and one line of captions.jsonl for each example."""
    from dynin.data.emoji_world import voice
    from dynin.data.emoji_world.world import TASKS, EmojiWorld
    from dynin.media.files import replace_whole

    if task not in TASKS:
        raise RequestError(f"unknown task {task!r}{suggest(task, TASKS)}")
    if output.exists() and not output.is_dir():
        raise RequestError(f"{output} is a file; give a folder")
    world = EmojiWorld(seed, split=split, speak=voice.speak)
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
