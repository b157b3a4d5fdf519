"""`dynin data`: what the training data look like as files, spoken sentences as codes, and one's own data.

Enters: flags. Leaves: a folder of pictures, videos, sounds and `captions.jsonl`, or a shard of codes
(speech_shard.py); what concerns one's own rows is in own_data.py. Does not know models.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer

from dynin.cli.own_data import check, make_demo, pretokenize
from dynin.cli.speech_shard import write_shard
from dynin.config import suggest
from dynin.errors import RequestError

SPLITS = ("train", "held_out")
Split = Literal["train", "held_out"]
REFERRING = {"referring": 24, "referring-still": 1}
"""Frames of what sentences refer to."""
REFERRING_SIDE_PX = 96
MOST_EXAMPLES = 100_000
DEFAULT_CODEC = Path("runs/codecs/speech")

data = typer.Typer(
    help="Training data: one's own, checked and turned into codes; Emoji World as files; spoken sentences.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@data.command("emoji-world")
def emoji_world(
    task: Annotated[
        str, typer.Option(help="A row of the task table, such as v2t; or referring, referring-still.")
    ] = "t2i",
    count: Annotated[int, typer.Option(help="How many examples.")] = 5,
    output: Annotated[Path, typer.Option(metavar="DIR", help="The folder.")] = Path("examples"),
    seed: Annotated[int, typer.Option(help="Same seed, same examples.")] = 0,
    split: Annotated[str, typer.Option(help="train or held_out.")] = "train",
) -> None:
    """Write examples of a task: media files and captions.jsonl; of what sentences refer to: sheets with outlines."""
    if task in REFERRING:
        _write_referring(task, output, count=count, seed=seed, split=_known(split, count, seed))
    else:
        _write_examples(task, output, count=count, seed=seed, split=_known(split, count, seed))


@data.command()
def speech(
    count: Annotated[int, typer.Option(help="How many sentences.")] = 10_000,
    output: Annotated[Path, typer.Option(metavar="NAME.npz", help="The shard.")] = Path("runs/speech/codes_train.npz"),
    seed: Annotated[int, typer.Option(help="Same seed, same sentences.")] = 0,
    split: Annotated[str, typer.Option(help="train or held_out.")] = "train",
    codec: Annotated[Path, typer.Option(metavar="DIR", help="A speech tokenizer or a model.")] = DEFAULT_CODEC,
    is_long: Annotated[bool, typer.Option("--long", help="Several sentences said as one.")] = False,
) -> None:
    """Write spoken sentences of Emoji World as codes for training."""
    write_shard(output, codec=codec, count=count, seed=seed, split=_known(split, count, seed), is_long=is_long)


data.command()(check)
data.command()(pretokenize)
data.command("make-demo")(make_demo)


def _known(split: str, count: int, seed: int) -> Split:
    """The split, once all three are within their limits."""
    if split not in SPLITS:
        raise RequestError(f"unknown split {split!r}{suggest(split, SPLITS)}")
    if not 1 <= count <= MOST_EXAMPLES:
        raise RequestError(f"count is {count}; give a number from 1 to {MOST_EXAMPLES}")
    if seed < 0:
        raise RequestError(f"seed is {seed}; give 0 or more")
    return "train" if split == "train" else "held_out"


def _write_examples(task: str, output: Path, *, count: int, seed: int, split: Split) -> None:
    """Media files and one line of captions.jsonl for each example."""
    from dynin.data.emoji_world import voice
    from dynin.data.emoji_world.world import TASKS, EmojiWorld
    from dynin.media.files import replace_whole

    if task not in TASKS:
        raise RequestError(f"unknown task {task!r}{suggest(task, (*TASKS, *REFERRING))}")
    _refuse_file(output)
    world = EmojiWorld(seed, split=split, speak=voice.speak)
    first = world.example(task, 0)
    _make_folder(output)
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


def _write_referring(task: str, output: Path, *, count: int, seed: int, split: Split) -> None:
    """Sheets and animations of videos or stills, one for each sentence."""
    from dynin.cli.referring_sheet import write_sheets
    from dynin.data.referring.emoji_world import EmojiReferring
    from dynin.data.referring.source import walk

    _refuse_file(output)
    _make_folder(output)
    source = EmojiReferring(seed, split, num_videos=count, num_frames=REFERRING[task], side_px=REFERRING_SIDE_PX)
    num_sentences = write_sheets(walk(source), output)
    typer.echo(f"{num_sentences} sentences about {count} examples of {task} ({split}, seed {seed}) in {output}")


def _refuse_file(output: Path) -> None:
    if output.exists() and not output.is_dir():
        raise RequestError(f"{output} is a file; give a folder")


def _make_folder(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"{output}: cannot be made ({error.strerror}); choose another folder") from error


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
