"""`dynin generate`: one request from the command line.

Enters: flags. Leaves: a file or a text on stdout, and one line about how it was made. Does not know tasks.
"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dynin.cli.place import require_place
from dynin.errors import RequestError
from dynin.media import limits

if TYPE_CHECKING:
    from dynin.pipeline.result import Result
    from dynin.types import Modality


def generate(
    prompt: Annotated[str | None, typer.Argument(help="What to make, a question, or an instruction.")] = None,
    to: Annotated[str | None, typer.Option(help="What to make: text, image, video, speech or image+text.")] = None,
    image: Annotated[str | None, typer.Option(metavar="FILE", help="A picture: PNG, JPEG, WebP.")] = None,
    audio: Annotated[str | None, typer.Option(metavar="FILE", help="A sound: WAV, FLAC, MP3, OGG.")] = None,
    video: Annotated[str | None, typer.Option(metavar="FILE", help="A video: MP4, GIF, WebP.")] = None,
    output: Annotated[
        str | None, typer.Option(metavar="FILE", help="Where to write; the suffix is the format.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same result.")] = 0,
    steps: Annotated[int | None, typer.Option(help="Network calls: per picture or video, per block otherwise.")] = None,
    guidance: Annotated[float | None, typer.Option(help="How strongly the prompt is followed; 0 for plain.")] = None,
    preset: Annotated[
        str | None, typer.Option(help="exact, balanced or fast; none for the quickest that was measured as good.")
    ] = None,
    think: Annotated[
        bool | None, typer.Option("--think/--no-think", help="Whether a text answer to a text shows its reasoning.")
    ] = None,
    redo: Annotated[
        str | None,
        typer.Option(
            metavar="PART",
            help="Make a part again, the rest stays: x,y,w,h in pixels of --image, 1.2s-2.0s of --audio, or "
            "words:3-5@TEXTFILE. PART@FILE names the file to be corrected.",
        ),
    ] = None,
    style: Annotated[str | None, typer.Option(help="Of the voice that speaks; an unknown one lists them.")] = None,
    size: Annotated[
        int | None, typer.Option(metavar="PX", help="Side of pictures that are read and made; none for the model's.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="MODEL", help="A folder, a hub id, or a file MODEL.toml.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16: what the network computes in.")
    ] = None,
    trace: Annotated[str | None, typer.Option(metavar="FILE.gif", help="Write the canvas filling in.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of words.")] = False,
) -> None:
    """Make text, a picture, a video or speech from what is given.

    The task follows from what is given and from --to (or the suffix of --output).
    """
    if image is not None:
        limits.check_file(image)  # before anything that takes seconds to load
    to, place = _target(to, output, redo)
    if trace is not None:
        require_place(Path(trace))
        if Path(trace).suffix.lower() != ".gif":
            raise RequestError(f"{trace} is no GIF; --trace writes FILE.gif")
        if place is not None and place.resolve() == Path(trace).resolve():
            raise RequestError(f"{trace} is named by --output and by --trace; give two names")
    from dynin.cli import device as devices
    from dynin.cli.show import Watcher
    from dynin.pipeline.folder import load
    from dynin.pipeline.request import Request

    request = Request(
        prompt=prompt,
        image=image,
        audio=audio,
        video=video,
        to=to,
        seed=seed,
        steps=steps,
        guidance=guidance,
        preset=preset,
        thinking=think,
        redo=redo,
        style=style,
        size=size,
        trace=trace is not None,
    )
    loaded = load(model, device=devices.resolve(device), dtype=dtype)
    with Watcher(f"making {to or 'an answer'}") as watcher:
        result = loaded.run(request, watcher)
    written = _write(result, place)
    if trace is not None:
        from dynin.cli.filmstrip import write_gif

        write_gif(Path(trace), result, loaded.tokenizers)
    if as_json:
        _print_json(result, written)
    else:
        _print(result, written)


def _target(to: str | None, output: str | None, redo: str | None) -> tuple[str | None, Path | None]:
    """What to make and where, before anything slow: from --to, --redo or the output's suffix, all in agreement.

    Raises:
        RequestError: If they contradict each other, or the folder of the output is missing.
    """
    from dynin.pipeline.redo import parse_redo
    from dynin.pipeline.result import SUFFIXES, require_suffix
    from dynin.pipeline.route import wanted

    if redo is not None and to is None:
        to = str(parse_redo(redo).modality)
    place = None if output is None else Path(output)
    if place is None:
        return to, None
    require_place(place)
    if to is None:
        to = next((str(modality) for modality, suffixes in SUFFIXES.items() if place.suffix.lower() in suffixes), None)
    if to is None:
        known = " ".join(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
        raise RequestError(f"{place} has no suffix that says what to make; choose one of {known}")
    require_suffix(place, wanted(to)[0])
    return to, place


def _write(result: "Result", place: Path | None) -> Path | None:
    """The file written: where the user said, or under a speaking name; none for text that nobody wants in a file."""
    from dynin.pipeline.result import SUFFIXES

    modality: Modality = result.modality
    if place is None and modality == "text":
        return None
    return result.save(place or Path(f"dynin-{result.task}-seed{result.seed}{SUFFIXES[modality][0]}"))


def _print_json(result: "Result", written: Path | None) -> None:
    values = {
        "task": result.task,
        "text": result.text,
        "thinking": result.thinking,
        "output": None if written is None else str(written),
        "seed": result.seed,
        "finish_reason": result.finish_reason,
        "num_forwards": result.num_forwards,
        "num_tokens": result.num_tokens,
        "num_columns": result.num_columns,
        "seconds": round(result.seconds, 3),
    }
    sys.stdout.write(json.dumps(values, ensure_ascii=False) + "\n")


def _print(result: "Result", written: Path | None) -> None:
    """The answer on stdout; how it was made on stderr."""
    from rich.console import Console

    notes = Console(stderr=True, highlight=False)
    if result.thinking:
        notes.print(f"thinking: {result.thinking}", style="dim", markup=False)
    if result.text is not None:
        sys.stdout.write(result.text + "\n")
    if written is not None:
        sys.stdout.write(f"{written}\n")
    cut = ", cut at its limit" if result.finish_reason == "length" else ""
    rate = result.num_tokens / max(1, result.num_forwards)
    line = (
        f"{result.task}, seed {result.seed}, {result.num_forwards} forward passes of {rate:.1f} tokens, "
        f"{result.seconds:.1f} s{cut}"
    )
    notes.print(line, style="dim", markup=False)
