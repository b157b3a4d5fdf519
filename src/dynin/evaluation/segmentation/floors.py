"""What scores are worth: predictions that know nothing of the sentence, and questions that cannot be answered.

Enters: examples. Leaves: masks of a floor, or examples changed so that a model which reads them should fail. Does not
know models.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
from jaxtyping import Bool

from dynin.data.referring.example import ReferringExample
from dynin.data.referring.source import ReferringSource, walk
from dynin.errors import DataError
from dynin.evaluation.segmentation.pair import told_pair

Picture = TypeVar("Picture")
Masks = Iterable[Bool[np.ndarray, "Y X"]]
Predict = Callable[[ReferringExample], Masks]
"""From an example to a mask for every frame, in time order."""


def all_empty(example: ReferringExample) -> Iterator[Bool[np.ndarray, "Y X"]]:
    """Nothing, in every frame."""
    return (np.zeros((example.height, example.width), dtype=bool) for _ in range(len(example)))


def all_foreground(example: ReferringExample) -> Iterator[Bool[np.ndarray, "Y X"]]:
    """Everything, in every frame."""
    return (np.ones((example.height, example.width), dtype=bool) for _ in range(len(example)))


def truth(example: ReferringExample) -> Iterator[Bool[np.ndarray, "Y X"]]:
    """The true masks, the ceiling of every score; DataError where they are not public."""
    if example.read_mask is None:
        raise DataError(f"{told_pair(example)}: its masks are not public; choose another split")
    read_mask = example.read_mask
    return (read_mask(index) for index in range(len(example)))


Tracks = Callable[[int], Bool[np.ndarray, "N T Y X"]]
"""The visible pixels of every thing of the video at an index, where a source knows them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnotherObject:
    """Masks that are perfect for something else: the true track of another thing of the same video.

    Which one is drawn from the seed and the pair alone, with equal chances among the things that are ever visible and
    no part of the target, so that it does not depend on the order of examples. Pairs without target, and pairs whose
    video has nothing else, have none: `has` tells.
    """

    others: Mapping[tuple[str, str], Callable[[], Masks]]
    """By video and sentence: the track that is shown instead."""

    @classmethod
    def of(cls, source: ReferringSource, seed: int, tracks: Tracks | None = None) -> "AnotherObject":
        """Choose for every pair of a source.

        Args:
            tracks: Of all things; without them, what the video's other sentences mean, where it is not the same.
        """
        others: dict[tuple[str, str], Callable[[], Masks]] = {}
        for index in range(len(source)):
            examples = source.examples(index)
            prints = [_print(example) for example in examples]
            for number, example in enumerate(examples):
                if not prints[number]:
                    continue
                if tracks is None:
                    apart = dict(zip(prints, examples, strict=True))
                    named = sorted(mark for mark in apart if mark and mark != prints[number])
                    choices: list[Callable[[], Masks]] = [partial(truth, apart[mark]) for mark in named]
                else:
                    choices = [partial(_track, tracks, index, thing) for thing in _apart(example, tracks(index))]
                if choices:
                    drawn = np.random.default_rng([seed, index, number]).integers(len(choices))
                    others[example.video, example.sentence_id] = choices[drawn]
        return cls(others=others)

    def has(self, example: ReferringExample) -> bool:
        """Whether the video of a pair shows anything else."""
        return (example.video, example.sentence_id) in self.others

    def __call__(self, example: ReferringExample) -> Masks:
        """The other track; DataError where there is none."""
        if not self.has(example):
            raise DataError(f"{told_pair(example)}: nothing else is to be seen in this video; leave this pair out")
        return self.others[example.video, example.sentence_id]()


def _track(tracks: Tracks, index: int, thing: int) -> Masks:
    """The masks of one thing of a video."""
    return tracks(index)[thing]


def _apart(example: ReferringExample, things: Bool[np.ndarray, "N T Y X"]) -> list[int]:
    """Things that are ever visible and never lie on the target."""
    target = np.stack(list(truth(example)))
    return [number for number, masks in enumerate(things) if masks.any() and not (masks & target).any()]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Changed:
    """A source whose examples are changed one by one."""

    source: ReferringSource
    change: Callable[[ReferringExample], ReferringExample]

    def __len__(self) -> int:
        """Number of videos."""
        return len(self.source)

    def examples(self, index: int) -> list[ReferringExample]:
        """The changed examples of a video."""
        return [self.change(example) for example in self.source.examples(index)]


def shuffle_sentences(source: ReferringSource, seed: int) -> Changed:
    """Every sentence replaced by one of the same family about another video; frames and truth stay.

    Every sentence is used exactly once. A model that looks at the sentence falls to the level of another object's
    track; what it keeps above that level, it owes to something else than the sentence.

    Raises:
        DataError: If more than half of a family's sentences are about one video.
    """
    sentences: dict[tuple[str, str], str] = {}
    families: dict[str, dict[str, list[ReferringExample]]] = {}
    for example in walk(source):
        families.setdefault(example.family, {}).setdefault(example.video, []).append(example)
    for number, (family, videos) in enumerate(sorted(families.items())):
        rng = np.random.default_rng([seed, number])
        names = sorted(videos)
        rng.shuffle(names)
        ordered = [example for name in names for example in videos[name]]
        step = max(map(len, videos.values()))  # so far that no sentence lands in its own video
        if 2 * step > len(ordered):
            raise DataError(
                f"{step} of {len(ordered)} sentences of family {family!r} are about one video, so they cannot all "
                "change places with sentences about others; take more videos"
            )
        far = int(rng.integers(step, len(ordered) - step + 1))
        for place, example in enumerate(ordered):
            sentences[example.video, example.sentence_id] = ordered[(place + far) % len(ordered)].sentence
    return Changed(
        source=source,
        change=lambda example: replace(example, sentence=sentences[example.video, example.sentence_id]),
    )


def shuffle_frames(source: ReferringSource, seed: int) -> Changed:
    """The frames of every video in a drawn order, with their truth; one order for all sentences of a video.

    A sentence about motion can no longer be told from one about look-alikes at rest.
    """
    return Changed(source=source, change=lambda example: _frames_shuffled(example, seed))


def _frames_shuffled(example: ReferringExample, seed: int) -> ReferringExample:
    """An example with its frames in an order drawn from the seed and the name of its video; names stay in place."""
    order = np.random.default_rng([seed, *example.video.encode()]).permutation(len(example)).tolist()
    return replace(
        example,
        read_frame=_reordered(example.read_frame, order),
        read_mask=example.read_mask and _reordered(example.read_mask, order),
        read_foreground=example.read_foreground and _reordered(example.read_foreground, order),
        read_void=example.read_void and _reordered(example.read_void, order),
    )


def _reordered(read: Callable[[int], Picture], order: Sequence[int]) -> Callable[[int], Picture]:
    """A reader that finds at an index what another has at the place that the order names."""
    return lambda index: read(order[index])


def _print(example: ReferringExample) -> str:
    """A mark of the true track, equal for equal tracks; empty where nothing is ever visible."""
    digest, is_visible = hashlib.sha256(), False
    for mask in truth(example):
        digest.update(np.packbits(mask).tobytes())
        is_visible = is_visible or bool(mask.any())
    return digest.hexdigest() if is_visible else ""
