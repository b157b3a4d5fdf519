"""The gallery's part about sentences and masks: what the small VIRST finds in a held-out video.

Enters: the gallery's folder of media. Leaves: files in it, lines on the terminal, cards. Does not know how the page
looks, or how masks are found.

The video is the first of its world and the sentences are the first of their families, whatever comes of them.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import typer

from dynin.cli.page import Card, Figure
from dynin.data.referring.emoji_world import EmojiReferring
from dynin.data.referring.example import ReferringExample
from dynin.errors import ConfigError, RequestError
from dynin.media.stream import writing_mp4

if TYPE_CHECKING:
    from dynin.virst.segment import Segmenter

WORLD_SEED, NUM_FRAMES = 7, 24
FAMILIES = ("static", "motion", "none")
TASK = "segment"


def referring_cards(media: Path) -> list[Card]:
    """A card for each sentence; none, and a line that says why, where a package is missing."""
    from dynin.virst.models import load
    from dynin.virst.segment import Segmenter

    try:
        segmenter = Segmenter(load())
    except (ConfigError, RequestError) as error:
        typer.echo(f"{TASK}: left out; {error}")
        return []
    examples = EmojiReferring(WORLD_SEED, "held_out", num_frames=NUM_FRAMES).examples(0)
    chosen = [next(each for each in examples if each.family == family) for family in FAMILIES]
    given = f"{TASK}-given.mp4"
    with writing_mp4(media / given, chosen[0].height, chosen[0].width, chosen[0].rate_hz or 1.0) as writer:
        for index in range(len(chosen[0])):
            writer.write(chosen[0].read_frame(index), index / (chosen[0].rate_hz or 1.0))
    return [_card(segmenter, media, example, given) for example in chosen]


def _card(segmenter: "Segmenter", media: Path, example: ReferringExample, given: str) -> Card:
    """Masks of one sentence as an overlay and a contact sheet, and how right they are."""
    from dynin.virst import outputs
    from dynin.virst.segment import ExampleVideo

    video = ExampleVideo(example)
    about = outputs.About(
        name=example.video,
        sentence=example.sentence,
        num_frames=len(example),
        height=example.height,
        width=example.width,
        rate_hz=example.rate_hz or 1.0,
    )
    stem = f"{TASK}-{example.family}"
    started, ious, shown = time.monotonic(), [], 0
    with outputs.writing([media / f"{stem}.mp4", media / f"{stem}.png"], about) as sink:
        for found in segmenter.segment(video, example.sentence):
            sink.write(found)
            shown += bool(found.mask.any())
            truth = example.read_mask(found.index) if example.read_mask is not None else np.zeros_like(found.mask)
            if truth.any():
                ious.append(float((truth & found.mask).sum() / (truth | found.mask).sum()))
    seconds = time.monotonic() - started
    told = f"marked in {shown} of {len(example)} frames"
    right = f"mean IoU with the true mask {np.mean(ious):.2f}" if ious else "there is no such thing in the video"
    typer.echo(f"{TASK:12} {seconds:5.1f} s  {example.sentence}: {told}; {right}")
    return Card(
        task=TASK,
        given=(Figure(kind="text", text=example.sentence), Figure(kind="video", file=f"media/{given}")),
        made=(Figure(kind="video", file=f"media/{stem}.mp4"),),
        strip=(Figure(kind="strip", file=f"media/{stem}.png"),),
        expected=None if ious else "no mask in any frame",
        facts=(f"{seconds:.1f} s", told, right),
        strip_title="some of its frames",
    )
