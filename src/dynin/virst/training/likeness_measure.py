"""What an image-text model is worth for anchors, on videos that it did not learn from.

Enters: a callable that compares frames with a sentence, a source. Leaves: figures. Does not know networks.

| figure | what it is | by chance |
| --- | --- | --- |
| ranked | how often the frame with most of the target is more like the sentence than one with nothing of it | 0.5 |
| chosen | of the three candidates most like the sentence, the share that shows the target | `candidates` |
| candidates | of all candidates, the share that shows the target | |
| found | how often the frame most like a sentence, out of 50 of other videos, is its own | 0.02 |
| found_of_5 | how often its own is one of the five most like it | 0.1 |

`ranked`, `chosen` and `candidates` are means over sentences whose target is visible in some candidates alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from dynin.data.referring.source import ReferringSource
from dynin.errors import DataError
from dynin.media.image import from_levels
from dynin.virst.anchors import spread
from dynin.virst.training.likeness_source import Shown, Told, shown_of

CANDIDATES = 12
"""Frames of a video that could be anchors, evenly spread."""
CHOSEN = 3
GALLERY = 50
Compare = Callable[[Sequence[Tensor], str], tuple[float, ...]]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Card:
    """A frame with its sentence, for retrieval."""

    frame: UInt8[np.ndarray, "Y X 3"]
    names: frozenset[str]
    """Of what is visible in it."""
    told: Told


def measure(compare: Compare, source: ReferringSource, num_videos: int, *, least_px: int = 16) -> dict[str, float]:
    """Figures over the first videos of a source, and over those of each family of sentences; counts beside them.

    Raises:
        DataError: If nothing can be measured: no sentence is about something that is visible at times.
    """
    rows: list[tuple[str, float, float, float]] = []
    cards: list[_Card] = []
    for index in range(min(num_videos, len(source))):
        shown = shown_of(source, index)
        rng = np.random.default_rng(index)
        frames = spread(shown.num_frames, CANDIDATES) if shown.num_frames else []
        pictures = [shown.read_frame(frame) for frame in frames]
        visible = [shown.areas(frame) for frame in frames]
        for family, told in zip(shown.families, shown.told, strict=True):
            areas = np.array([sum(area[thing] for thing in told.things) for area in visible])
            if (areas > 0).any() and (areas == 0).any():
                rows.append((family, *_row(compare, pictures, told, areas, rng)))
        cards += _cards(shown, frames, pictures, least_px, rng)
    if not rows:
        raise DataError(f"no sentence of {num_videos} videos is about something that is visible at times; give more")
    families = sorted({row[0] for row in rows})
    figures = {"sentences": float(len(rows)), **_means([row[1:] for row in rows])}
    for family in families:
        figures |= {
            f"{family}_{name}": value for name, value in _means([r[1:] for r in rows if r[0] == family]).items()
        }
    return figures | _retrieval(compare, cards)


def _row(
    compare: Compare,
    pictures: Sequence[UInt8[np.ndarray, "Y X 3"]],
    told: Told,
    areas: np.ndarray,
    rng: np.random.Generator,
) -> tuple[float, float, float]:
    """Whether the right one of two is ranked first, which share of the chosen shows the target, and of all."""
    likeness = np.array(compare([from_levels(picture) for picture in pictures], told.text))
    with_target, without = int(areas.argmax()), int(rng.choice(np.flatnonzero(areas == 0)))
    ahead = likeness[with_target] - likeness[without]
    best = np.argsort(-likeness, kind="stable")[:CHOSEN]
    return float(ahead > 0) + 0.5 * float(ahead == 0), float((areas[best] > 0).mean()), float((areas > 0).mean())


def _means(rows: Sequence[tuple[float, float, float]]) -> dict[str, float]:
    return dict(zip(("ranked", "chosen", "candidates"), np.mean(rows, axis=0).tolist(), strict=True))


def _cards(
    shown: Shown, frames: Sequence[int], pictures: Sequence[np.ndarray], least_px: int, rng: np.random.Generator
) -> list[_Card]:
    """At most one card of a video: a frame that is drawn, and a drawn sentence that is true of it."""
    if not frames:
        return []
    at = int(rng.integers(len(frames)))
    clear = shown.visible(frames[at], least_px)
    fitting = [told for told in shown.told if told.things & clear]
    if not fitting:
        return []
    names = frozenset(shown.names[thing] for thing in shown.visible(frames[at]))
    return [_Card(frame=pictures[at], names=names, told=fitting[int(rng.integers(len(fitting)))])]


def _retrieval(compare: Compare, cards: Sequence[_Card]) -> dict[str, float]:
    """Galleries of frames none of which the sentence of another is true of; nothing where there are too few."""
    galleries: list[list[_Card]] = []
    open_: list[_Card] = []
    for card in cards:
        if all(not card.told.names <= each.names and not each.told.names <= card.names for each in open_):
            open_.append(card)
        if len(open_) == GALLERY:
            galleries.append(open_)
            open_ = []
    if not galleries:
        return {}
    places = [place for gallery in galleries for place in _places(compare, gallery)]
    return {
        "galleries": float(len(galleries)),
        "found": float(np.mean([place == 0 for place in places])),
        "found_of_5": float(np.mean([place < 5 for place in places])),
    }


def _places(compare: Compare, gallery: Sequence[_Card]) -> list[int]:
    """At which place each sentence finds its own frame."""
    frames = [from_levels(card.frame) for card in gallery]
    likeness: Float[np.ndarray, "S F"] = np.array([compare(frames, card.told.text) for card in gallery])
    return [int((row > row[at]).sum()) for at, row in enumerate(likeness)]
