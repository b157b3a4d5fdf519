"""What the judges and the tokenizers lose: held-out pictures, videos and sentences, as drawn and to codes and back.

Enters: a model's tokenizers, a seed. Leaves: how often the judges accept what is true and what is false, and scores
that are ceilings for every task that makes pictures, videos or speech. Does not know the network.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from dynin.data.emoji_world import caption, clip_caption
from dynin.data.emoji_world.caption import SceneSlots
from dynin.data.emoji_world.clip_caption import ClipSlots
from dynin.data.emoji_world.scene import GRID_CELLS
from dynin.data.emoji_world.voice import speak
from dynin.data.emoji_world.world import EmojiWorld
from dynin.data.example import Example
from dynin.data.variants import LARGE_CELLS
from dynin.evaluation.metrics.altered import (
    CLIP_SLOTS,
    SCENE_SLOTS,
    alter_clip,
    alter_scene,
    slots_of_clip,
    slots_of_scene,
)
from dynin.evaluation.metrics.picture import picture_matches, psnr_outside
from dynin.evaluation.metrics.speech import recognise, shuffled_error_rate, word_error_rate
from dynin.evaluation.metrics.video import video_matches
from dynin.evaluation.report import Score, share
from dynin.evaluation.suite import fidelity_outside, shows
from dynin.media.audio import Audio
from dynin.media.image import from_pil, to_pil
from dynin.media.video import Video
from dynin.tokenizers.bundle import Tokenizers
from dynin.types import Modality


def _again(tokenizers: Tokenizers, modality: Modality, value: Tensor | Video | Audio) -> Tensor | Video | Audio:
    codes = tokenizers.encode(modality, value, value.shape[-1] if isinstance(value, Tensor) else None)
    assert isinstance(codes, Tensor)
    made = tokenizers.decode(modality, codes)
    assert not isinstance(made, str)
    return made


def pictures(tokenizers: Tokenizers, seed: int, count: int, *, num_cells: int = GRID_CELLS) -> Score:
    """The judge's verdict on true scenes after the round trip, beside their mean PSNR."""
    right, psnr = [], []
    for source, claim in _scenes(seed, count, num_cells):
        made = _again(tokenizers, Modality.IMAGE, source)
        assert isinstance(made, Tensor)
        right.append(picture_matches(made, claim))
        psnr.append(psnr_outside(made, source, torch.zeros(source.shape[1:], dtype=torch.bool)))
    return share("true scenes accepted after the round trip", right, {"psnr_db": sum(psnr) / count})


def pictures_true(_: Tokenizers, seed: int, count: int, *, num_cells: int = GRID_CELLS) -> Score:
    """The judge's verdict on true scenes as drawn."""
    right = [picture_matches(source, claim) for source, claim in _scenes(seed, count, num_cells)]
    return share("true scenes accepted", right)


def pictures_altered(_: Tokenizers, seed: int, count: int, *, num_cells: int = GRID_CELLS) -> Score:
    """The judge's verdict on scenes as drawn, of each of which one slot is claimed falsely."""
    accepted: dict[str, list[bool]] = {slot: [] for slot in SCENE_SLOTS}
    generator = np.random.default_rng(seed)
    for source, claim in _scenes(seed, count, num_cells):
        slot = str(generator.choice(slots_of_scene(claim)))
        accepted[slot].append(picture_matches(source, alter_scene(claim, slot, generator)))
    return _by_slot("false claims about scenes accepted", accepted)


def edits(tokenizers: Tokenizers, seed: int, count: int) -> Score:
    """The judge's verdict on the targets of edits after the round trip, beside what it alone does outside the edit.

    PSNR is that of the source picture to codes and back, where `i2i` of the suite measures its own.
    """
    right, outside = [], []
    for example in _held_out("i2i", seed, count):
        given, wanted = (
            from_pil(to_pil(_again(tokenizers, Modality.IMAGE, side[Modality.IMAGE])))  # type: ignore[arg-type]
            for side in (example.condition, example.target)
        )
        right.append(shows(wanted, example.truth["edit"].target))  # type: ignore[index]
        outside += fidelity_outside(example, given)
    beside = {"psnr_outside_db": sum(outside) / max(1, len(outside))}
    return share("targets of edits accepted after the round trip", right, beside)


def videos(tokenizers: Tokenizers, seed: int, count: int) -> Score:
    """The judge's verdict on true videos after the round trip."""
    right = []
    for source, claim in _clips(seed, count):
        made = _again(tokenizers, Modality.VIDEO, source)
        assert isinstance(made, Video)
        right.append(video_matches(made.frames, claim))
    return share("true videos accepted after the round trip", right)


def videos_true(_: Tokenizers, seed: int, count: int) -> Score:
    """The judge's verdict on true videos as drawn."""
    right = [video_matches(source.frames, claim) for source, claim in _clips(seed, count)]
    return share("true videos accepted", right)


def videos_altered(_: Tokenizers, seed: int, count: int) -> Score:
    """The judge's verdict on videos as drawn, of each of which one slot is claimed falsely."""
    accepted: dict[str, list[bool]] = {slot: [] for slot in CLIP_SLOTS}
    generator = np.random.default_rng(seed)
    for source, claim in _clips(seed, count):
        slot = str(generator.choice(slots_of_clip(claim)))
        accepted[slot].append(video_matches(source.frames, alter_clip(claim, slot, generator)))
    return _by_slot("false claims about videos accepted", accepted)


def _scenes(seed: int, count: int, num_cells: int) -> Iterator[tuple[Tensor, SceneSlots]]:
    """Held-out scenes as drawn, with what is true of them."""
    for example in _held_out("t2i", seed, count, num_cells):
        yield example.target[Modality.IMAGE], caption.slots(example.truth["scene"])  # type: ignore[index, misc]


def _clips(seed: int, count: int) -> Iterator[tuple[Video, ClipSlots]]:
    """Held-out videos as drawn, with what is true of them."""
    for example in _held_out("t2v", seed, count):
        yield example.target[Modality.VIDEO], clip_caption.slots(example.truth["clip"])  # type: ignore[index, misc]


def _held_out(task: str, seed: int, count: int, num_cells: int = GRID_CELLS) -> Iterator[Example]:
    """The first held-out examples of a task."""
    world = EmojiWorld(seed, "held_out", num_cells=num_cells)
    return (world.example(task, index) for index in range(count))


def _by_slot(metric: str, accepted: Mapping[str, Sequence[bool]]) -> Score:
    """The share over all slots, beside that of each."""
    beside = {slot: sum(verdicts) / len(verdicts) for slot, verdicts in accepted.items() if verdicts}
    return share(metric, [verdict for verdicts in accepted.values() for verdict in verdicts], beside)


def speech(tokenizers: Tokenizers, seed: int, count: int, *, voice: str, is_long: bool = False) -> Score:
    """Word errors of held-out sentences after the round trip, in the tokenizer's default style, beside the source's."""
    world = EmojiWorld(seed, "held_out", is_long=is_long, speak=partial(speak, voice=voice))
    grammar = world.grammar()
    said, source, made = [], [], []
    for index in range(count):
        example = world.example("t2s", index)
        sound = example.target[Modality.SPEECH]
        assert isinstance(sound, Audio)
        again = _again(tokenizers, Modality.SPEECH, sound)
        assert isinstance(again, Audio)
        said.append(str(example.condition[Modality.TEXT]))
        source.append(recognise(sound, grammar))
        made.append(recognise(again, grammar))
    errors = word_error_rate(said, made)
    beside = {
        "source": word_error_rate(said, source).rate,
        "source_other_sentence": shuffled_error_rate(said, source).rate,
    }
    return Score(metric="word error rate", score=errors.rate, ci95=errors.ci95, n=count, beside=beside)


ROUND_TRIPS: Mapping[str, Callable[[Tokenizers, int, int], Score]] = {
    "pictures_true": pictures_true,
    "pictures_altered": pictures_altered,
    "pictures": pictures,
    "edits": edits,
    "videos_true": videos_true,
    "videos_altered": videos_altered,
    "videos": videos,
    "speech_slt": partial(speech, voice="slt"),
    "speech_rms": partial(speech, voice="rms"),
    "speech_espeak": partial(speech, voice="en-us+f3"),
    "pictures_large_true": partial(pictures_true, num_cells=LARGE_CELLS),
    "pictures_large_altered": partial(pictures_altered, num_cells=LARGE_CELLS),
    "pictures_large": partial(pictures, num_cells=LARGE_CELLS),
    "speech_long": partial(speech, voice="slt", is_long=True),
}
"""The report's rows: `_true` and `_altered` judge the judges; no training has heard `rms` or the espeak variant."""
