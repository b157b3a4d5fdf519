"""`dynin segment`: what a sentence means in a video or picture, as masks.

Enters: flags. Leaves: files, and one line about how they were made. Does not know how masks are found or written.
"""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dynin.errors import RequestError

if TYPE_CHECKING:
    from dynin.media.stream import FrameFile
    from dynin.virst.anchors import AnchorPolicy, Dynamic
    from dynin.virst.outputs import FrameMask

LINE_EVERY_S = 5.0
"""Seconds between two lines of progress where there is no terminal."""


def segment(
    video: Annotated[str, typer.Argument(metavar="FILE", help="A video (MP4, GIF, WebP) or a picture.")],
    sentence: Annotated[str, typer.Argument(help='What to find: "the dog that turns back".')],
    output: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PLACE",
            help="Where to write, as often as wished: .mp4 (mask laid over the video), .json (COCO run lengths), .png "
            "(contact sheet; of a picture, the mask laid over it), a new folder (PNG masks).",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", metavar="MODEL", help="A folder with a VIRST, or a hub id; none for the small one inside."
        ),
    ] = None,
    anchors: Annotated[
        int | None, typer.Option(metavar="N", help="How many frames are prompted; none for the policy's own number.")
    ] = None,
    attended: Annotated[int, typer.Option(metavar="N", help="How many of them a frame looks at.")] = 3,
    policy: Annotated[
        str,
        typer.Option(help="Which frames are prompted: dynamic, two-sided, published, uniform, random, first, text."),
    ] = "dynamic",
    likeness: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="A CLIP that says how like the sentence frames are: for text.")
    ] = None,
    threshold: Annotated[float, typer.Option(help="Probability above which the object counts as visible.")] = 0.5,
    chunk: Annotated[int, typer.Option(metavar="N", help="Frames encoded at a time: faster, for more memory.")] = 8,
    seed: Annotated[int, typer.Option(help="Of frames and anchors that are drawn.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of words.")] = False,
) -> None:
    """Find what a sentence means in a video or picture: one mask for every frame.

    Memory does not grow with the length of the video.
    """
    if not any(letter.isalnum() for letter in sentence):
        received = f"the sentence {sentence.strip()!r} holds no word" if sentence.strip() else "the sentence is empty"
        raise RequestError(f'{received}; say in words what to find, such as "the dog that turns back"')
    if not 0 <= threshold <= 1 or chunk < 1:
        raise RequestError(f"--threshold {threshold} and --chunk {chunk} were given, expected 0 to 1 and at least 1")
    from dynin.media.stream import open_frames
    from dynin.virst import outputs

    source = open_frames(video)
    places = [Path(each) for each in output] if output else [_place(source)]
    if source.path.resolve() in {place.resolve() for place in places}:
        raise RequestError(f"{source.path} is what is segmented and would be written over; name another file to write")
    outputs.check(places)
    if model is None and not sentence.isascii():
        sys.stderr.write("note: the small VIRST that ships was taught English alone; other words mean nothing to it\n")
    chosen = _policy(policy, anchors, likeness)
    import torch

    from dynin.cli import device as devices
    from dynin.virst.models import load
    from dynin.virst.segment import SegmentConfig, Segmenter
    from dynin.virst.tracker import TrackerConfig

    place = devices.resolve(device)
    if place.type == "cpu":  # the segmenter works in two threads, each of which has half of the cores
        torch.set_num_threads(max(1, torch.get_num_threads() // 2))
    loaded = load(model, device=place)
    config = SegmentConfig(
        anchors=chosen, tracker=TrackerConfig(num_attended=attended), threshold=threshold, chunk=chunk
    )
    compare = None
    if likeness is not None:
        from dynin.virst import similarity

        compare = similarity.load(Path(likeness))
    segmenter = Segmenter(loaded, config, likeness=compare, seed=seed)
    about = outputs.About(
        name=source.path.name,
        sentence=sentence,
        num_frames=source.num_frames,
        height=source.height,
        width=source.width,
        rate_hz=source.rate_hz,
    )
    started = time.monotonic()
    shown = 0
    with outputs.writing(places, about) as sink, _bar(source.num_frames) as progress:
        found: FrameMask
        for found in segmenter.segment(source, sentence, progress=progress):
            sink.write(found)
            shown += bool(found.mask.any())
    _tell(source, places, shown, time.monotonic() - started, as_json=as_json)


def _place(source: "FrameFile") -> Path:
    """Where masks go when nobody says."""
    return Path(f"{source.path.stem}-mask.png" if source.is_picture else f"{source.path.stem}-masks.mp4")


def _policy(name: str, num_anchors: int | None, likeness: str | None) -> "AnchorPolicy | Dynamic":
    """Anchors by name; what they lack is told before a model is loaded."""
    from dynin.virst.anchors import Oracle, TextSimilarity, policy_of

    policy = policy_of(name, num_anchors)
    if isinstance(policy, Oracle):
        raise RequestError("oracle anchors need the true masks, which only an evaluation has; choose other anchors")
    if isinstance(policy, TextSimilarity) and likeness is None:
        raise RequestError("--policy text needs --likeness FOLDER, a CLIP that compares frames with the sentence")
    return policy


@contextmanager
def _bar(total: int) -> Iterator[Any]:
    """A bar with the time that is left on a terminal, a line now and then elsewhere; on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if console.is_terminal:
        columns = (TextColumn("frames"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("", total=total)
            yield lambda done, of: progress.update(task, completed=done)
        return
    started = said = time.monotonic()

    def say(done: int, of: int) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said >= LINE_EVERY_S:
            said = now
            console.print(f"{done} of {of} frames, about {(now - started) / done * (of - done):.0f} s left")

    yield say


def _tell(source: "FrameFile", places: list[Path], shown: int, seconds: float, *, as_json: bool) -> None:
    """The files on stdout; how they were made on stderr."""
    if as_json:
        values = {
            "outputs": [str(place) for place in places],
            "num_frames": source.num_frames,
            "num_shown": shown,
            "seconds": round(seconds, 3),
        }
        sys.stdout.write(json.dumps(values, ensure_ascii=False) + "\n")
        return
    from rich.console import Console

    for place in places:
        sys.stdout.write(f"{place}\n")
    found = f"found in {shown} of {source.num_frames} frames" if shown else "found in no frame"
    Console(stderr=True, highlight=False).print(
        f"{found}, {seconds:.1f} s, {source.num_frames / max(seconds, 1e-9):.1f} frames per second", style="dim"
    )
