"""Which sentences of which videos a step learns from, and its batches.

Enters: settings, a step. Leaves: a `Step`. What a step is made of follows from its number alone, so that a run that
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
from dynin.data.referring.instruct import Conversation, Conversations, Explanations, open_instructions
from dynin.data.referring.source import ReferringSource
from dynin.errors import DataError
from dynin.virst.batch import Batch, Sizes, TextBatch, make_batch, make_text_batch
from dynin.virst.training.config import WORLD, DataConfig, VirstTrainConfig

STRIDE = 1_000_003
"""Between seeds of runs, in steps."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Step:
    """What one step learns from."""

    batch: Batch
    text: TextBatch | None = None
    """Questions with answers; None where there are none."""

    def to(self, device: torch.device | str) -> "Step":
        """The same on another device."""
        return Step(batch=self.batch.to(device), text=None if self.text is None else self.text.to(device))

    @property
    def names(self) -> tuple[str, ...]:
        """Of every example, for messages."""
        return (*self.batch.names, *(() if self.text is None else self.text.names))


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawer:
    """Draws steps."""

    sources: Mapping[str, ReferringSource]
    conversations: Mapping[str, Conversations | Explanations]
    config: VirstTrainConfig
    sizes: Sizes

    @classmethod
    def open(cls, config: VirstTrainConfig, sizes: Sizes) -> "Drawer":
        """Open every source.

        Raises:
            DataError: If one is missing, empty, or not laid out as published.
        """
        sources = {name: _open(told, config.seed) for name, told in config.data.items() if told.weight > 0}
        conversations = {name: open_instructions(told.dataset, Path(told.root)) for name, told in config.text.items()}
        for name, source in (*sources.items(), *conversations.items()):
            if not len(source):
                raise DataError(f"source {name!r} has no video; name a split that has some")
        return cls(sources=sources, conversations=conversations, config=config, sizes=sizes)

    def step(self, step: int) -> Step:
        """What a step learns from.

        Raises:
            DataError: If a frame or mask of an example is missing or wrong, or a video has no sentence.
        """
        config = self.config
        generator = torch.Generator().manual_seed(config.seed * STRIDE + step)
        weights = {name: config.data[name].weight for name in self.sources}
        names = _some(weights, config.videos_per_step, generator)
        sizes = self._sizes(generator)
        batch = make_batch([self._sentences(name, generator) for name in names], sizes, generator)
        if not config.texts_per_step:
            return Step(batch=batch)
        weights = {name: told.weight for name, told in config.text.items()}
        asked = [self._question(name, generator) for name in _some(weights, config.texts_per_step, generator)]
        return Step(batch=batch, text=make_text_batch(asked, sizes, generator))

    def fingerprint(self) -> str:
        """What tells this data from other data."""
        videos = {name: {**asdict(self.config.data[name]), "videos": len(each)} for name, each in self.sources.items()}
        texts = {name: len(each) for name, each in self.conversations.items()}
        return json.dumps({"videos": videos, "texts": texts}, sort_keys=True)

    def _sentences(self, name: str, generator: torch.Generator) -> list[ReferringExample]:
        """Some sentences of a video."""
        source = self.sources[name]
        index = int(torch.randint(len(source), (), generator=generator))
        examples = source.examples(index)
        if not examples:
            raise DataError(f"video {index} of source {name!r} has no sentence; correct its annotation")
        count, families = min(len(examples), self.config.sentences_per_video), self.config.data[name].families
        if families:
            weights = torch.tensor([families.get(example.family, 1.0) for example in examples])
            order = torch.multinomial(weights, count, generator=generator)
        else:
            order = torch.randperm(len(examples), generator=generator)[:count]
        return [examples[int(at)] for at in order]

    def _question(self, name: str, generator: torch.Generator) -> tuple[Conversation, int]:
        """A conversation, and the number of one of its questions."""
        source = self.conversations[name]
        conversation = source.conversation(int(torch.randint(len(source), (), generator=generator)))
        return conversation, int(torch.randint(len(conversation.pairs), (), generator=generator))

    def _sizes(self, generator: torch.Generator) -> Sizes:
        """How many frames this step sees, and how they are drawn."""
        frames, fewest = self.sizes.frames, self.config.fewest_frames
        most = frames.num_frames
        if 0 < fewest < most:
            choices = range(-(-fewest // frames.multiple), most // frames.multiple + 1)
            most = choices[int(torch.randint(len(choices), (), generator=generator))] * frames.multiple
        least = min(frames.least, most)
        return replace(self.sizes, frames=replace(frames, num_frames=most, least=least, sampling=self.config.sampling))


def _some(weights: Mapping[str, float], count: int, generator: torch.Generator) -> list[str]:
    """Names drawn by weight."""
    names = list(weights)
    chosen = torch.multinomial(torch.tensor([*weights.values()]), count, replacement=True, generator=generator)
    return [names[int(at)] for at in chosen]


def _open(told: DataConfig, seed: int) -> ReferringSource:
    if told.dataset == WORLD:
        split: Split = "held_out" if told.split == "held_out" else "train"
        return EmojiReferring(
            seed,
            split,
            num_videos=told.num_videos,
            num_frames=told.num_frames,
            side_px=told.side_px,
            denies_several=told.denies_several,
        )
    return open_dataset(told.dataset, Path(told.root), told.split)
