"""Emoji World as a source of referring examples: videos and stills without end, each fixed by (seed, split, index).

Enters: a seed, a split, a number of frames and a size. Leaves: `ReferringExample` values; frames and masks are drawn
when the first of them is asked for. Does not know: networks, scores, files.
"""

import zlib
from collections.abc import Callable
from functools import cached_property, partial

import numpy as np
from jaxtyping import Bool, UInt8

from dynin.data.emoji_world.artwork import NAMES
from dynin.data.emoji_world.referring_cast import draw_video
from dynin.data.emoji_world.referring_render import SIDES_PX, Rendered, render
from dynin.data.emoji_world.referring_scene import ReferringScene
from dynin.data.emoji_world.referring_sentence import Sentence, write
from dynin.data.emoji_world.referring_still import draw_still
from dynin.data.emoji_world.splits import Split
from dynin.data.referring.example import ReferringExample
from dynin.errors import ConfigError

NUM_FRAMES = 24
FEWEST_FRAMES, MOST_FRAMES = 12, 96
SIDE_PX = 64
RATE_HZ = 8.0
"""A video of 24 frames lasts three seconds."""


class Film:
    """One video or still: what is in it, what is said of it, and its pixels once they are asked for."""

    def __init__(self, scene: ReferringScene, sentences: tuple[Sentence, ...], side_px: int) -> None:
        """Keep the plan; draw nothing yet."""
        self.scene = scene
        self.sentences = sentences
        self._side_px = side_px

    @cached_property
    def rendered(self) -> Rendered:
        """All frames, and who is seen where."""
        return render(self.scene, self._side_px)

    def frame(self, index: int) -> UInt8[np.ndarray, "Y X 3"]:
        """RGB of one frame."""
        return self.rendered.frames[index]

    def mask(self, things: frozenset[int], index: int) -> Bool[np.ndarray, "Y X"]:
        """Visible pixels of some things in one frame."""
        return self.rendered.mask(things, index)


class EmojiReferring:
    """Videos or stills of Emoji World with sentences of up to six families; a `ReferringSource`.

    The families are "static", "motion", "relation", "reasoning", "several" and "none"; stills have no "motion" and no
    "reasoning". What is held out is told in docs/emoji-world.md.
    """

    def __init__(
        self,
        seed: int,
        split: Split = "train",
        *,
        num_videos: int = 4000,
        num_frames: int = NUM_FRAMES,
        side_px: int = SIDE_PX,
        denies_several: bool = False,
    ) -> None:
        """Choose the videos.

        Args:
            seed: From 0; other seeds give unrelated videos.
            split: "train" never shows what is held out, "held_out" always does.
            num_videos: How many there are; the first ones are the same whatever their number.
            num_frames: 12 to 96; 1 for stills.
            side_px: 64, 96 or 128.
            denies_several: Whether there is one more sentence of the family "none" for each video, which speaks of
                several things, such as all bananas where there is none. All others stay as they are without.

        Raises:
            ConfigError: If a setting is outside its range.
        """
        if seed < 0:
            raise ConfigError(f"seed is {seed}; give 0 or more")
        if split not in ("train", "held_out"):
            raise ConfigError(f"split is {split!r}; choose 'train' or 'held_out'")
        if num_videos < 1:
            raise ConfigError(f"num_videos is {num_videos}; give 1 or more")
        if num_frames != 1 and not FEWEST_FRAMES <= num_frames <= MOST_FRAMES:
            raise ConfigError(
                f"num_frames is {num_frames}; give {FEWEST_FRAMES} to {MOST_FRAMES} for videos, or 1 for stills"
            )
        if side_px not in SIDES_PX:
            raise ConfigError(f"side_px is {side_px}; choose one of {', '.join(map(str, SIDES_PX))}")
        self.seed, self.split, self.num_frames, self.side_px = seed, split, num_frames, side_px
        self.denies_several = denies_several
        self._num_videos = num_videos

    def __len__(self) -> int:
        """Number of videos."""
        return self._num_videos

    def film(self, index: int) -> Film:
        """The video at an index, with everything that is known of it.

        Raises:
            IndexError: If the index is outside the source.
        """
        scene, generator = self._drawn(index)
        sentences = write(scene, NAMES, generator, denies_several=self.denies_several)
        return Film(scene, tuple(sentences), self.side_px)

    def silent_film(self, index: int) -> Film:
        """The same without sentences, sooner; errors as in `film`."""
        return Film(self._drawn(index)[0], (), self.side_px)

    def _drawn(self, index: int) -> tuple[ReferringScene, np.random.Generator]:
        """What is in a video, and where the generator stands after that."""
        if not 0 <= index < self._num_videos:
            raise IndexError(f"video {index} of {self._num_videos}; indices start with 0")
        medium = "still" if self.num_frames == 1 else "video"
        key = (self.seed, zlib.crc32(f"{self.split}/referring-{medium}".encode()), index)
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))
        if self.num_frames == 1:
            return draw_still(NAMES, self.split, generator), generator
        return draw_video(NAMES, self.split, self.num_frames, generator), generator

    def examples(self, index: int) -> list[ReferringExample]:
        """One sentence of every family of which something can be said of the video.

        Raises:
            IndexError: If the index is outside the source.
        """
        film = self.film(index)
        name = f"{'still' if self.num_frames == 1 else 'video'}-{self.split}-{self.seed}-{index:06d}"
        frame_names = tuple(f"{frame:05d}" for frame in range(self.num_frames))
        read_frame: Callable[[int], UInt8[np.ndarray, "Y X 3"]] = film.frame
        everything = frozenset(range(len(film.scene.tracks)))
        return [
            ReferringExample(
                video=name,
                sentence_id=sentence.name,
                sentence=sentence.text,
                family=sentence.family,
                frame_names=frame_names,
                height=self.side_px,
                width=self.side_px,
                read_frame=read_frame,
                read_mask=partial(film.mask, sentence.targets),
                rate_hz=None if self.num_frames == 1 else RATE_HZ,
                read_foreground=partial(film.mask, everything),
            )
            for sentence in film.sentences
        ]

    def thing_masks(self, index: int) -> Bool[np.ndarray, "N T Y X"]:
        """The visible pixels of every thing of the video, from back to front; for floors and ceilings of scores."""
        film = self.film(index)
        owners = film.rendered.owners
        return np.stack([owners == 1 + thing for thing in range(len(film.scene.tracks))])
