"""What a reader of frames learns from: pictures, and for each of their patches the code that it is to say.

Enters: settings and a picture tokenizer. Leaves: `Patches` by the step's number alone. Does not know networks.

The code of a thing is what the tokenizer says of its picture where that fills one patch, on any ground. It is wanted at
the patch that holds the middle of what is visible of the thing; of two, that of which more is visible counts. All other
patches are to say the code of the plain ground.

Films of Emoji World are dear: scenes have to be true to many laws, and all frames of a video are drawn for a few.
*Crowds* are drawn by the same brush without those laws: things of a common stock lie anywhere, at most one with its
middle in each patch, behind and before a bar at times.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from dynin.data.emoji_world.artwork import NAMES, tile
from dynin.data.emoji_world.referring_motion import MOST_DRIFT, Path
from dynin.data.emoji_world.referring_render import Rendered, render
from dynin.data.emoji_world.referring_scene import Bar, ReferringScene, Track
from dynin.data.emoji_world.scene import BACKGROUNDS, Size
from dynin.data.emoji_world.splits import Split, is_background_held_out
from dynin.data.referring.emoji_world import EmojiReferring
from dynin.errors import ConfigError
from dynin.media.image import from_levels
from dynin.tokenizers.protocol import ImageTokenizer
from dynin.virst.backbone.reader import PATCH_PX
from dynin.virst.training.reader_config import ReaderTrainConfig

LEAST_PX = 16
"""Visible pixels from which on a thing is said."""
STOCK = 48
"""Things of which a crowd is made."""
BAR_SHARE = 0.25
"""Of the crowds, how many have a bar."""
FILL_GROUND = "red"
"""The ground on which things are shown to the tokenizer, which hardly sees it."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Patches:
    """What one step learns from: B pictures of N patches."""

    frames: Float[Tensor, "B 3 Y X"]
    """In [-1, 1]."""
    codes: Int[Tensor, "B N"]
    """What is to be said at each patch, by rows."""
    is_thing: Bool[Tensor, "B N"]
    """Where that is a thing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Codes:
    """What the tokenizer says of everything in the world."""

    things: dict[str, int]
    """By name."""
    grounds: dict[str, int]
    """By colour."""

    @classmethod
    def of(cls, tokenizer: ImageTokenizer) -> "Codes":
        """Ask a tokenizer of pictures whose patches have 16 px a side; errors are its own."""
        things = {name: _code(tokenizer, _filled(name)) for name in NAMES}
        return cls(things=things, grounds={ground: _code(tokenizer, _plain(ground)) for ground in BACKGROUNDS})


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchDrawer:
    """Draws steps."""

    config: ReaderTrainConfig
    codes: Codes
    stills: EmojiReferring
    videos: EmojiReferring

    @classmethod
    def open(cls, config: ReaderTrainConfig, tokenizer: ImageTokenizer, split: Split = "train") -> "PatchDrawer":
        """Ready to draw.

        Raises:
            ConfigError: If the tokenizer's patches have another size than the reader's, or Emoji World has no such
                videos.
        """
        if tokenizer.downsample != PATCH_PX:
            raise ConfigError(
                f"setting 'init' is {config.init!r}: the picture tokenizer of that model has patches of "
                f"{tokenizer.downsample} px, the reader of {PATCH_PX} px; name a model with such patches"
            )
        world = partial(EmojiReferring, config.seed, split, num_videos=config.num_videos, side_px=config.side_px)
        return cls(
            config=config,
            codes=Codes.of(tokenizer),
            stills=world(num_frames=1),
            videos=world(num_frames=config.num_frames),
        )

    def step(self, step: int) -> Patches:
        """What a step learns from; follows from its number and the seed."""
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence((self.config.seed, step))))
        return self._together(self._parts(step, generator))

    def films(self, num_videos: int) -> Iterator[Patches]:
        """All frames of the first videos, each with the still of its number."""
        for index in range(num_videos):
            parts = []
            for source in (self.stills, self.videos):
                film = source.silent_film(index % len(source))
                parts.append((film.scene, film.rendered, np.arange(source.num_frames)))
            yield self._together(iter(parts))

    def fingerprint(self) -> str:
        """What tells this data from other data."""
        return json.dumps({"things": self.codes.things, "grounds": self.codes.grounds}, sort_keys=True)

    def _parts(
        self, step: int, generator: np.random.Generator
    ) -> Iterator[tuple[ReferringScene, Rendered, Int[np.ndarray, "F"]]]:
        """Scenes, what is seen of them, and which of their frames are looked at."""
        config = self.config
        for _ in range(config.crowds_per_step):
            scene = draw_crowd(config, generator)
            yield scene, render(scene, config.side_px), np.arange(scene.num_frames)
        if step < config.films_from:
            return
        for source, count, num_frames in (
            (self.stills, config.stills_per_step, 1),
            (self.videos, config.videos_per_step, config.frames_per_video),
        ):
            for _ in range(count):
                film = source.silent_film(int(generator.integers(len(source))))
                frames = generator.choice(source.num_frames, size=num_frames, replace=False)
                yield film.scene, film.rendered, np.sort(frames)

    def _together(self, parts: Iterator[tuple[ReferringScene, Rendered, Int[np.ndarray, "F"]]]) -> Patches:
        frames, codes, is_thing = [], [], []
        for scene, rendered, chosen in parts:
            said, is_said = targets(scene, rendered.owners[chosen], self.codes)
            frames += [from_levels(rendered.frames[frame]) for frame in chosen.tolist()]
            codes.append(said)
            is_thing.append(is_said)
        return Patches(
            frames=torch.stack(frames),
            codes=torch.from_numpy(np.concatenate(codes)),
            is_thing=torch.from_numpy(np.concatenate(is_thing)),
        )


def targets(
    scene: ReferringScene, owners: UInt8[np.ndarray, "F Y X"], codes: Codes
) -> tuple[Int[np.ndarray, "F N"], Bool[np.ndarray, "F N"]]:
    """What is to be said at each patch of some frames, and whether it is a thing.

    Args:
        owners: Of those frames, as in `Rendered`.
    """
    num_frames, height, width = owners.shape
    columns, num_patches = width // PATCH_PX, (height // PATCH_PX) * (width // PATCH_PX)
    num_owners = len(scene.tracks) + 1
    rows, across = (places.ravel() for places in np.indices((height, width)))
    said = np.full((num_frames, num_patches), codes.grounds[scene.background], dtype=np.int64)
    is_thing = np.zeros((num_frames, num_patches), dtype=bool)
    of_tracks = np.array([0, *(codes.things[track.name] for track in scene.tracks)])
    for frame in range(num_frames):
        owner = np.minimum(owners[frame].ravel(), num_owners).astype(np.int64)  # the bar is the last one
        area = np.bincount(owner, minlength=num_owners + 1)[:num_owners]
        area[0] = 0
        seen = np.flatnonzero(area >= LEAST_PX)
        seen = seen[np.argsort(area[seen], kind="stable")]  # larger ones later, so they stay
        middles = [np.bincount(owner, weights=at, minlength=num_owners)[seen] / area[seen] for at in (rows, across)]
        row, column = (np.floor((middle + 0.5) / PATCH_PX).astype(np.int64) for middle in middles)
        said[frame, row * columns + column] = of_tracks[seen]
        is_thing[frame, row * columns + column] = True
    return said, is_thing


def draw_crowd(config: ReaderTrainConfig, generator: np.random.Generator) -> ReferringScene:
    """Pictures without laws, as the frames of one scene; no thing lies on a ground that is held out for it."""
    num_frames, side = config.pictures_per_crowd, config.side_px // PATCH_PX
    grounds = tuple(BACKGROUNDS)
    background = grounds[int(generator.integers(len(grounds)))]
    fitting = [name for name in NAMES if not is_background_held_out(name, background)]
    count = min(config.things_per_picture, side * side, STOCK)
    centres = np.zeros((STOCK, num_frames, 2))
    is_present = np.zeros((STOCK, num_frames), dtype=bool)
    for frame in range(num_frames):
        members = generator.choice(STOCK, size=count, replace=False)
        patches = generator.choice(side * side, size=count, replace=False)
        corners = np.stack([patches % side, patches // side], axis=1)
        centres[members, frame] = (corners + generator.random((count, 2))) / side
        is_present[members, frame] = True
    tracks = []
    for member, kind in enumerate(generator.integers(len(fitting), size=STOCK).tolist()):
        size: Size = "small" if generator.random() < 0.6 else "large"
        path = Path(centres=centres[member], is_present=is_present[member])
        tracks.append(Track(name=fitting[kind], size=size, motion="still", heading=None, path=path))
    bar = None
    if generator.random() < BAR_SHARE:
        bar = Bar(
            axis=int(generator.integers(2)),
            middle=float(generator.uniform(0.2, 0.8)),
            colour=grounds[int(generator.integers(len(grounds)))],
            num_behind=int(generator.integers(STOCK + 1)),
        )
    return ReferringScene(
        tracks=tuple(tracks),
        bar=bar,
        background=background,
        drift=generator.uniform(-MOST_DRIFT, MOST_DRIFT, size=(num_frames, 2)),
        look=int(generator.integers(2**32)),
    )


def _filled(name: str) -> Float[np.ndarray, "Y X 3"]:
    picture = tile(name, PATCH_PX).astype(np.float64)
    return picture[..., :3] * 255 + (1 - picture[..., 3:]) * _plain(FILL_GROUND)


def _plain(ground: str) -> Float[np.ndarray, "Y X 3"]:
    return np.ones((PATCH_PX, PATCH_PX, 3)) * np.array(BACKGROUNDS[ground])


def _code(tokenizer: ImageTokenizer, picture: Float[np.ndarray, "Y X 3"]) -> int:
    """What a tokenizer says of a picture of one patch."""
    levels = torch.from_numpy(picture).float().permute(2, 0, 1)
    return int(tokenizer.encode((levels / 127.5 - 1)[None]).flatten()[0])
