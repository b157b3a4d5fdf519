"""What the tokenizers lose: held-out pictures, videos and sentences to codes and back, without any network in between.

Enters: a model's tokenizers, a seed. Leaves: scores that are ceilings for every task that makes pictures, videos or
speech. Does not know the network.
"""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from dynin.data.emoji_world import caption, clip_caption
from dynin.data.emoji_world.voice import speak
from dynin.data.emoji_world.world import EmojiWorld
from dynin.evaluation.metrics.picture import picture_matches, psnr_outside
from dynin.evaluation.metrics.speech import recognise, word_error_rate
from dynin.evaluation.metrics.video import video_matches
from dynin.evaluation.report import Score, share
from dynin.media.audio import Audio
from dynin.media.video import Video
from dynin.tokenizers.bundle import Tokenizers
from dynin.types import Modality


def _again(tokenizers: Tokenizers, modality: Modality, value: Tensor | Video | Audio) -> Tensor | Video | Audio:
    codes = tokenizers.encode(modality, value)
    assert isinstance(codes, Tensor)
    made = tokenizers.decode(modality, codes)
    assert not isinstance(made, str)
    return made


def pictures(tokenizers: Tokenizers, seed: int, count: int) -> Score:
    """The judge's verdict on true scenes after the round trip, beside their mean PSNR."""
    world = EmojiWorld(seed, "held_out")
    right, psnr = [], []
    for index in range(count):
        example = world.example("t2i", index)
        source = example.target[Modality.IMAGE]
        assert isinstance(source, Tensor)
        made = _again(tokenizers, Modality.IMAGE, source)
        assert isinstance(made, Tensor)
        right.append(picture_matches(made, caption.slots(example.truth["scene"])))  # type: ignore[index]
        psnr.append(psnr_outside(made, source, torch.zeros(source.shape[1:], dtype=torch.bool)))
    return share("true scenes accepted after the round trip", right, {"psnr_db": sum(psnr) / count})


def videos(tokenizers: Tokenizers, seed: int, count: int) -> Score:
    """The judge's verdict on true videos after the round trip."""
    world = EmojiWorld(seed, "held_out")
    right = []
    for index in range(count):
        example = world.example("t2v", index)
        source = example.target[Modality.VIDEO]
        assert isinstance(source, Video)
        made = _again(tokenizers, Modality.VIDEO, source)
        assert isinstance(made, Video)
        right.append(video_matches(made.frames, clip_caption.slots(example.truth["clip"])))  # type: ignore[index]
    return share("true videos accepted after the round trip", right)


def speech(tokenizers: Tokenizers, seed: int, count: int, *, voice: str) -> Score:
    """Word errors of held-out sentences after the round trip, in the tokenizer's default style, beside the source's."""
    world = EmojiWorld(seed, "held_out", speak=partial(speak, voice=voice))
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
    beside = {"source": word_error_rate(said, source).rate}
    return Score(metric="word error rate", score=errors.rate, ci95=errors.ci95, n=count, beside=beside)


ROUND_TRIPS: Mapping[str, Callable[[Tokenizers, int, int], Score]] = {
    "pictures": pictures,
    "videos": videos,
    "speech_slt": partial(speech, voice="slt"),
    "speech_rms": partial(speech, voice="rms"),
    "speech_espeak": partial(speech, voice="en-us+f3"),
}
"""The report's rows; `rms` and the espeak variant are voices that no training has heard."""
