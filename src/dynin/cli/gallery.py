"""The demo's run: every case on a model, its media as files, a page that shows them, a table.

Enters: a model and a folder. Leaves: `index.html` and `media/` in the folder, lines on the terminal. Does not know how
the page looks (`page.py`) or which cases there are (`cases.py`).
"""

import time
from dataclasses import dataclass
from pathlib import Path

import typer
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

from dynin.cli import filmstrip
from dynin.cli.cases import Case, cases
from dynin.cli.gallery_referring import referring_cards
from dynin.cli.hero import write_hero
from dynin.cli.page import Card, Figure, write_page
from dynin.cli.show import Watcher
from dynin.errors import RequestError
from dynin.media import audio as sounds
from dynin.media import files
from dynin.media import image as pictures
from dynin.media import video as videos
from dynin.media.audio import Audio
from dynin.media.video import Video
from dynin.pipeline.dynin import Dynin
from dynin.pipeline.request import Request
from dynin.pipeline.result import Result
from dynin.types import Modality

SHOWN_PX = 256
STRIP_STEPS = 6
STRIP_CELL_PX = 24


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """A case and what came of it."""

    case: Case
    result: Result


def make_gallery(model: Dynin, folder: Path, *, seed: int, hero: Path | None) -> None:
    """Run every case, show a table, write the page; raises RequestError if the folder cannot be made."""
    todo = list(cases({name: task.targets for name, task in model.tasks.items()}))
    requests = [
        Request.to_fulfil(case.given, "+".join(case.target), seed=seed, trace=True) for case in todo
    ]  # made first: a wrong wish leaves no folder
    media = folder / "media"
    try:
        media.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"{media}: cannot be made ({error.strerror}); choose another folder") from error
    started = time.monotonic()
    done: list[Done] = []
    for number, (case, request) in enumerate(zip(todo, requests, strict=True), start=1):
        title = f"{number}/{len(todo)} {case.task}"
        with Watcher(title) as watcher:
            result = model.run(request, watcher)
        done.append(Done(case=case, result=result))
        typer.echo(f"{title:12} {result.seconds:5.1f} s  {_made(result)}")
    cards = [_card(model, media, number, one) for number, one in enumerate(done)]
    cards += referring_cards(media)
    seconds = time.monotonic() - started
    num_forwards = sum(one.result.num_forwards for one in done)
    write_page(folder / "index.html", cards, f"{len(done)} requests, {num_forwards} forward passes, {seconds:.0f} s")
    Console().print(_table(done))
    typer.echo(f"gallery: {folder / 'index.html'}")
    if hero is not None:
        write_hero(hero, [(one.case, one.result) for one in done], model.tokenizers)
        typer.echo(f"picture: {hero}")


def _table(done: list[Done]) -> Table:
    table = Table(title="What came out")
    for name in ("task", "what went in", "what came out", "end"):
        table.add_column(name, overflow="fold")
    for name in ("seconds", "passes"):
        table.add_column(name, justify="right")
    for one in done:
        result = one.result
        row = (result.task, _given(one.case), _made(result), result.finish_reason)
        table.add_row(*map(_plain, row), f"{result.seconds:.1f}", str(result.num_forwards))
    return table


def _plain(text: str) -> str:
    """Text that rich takes literally."""
    return text.replace("[", "\\[")


def _given(case: Case) -> str:
    parts = [f'"{value}"' if isinstance(value, str) else str(modality) for modality, value in case.given.items()]
    spoken = f' "{case.spoken}"' if case.spoken else ""
    return ", ".join(parts) + spoken


def _made(result: Result) -> str:
    """A result in a few words."""
    parts = []
    if result.image is not None:
        parts.append(f"picture {result.image.width} x {result.image.height} px")
    if result.video is not None:
        parts.append(f"video of {len(result.video.frames)} frames")
    if result.audio is not None:
        parts.append(f"{result.audio.duration_s:.1f} s of speech")
    if result.text is not None:
        thinking = f"({result.thinking}) " if result.thinking else ""
        parts.append(thinking + (result.text or "(nothing)"))
    return ", ".join(parts)


def _card(model: Dynin, media: Path, number: int, one: Done) -> Card:
    """The media of one case as files, and the card that shows them."""
    case, result = one.case, one.result
    stem = f"{number:02d}-{result.task}"
    given = [_figure(media, f"{stem}-given-{modality}", value) for modality, value in case.given.items()]
    if case.spoken:
        given.append(Figure(kind="note", text=f'"{case.spoken}"'))
    made = [_figure(media, f"{stem}-made-{kind}", value) for kind, value in _values(result).items()]
    if result.thinking:
        made.insert(0, Figure(kind="thinking", text=result.thinking))
    expected = [value for value in case.expected.values() if isinstance(value, str)]
    return Card(
        task=result.task,
        given=tuple(given),
        made=tuple(made),
        strip=_strip(model, media, stem, result),
        expected=expected[0] if expected else None,
        facts=(
            f"{result.seconds:.1f} s",
            f"{result.num_forwards} forward passes",
            "cut at its limit" if result.finish_reason == "length" else "ended by itself",
        ),
    )


def _values(result: Result) -> dict[str, object]:
    values = {"image": result.image, "video": result.video, "speech": result.audio, "text": result.text}
    return {kind: value for kind, value in values.items() if value is not None}


def _figure(media: Path, stem: str, value: object) -> Figure:
    """A value as a file of the page, or as words."""
    match value:
        case str():
            return Figure(kind="text", text=value or "(nothing)")
        case Audio() if value.samples.numel() == 0:
            return Figure(kind="note", text="(no sound)")
        case Audio():
            sounds.write(media / f"{stem}.wav", value)
            return Figure(kind="audio", file=f"media/{stem}.wav")
        case Video():
            return Figure(kind="video", file=_playable(media, stem, value))
        case Tensor():
            return _figure(media, stem, pictures.to_pil(value))
        case Image.Image():
            shown = value.resize((SHOWN_PX, SHOWN_PX), Image.Resampling.LANCZOS)
            return Figure(kind="image", file=_saved(media / f"{stem}.png", shown))
        case _:
            raise TypeError(f"cannot show a {type(value).__name__}")


def _playable(media: Path, stem: str, video: Video) -> str:
    """An MP4, played three times over, since players show one second badly."""
    frames = video.frames.repeat(3, 1, 1, 1)
    videos.write(media / f"{stem}.mp4", Video(frames=frames, rate_hz=video.rate_hz))
    return f"media/{stem}.mp4"


def _saved(path: Path, picture: Image.Image) -> str:
    with files.replace_whole(path) as temporary:
        picture.save(temporary, format="PNG")
    return f"media/{path.name}"


def _strip(model: Dynin, media: Path, stem: str, result: Result) -> tuple[Figure, ...]:
    """How the canvases filled in: one strip of small pictures, or lines of words."""
    figures = []
    for modality in Modality:
        steps = [snapshot for snapshot in result.trace or () if snapshot.modality == modality]
        if not steps:
            continue
        chosen = filmstrip.choose(steps, STRIP_STEPS)
        if modality == Modality.TEXT:
            figures.append(Figure(kind="lines", text="\n".join(snapshot.text or "" for snapshot in chosen)))
            continue
        cell_px = 2 * STRIP_CELL_PX if modality == Modality.VIDEO else STRIP_CELL_PX
        parts = [filmstrip.draw(snapshot, result, model.tokenizers, cell_px) for snapshot in chosen]
        is_tall = modality != Modality.IMAGE
        picture = filmstrip.below(parts, 8) if is_tall else filmstrip.beside(parts, 12)
        name = f"{stem}-strip-{modality}.png"
        figures.append(Figure(kind="strip", file=_saved(media / name, picture)))
    return tuple(figures)
