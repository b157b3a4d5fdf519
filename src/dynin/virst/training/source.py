"""Which sentences of which videos a step learns from, and its batch.

Enters: settings, a step. Leaves: a `Batch`. What a step is made of follows from its number alone, so that a run that
was stopped goes on as if it had not been. Does not know networks or losses.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from dynin.data.emoji_world.splits import Split
from dynin.data.referring.catalogue import open_dataset
from dynin.data.referring.emoji_world import EmojiReferring
from dynin.data.referring.example import ReferringExample
from dynin.data.referring.source import ReferringSource
from dynin.errors import DataError
from dynin.virst.batch import Batch, Sizes, make_batch
from dynin.virst.training.config import WORLD, DataConfig, VirstTrainConfig

STRIDE = 1_000_003
"""Between seeds of runs, in steps."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawer:
    """Draws batches."""

    sources: Mapping[str, ReferringSource]
    config: VirstTrainConfig
    sizes: Sizes

    @classmethod
    def open(cls, config: VirstTrainConfig, sizes: Sizes) -> "Drawer":
        """Open every source.

        Raises:
            DataError: If one is missing, empty, or not laid out as published.
        """
        sources = {name: _open(told, config.seed) for name, told in config.data.items() if told.weight > 0}
        for name, source in sources.items():
            if not len(source):
                raise DataError(f"source {name!r} has no video; name a split that has some")
        return cls(sources=sources, config=config, sizes=sizes)

    def batch(self, step: int) -> Batch:
        """The batch of a step.

        Raises:
            DataError: If a frame or mask of an example is missing or wrong, or a video has no sentence.
        """
        config = self.config
        generator = torch.Generator().manual_seed(config.seed * STRIDE + step)
        names = list(self.sources)
        weights = torch.tensor([config.data[name].weight for name in names])
        chosen = torch.multinomial(weights, config.videos_per_step, replacement=True, generator=generator)
        videos = [self._sentences(names[int(at)], generator) for at in chosen]
        return make_batch(videos, self._sizes(generator), generator)

    def fingerprint(self) -> str:
        """What tells this data from other data."""
        told = {
            name: {**asdict(self.config.data[name]), "videos": len(source)} for name, source in self.sources.items()
        }
        return json.dumps(told, sort_keys=True)

    def _sentences(self, name: str, generator: torch.Generator) -> list[ReferringExample]:
        """Some sentences of a video."""
        source = self.sources[name]
        index = int(torch.randint(len(source), (), generator=generator))
        examples = source.examples(index)
        if not examples:
            raise DataError(f"video {index} of source {name!r} has no sentence; correct its annotation")
        order = torch.randperm(len(examples), generator=generator)[: self.config.sentences_per_video]
        return [examples[int(at)] for at in order]

    def _sizes(self, generator: torch.Generator) -> Sizes:
        """How many frames this step sees, and how they are drawn."""
        frames, fewest = self.sizes.frames, self.config.fewest_frames
        most = frames.num_frames
        if 0 < fewest < most:
            choices = range(-(-fewest // frames.multiple), most // frames.multiple + 1)
            most = choices[int(torch.randint(len(choices), (), generator=generator))] * frames.multiple
        least = min(frames.least, most)
        return replace(self.sizes, frames=replace(frames, num_frames=most, least=least, sampling=self.config.sampling))


def _open(told: DataConfig, seed: int) -> ReferringSource:
    if told.dataset == WORLD:
        split: Split = "held_out" if told.split == "held_out" else "train"
        return EmojiReferring(seed, split, num_videos=told.num_videos, num_frames=told.num_frames, side_px=told.side_px)
    return open_dataset(told.dataset, Path(told.root), told.split)
