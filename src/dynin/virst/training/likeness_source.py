"""Frames with sentences that name what is visible in them, for the training of an image-text model.

Enters: sources of referring examples, a step. Leaves: a `Pairs`. What a step is made of follows from its number alone.
Does not know networks, tokenizers or losses.

    a video  --a few frames drawn-->  frame  --one sentence that is true of it, plain names of what is visible-->  texts
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from dynin.data.emoji_world.artwork import article, plural
from dynin.data.emoji_world.splits import Split
from dynin.data.referring.catalogue import open_dataset
from dynin.data.referring.emoji_world import EmojiReferring
from dynin.data.referring.example import ReferringExample
from dynin.data.referring.source import ReferringSource
from dynin.errors import DataError
from dynin.media.image import from_levels
from dynin.virst.similarity import fitted
from dynin.virst.training.config import WORLD, DataConfig
from dynin.virst.training.likeness_config import LikenessTrainConfig

STRIDE = 1_000_003
"""Between seeds of runs, in steps."""
MOST_TRIES = 100
"""Videos that are drawn in a row without a frame of which anything is said."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """A sentence about a video, or about whatever shows the same."""

    text: str
    things: frozenset[int]
    """Of the video: those that it means. It is true of a frame in which one of them is visible."""
    names: frozenset[str]
    """What another video's frame has to show for the sentence to be true of it too."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Shown:
    """A video or picture: what is said of it, and who is visible when."""

    names: tuple[str, ...]
    """Of its things; those that look the same have the same."""
    has_plain_names: bool
    """Whether names are words."""
    told: tuple[Told, ...]
    """Sentences that mean something."""
    families: tuple[str, ...]
    """Of each sentence."""
    num_frames: int
    read_frame: Callable[[int], UInt8[np.ndarray, "Y X 3"]]
    areas: Callable[[int], tuple[int, ...]]
    """Visible pixels of each thing in a frame."""
    mask: Callable[[int, int], Bool[np.ndarray, "Y X"]]
    """Those of one thing in a frame."""

    def visible(self, frame: int, least_px: int = 1) -> frozenset[int]:
        """Things of which so much is to be seen."""
        return frozenset(thing for thing, area in enumerate(self.areas(frame)) if area >= least_px)

    def plain(self, things: frozenset[int], generator: torch.Generator) -> Told | None:
        """The names of one or two kinds of some things; None where there are none, or names are no words."""
        names = sorted({self.names[thing] for thing in things})
        if not names or not self.has_plain_names:
            return None
        order = torch.randperm(len(names), generator=generator).tolist()
        count = 1 + int(torch.randint(2, (), generator=generator))
        chosen = [names[at] for at in order[:count]]
        forms = [_plain_form(name, int(torch.randint(4, (), generator=generator))) for name in chosen]
        meant = frozenset(thing for thing, name in enumerate(self.names) if name in chosen)
        return Told(text=" and ".join(forms), things=meant, names=frozenset(chosen))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Pairs:
    """What one step learns from: B frames and K sentences of each."""

    frames: Float[Tensor, "B 3 Y X"]
    """In [-1, 1], at the size of the network."""
    texts: tuple[tuple[str, ...], ...]
    """K times B."""
    is_other: Bool[Tensor, "K B B"]
    """Whether the sentence of a column is not true of the frame of a row: what counts against the pair."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Row:
    """A frame with its sentences."""

    shown: Shown
    frame: int
    pixels: UInt8[np.ndarray, "Y X 3"]
    visible: frozenset[int]
    """Things of which anything is to be seen."""
    told: tuple[Told, ...]
    video: int = 0
    """Its number in the step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PairDrawer:
    """Draws steps."""

    sources: Mapping[str, ReferringSource]
    config: LikenessTrainConfig
    size_px: int

    @classmethod
    def open(cls, config: LikenessTrainConfig, size_px: int) -> "PairDrawer":
        """Open every source that is learned from.

        Raises:
            DataError: If one is missing, empty, or not laid out as published.
        """
        weighty = {name: told for name, told in config.data.items() if told.weight > 0}
        return cls(sources=open_sources(weighty, config.seed), config=config, size_px=size_px)

    def step(self, step: int) -> Pairs:
        """What a step learns from.

        Raises:
            DataError: If a frame or mask is missing or wrong, or nothing is said of any frame.
        """
        config = self.config
        generator = torch.Generator().manual_seed(config.seed * STRIDE + step)
        weights = torch.tensor([config.data[name].weight for name in self.sources])
        drawn = torch.multinomial(weights, config.videos_per_step, replacement=True, generator=generator).tolist()
        spot = self.config.spot_share * max(0.0, 1 - step / max(1, self.config.spot_steps))
        rows: list[_Row] = []
        for video, at in enumerate(drawn):
            source = [*self.sources.values()][at]
            rows += [replace(row, video=video) for row in self._of_a_video(source, spot, generator)]
        return Pairs(
            frames=torch.stack([fitted(from_levels(row.pixels), self.size_px) for row in rows]),
            texts=tuple(tuple(row.told[k].text for row in rows) for k in range(config.texts_per_frame)),
            is_other=_others(rows, config.texts_per_frame),
        )

    def corpus(self, num_videos: int = 1000) -> Iterator[str]:
        """Sentences that a tokenizer is made from."""
        for source in self.sources.values():
            for index in range(min(num_videos, len(source))):
                shown = shown_of(source, index)
                yield from (told.text for told in shown.told)
                if shown.has_plain_names:
                    for form in range(4):
                        yield from (_plain_form(name, form) for name in sorted(set(shown.names)))

    def fingerprint(self) -> str:
        """What tells this data from other data."""
        facts = {name: {**asdict(self.config.data[name]), "videos": len(each)} for name, each in self.sources.items()}
        return json.dumps(facts, sort_keys=True)

    def _of_a_video(self, source: ReferringSource, spot: float, generator: torch.Generator) -> list[_Row]:
        """Some frames of a video that is drawn, each with its sentences; another one where nothing is said of any."""
        for _ in range(MOST_TRIES):
            shown = shown_of(source, int(torch.randint(len(source), (), generator=generator)))
            order = torch.randperm(shown.num_frames, generator=generator)[: self.config.frames_per_video].tolist()
            rows = [self._row(shown, frame, spot, generator) for frame in order]
            if found := [row for row in rows if row.told]:
                return found
        raise DataError(
            f"{MOST_TRIES} videos in a row hold no frame of which anything is said; use a split with public masks"
        )

    def _row(self, shown: Shown, frame: int, spot: float, generator: torch.Generator) -> _Row:
        """A frame, at times with one thing of it alone; without sentences where there is none that is true."""
        pixels, visible = shown.read_frame(frame), shown.visible(frame)
        clear = shown.visible(frame, self.config.least_px)
        if clear and float(torch.rand((), generator=generator)) < spot:
            thing = sorted(clear)[int(torch.randint(len(clear), (), generator=generator))]
            pixels, visible, clear = (
                _spotted(pixels, shown.mask(thing, frame)),
                frozenset((thing,)),
                frozenset((thing,)),
            )
        told = self._sentences(shown, clear, generator)
        return _Row(shown=shown, frame=frame, pixels=pixels, visible=visible, told=told)

    def _sentences(self, shown: Shown, clear: frozenset[int], generator: torch.Generator) -> tuple[Told, ...]:
        """As many sentences about what is clearly visible as a frame gets; none where there is none."""
        fitting = [told for told in shown.told if told.things & clear]
        drawn: list[Told] = []
        for number in range(self.config.texts_per_frame):
            plain = shown.plain(clear, generator) if number or not fitting else None
            if plain is None and not fitting:
                return ()
            at = int(torch.randint(max(1, len(fitting)), (), generator=generator))
            drawn.append(fitting[at] if plain is None else plain)
        return tuple(drawn)


def open_sources(tables: Mapping[str, DataConfig], seed: int) -> dict[str, ReferringSource]:
    """The sources that tables name; errors as in `PairDrawer.open`."""
    sources: dict[str, ReferringSource] = {}
    for name, told in tables.items():
        if told.dataset == WORLD:
            split: Split = "held_out" if told.split == "held_out" else "train"
            sources[name] = EmojiReferring(
                seed, split, num_videos=told.num_videos, num_frames=told.num_frames, side_px=told.side_px
            )
        else:
            sources[name] = open_dataset(told.dataset, Path(told.root), told.split)
        if not len(sources[name]):
            raise DataError(f"source {name!r} has no video; name a split that has some")
    return sources


def shown_of(source: ReferringSource, index: int) -> Shown:
    """A video of a source with who is visible when.

    Emoji World knows every thing by name. Of other sources, what a sentence means is one thing, which is in no other
    video.

    Raises:
        DataError: If masks are not public.
    """
    if isinstance(source, EmojiReferring):
        return _of_the_world(source, index)
    examples = source.examples(index)
    things = [example for example in examples if example.family != "none"]
    names = tuple(f"{example.video}/{example.sentence_id}" for example in things)
    return Shown(
        names=names,
        has_plain_names=False,
        told=tuple(
            Told(text=example.sentence, things=frozenset((at,)), names=frozenset((names[at],)))
            for at, example in enumerate(things)
        ),
        families=tuple(example.family for example in things),
        num_frames=len(examples[0]) if examples else 0,
        read_frame=examples[0].read_frame if examples else _nothing,
        areas=lambda frame: tuple(int(_mask(example, frame).sum()) for example in things),
        mask=lambda thing, frame: _mask(things[thing], frame),
    )


def _of_the_world(source: EmojiReferring, index: int) -> Shown:
    film = source.film(index)
    tracks = film.scene.tracks
    names = tuple(track.name for track in tracks)
    meant = [sentence for sentence in film.sentences if sentence.targets]

    def areas(frame: int) -> tuple[int, ...]:
        counts = np.bincount(film.rendered.owners[frame].ravel(), minlength=len(tracks) + 1)
        return tuple(counts[1 : len(tracks) + 1].tolist())

    return Shown(
        names=names,
        has_plain_names=True,
        told=tuple(
            Told(
                text=sentence.text,
                things=sentence.targets,
                names=frozenset(names[thing] for thing in sentence.targets),
            )
            for sentence in meant
        ),
        families=tuple(sentence.family for sentence in meant),
        num_frames=source.num_frames,
        read_frame=film.frame,
        areas=areas,
        mask=lambda thing, frame: film.mask(frozenset((thing,)), frame),
    )


def _others(rows: Sequence[_Row], count: int) -> Bool[Tensor, "K B B"]:
    """Which sentences are not true of which frames, as far as the sources know."""
    seen = [frozenset(row.shown.names[thing] for thing in row.visible) for row in rows]
    is_other = torch.ones(count, len(rows), len(rows), dtype=torch.bool)
    for k in range(count):
        for column, said in enumerate(rows):
            told = said.told[k]
            for at, row in enumerate(rows):
                is_true = told.things & row.visible if row.video == said.video else told.names <= seen[at]
                if is_true or row.told[k].text.casefold() == told.text.casefold():
                    is_other[k, at, column] = False
    return is_other


def _spotted(pixels: UInt8[np.ndarray, "Y X 3"], mask: Bool[np.ndarray, "Y X"]) -> UInt8[np.ndarray, "Y X 3"]:
    """A frame of which only the box around a mask is left, on mid grey."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    spotted = np.full_like(pixels, 128)
    spotted[box] = pixels[box]
    return spotted


def _plain_form(name: str, form: int) -> str:
    """A name as people write it."""
    return (name, f"{article(name)} {name}", f"the {name}", plural(name))[form]


def _mask(example: ReferringExample, frame: int) -> Bool[np.ndarray, "Y X"]:
    if example.read_mask is None:
        raise DataError(
            f"the masks of {example.video}/{example.sentence_id} are not public, so nobody knows when it is visible; "
            "use a split with masks"
        )
    return example.read_mask(frame)


def _nothing(frame: int) -> UInt8[np.ndarray, "Y X 3"]:
    raise DataError(f"frame {frame} of a video of which nothing is said was asked for; correct its annotation")
