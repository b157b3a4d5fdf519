"""What a VIRST makes of sentences about other videos: `python benchmarks/shuffled_sentences.py`.

Enters: a VIRST (the one that ships) and held-out videos of Emoji World, 12 frames of each. Leaves: a table, J&F where
the target is visible. A model that looks at the sentence falls to the level of another object's true track. Does not
know how masks are found.

    any           each sentence replaced by one of its family about another video (`floors.shuffle_sentences`); some are
                  true of the target all the same, such as "all things that move left"
    other things  the same, drawn among those that can mean nothing of the target by the things that they speak of
    another       the true track of another thing of the video, for the same pairs

The differences have 95% intervals over videos.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dynin.data.emoji_world.referring_claim import FAMILIES, may_mean
from dynin.data.emoji_world.referring_sentence import Sentence
from dynin.data.referring.emoji_world import EmojiReferring
from dynin.data.referring.example import ReferringExample
from dynin.evaluation.segmentation.bootstrap import draws, interval, ratio
from dynin.evaluation.segmentation.floors import AnotherObject, shuffle_sentences
from dynin.evaluation.segmentation.pair import PairScore, score_pair
from dynin.virst.models import EMBEDDED_FOLDER, load
from dynin.virst.panel import Panel
from dynin.virst.segment import SegmentConfig

NUM_FRAMES = 12
TOGETHER = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """What a shuffled sentence and another object's track score."""

    video: str
    family: str
    shuffled: float
    another: float


def of_other_things(source: EmojiReferring, seed: int) -> list[list[ReferringExample]]:
    """The examples of every video, their sentences replaced; those about nothing are left out."""
    films = [source.film(index) for index in range(len(source))]
    said: dict[str, list[tuple[int, Sentence]]] = defaultdict(list)
    for index, film in enumerate(films):
        for sentence in film.sentences:
            said[sentence.family].append((index, sentence))
    generator, videos = np.random.default_rng(seed), []
    for index, film in enumerate(films):
        changed = []
        for example, own in zip(source.examples(index), film.sentences, strict=True):
            names = {film.scene.tracks[thing].name for thing in own.targets}
            fitting = [
                other
                for at, other in said[own.family]
                if at != index and not any(may_mean(other.claim, name) for name in names)
            ]
            if names and fitting:
                changed.append(replace(example, sentence=fitting[int(generator.integers(len(fitting)))].text))
        videos.append(changed)
    return videos


def score(panel: Panel, videos: Sequence[list[ReferringExample]], another: AnotherObject) -> list[Pair]:
    """Every pair that has a target and another object beside it."""
    pairs, asked = [], [examples for examples in videos if examples]
    for start in range(0, len(asked), TOGETHER):
        part = asked[start : start + TOGETHER]
        looked = panel.read(part, panel.watch([examples[0] for examples in part]))
        for example, masks in zip(looked.rows, panel.masks(looked, SegmentConfig()), strict=True):
            if another.has(example):
                made, other = (visible(score_pair(example, iter(each))) for each in (masks, another(example)))
                pairs.append(Pair(video=example.video, family=example.family, shuffled=made, another=other))
    return pairs


def visible(score: PairScore) -> float:
    """J&F in points, of the frames that show something of the target."""
    assert score.region_visible is not None
    assert score.boundary_visible is not None
    return 50 * (score.region_visible + score.boundary_visible)


def tell(name: str, pairs: Sequence[Pair]) -> None:
    """A line for all pairs and for each family."""
    for family in ("all", *FAMILIES):
        chosen = [pair for pair in pairs if family in ("all", pair.family)]
        if not chosen:
            continue
        lead: dict[str, list[float]] = defaultdict(list)
        for pair in chosen:
            lead[pair.video].append(pair.shuffled - pair.another)
        sums, counts = (np.array([of(each) for each in lead.values()], dtype=float) for of in (sum, len))
        found = interval(lambda weights: ratio(weights, sums, counts), draws(len(lead), np.random.default_rng(0)))  # noqa: B023 - used at once
        shuffled, another = (np.mean([getattr(pair, each) for pair in chosen]) for each in ("shuffled", "another"))
        sys.stdout.write(
            f"{name:12} {family:10} n {len(chosen):4} shuffled {shuffled:5.1f} another {another:5.1f} "
            f"difference {found.value:+5.1f} ({found.low:.1f} to {found.high:.1f})\n"
        )
    sys.stdout.flush()


def main() -> None:
    """Both ways to shuffle."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--model", default=str(EMBEDDED_FOLDER))
    parser.add_argument("--videos", type=int, default=80)
    parser.add_argument("--seed", type=int, default=3, help="of the world")
    given = parser.parse_args()
    source = EmojiReferring(given.seed, "held_out", num_videos=given.videos, num_frames=NUM_FRAMES)
    panel, another = Panel(load(given.model)), AnotherObject.of(source, 0, source.thing_masks)
    anyhow = shuffle_sentences(source, 0)
    told = [[each for each in anyhow.examples(index) if each.family != "none"] for index in range(len(source))]
    tell("any", score(panel, told, another))
    tell("other things", score(panel, of_other_things(source, 0), another))


if __name__ == "__main__":
    main()
