"""Train a codec from settings alone: its data, its network, and the folder it ends up in.

Enters: an `ImageCodecRun` or a `SpeechCodecRun`. Leaves: a trained codec in `output`, which appears when it is done;
beside it, in `<output>-training`, the state that an interrupted training goes on from. Does not know losses.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from dynin.data.emoji_world.voice import VOICE_TARGET, VOICES_TRAIN
from dynin.data.pretokenize_speech import TARGET_SHARE, assign_voices
from dynin.data.speech_corpus import SpeechCorpus
from dynin.data.spoken_parts import Items, general_sentences, speak_in_parts, world_sentences
from dynin.errors import CheckpointError, ConfigError
from dynin.tokenizers.small.image import SmallImageConfig, SmallImageTokenizer
from dynin.tokenizers.small.speech import SmallSpeechTokenizer, SpeechCodecConfig
from dynin.training.codec_image import ImageCodecTraining, train_image_codec
from dynin.training.codec_speech import (
    SpeechTrainConfig,
    initialise,
    read_speech_codec,
    train_speech_codec,
    write_speech_codec,
)
from dynin.training.codec_tiles import emoji_artwork

StepReport = Callable[[int, dict[str, float]], None]
"""Called with the step and mean errors."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageCodecRun:
    """One training of the embedded image tokenizer."""

    output: Path = Path("runs/codecs/image")
    sizes: SmallImageConfig = SmallImageConfig()
    training: ImageCodecTraining = ImageCodecTraining()


@dataclass(frozen=True, kw_only=True, slots=True)
class SentencesConfig:
    """What the speech codec hears: sentences of Emoji World (train split) and plain English, in training voices."""

    folder: Path = Path("runs/speech/corpus")
    """Where spoken sentences are kept; made when they are missing."""
    world: int = 9400
    """Sentences of Emoji World."""
    general: int = 600
    """Sentences outside the world, so that the codec hears more than the world's words."""
    target_share: float = TARGET_SHARE
    """Share of the sentences that the target voice speaks."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the counts and the share."""
        if self.world < 0 or self.general < 0 or self.world + self.general < 1:
            raise ConfigError(f"settings 'world' {self.world} and 'general' {self.general}: give at least one sentence")
        if not 0 <= self.target_share <= 1:
            raise ConfigError(f"setting 'target_share' is {self.target_share}; give a number from 0 to 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class SpeechCodecRun:
    """One training of the embedded speech tokenizer."""

    output: Path = Path("runs/codecs/speech")
    seed: int = 0
    """Of the first weights, the batches and the disturbances."""
    sentences: SentencesConfig = SentencesConfig()
    sizes: SpeechCodecConfig = field(
        default_factory=lambda: SpeechCodecConfig(styles=VOICES_TRAIN, default_style=VOICE_TARGET)
    )
    training: SpeechTrainConfig = SpeechTrainConfig()


def state_folder(output: Path) -> Path:
    """Where an unfinished training of a codec keeps its state."""
    return output.with_name(output.name + "-training")


def run_image(config: ImageCodecRun, *, device: torch.device, report: StepReport) -> SmallImageTokenizer:
    """Train or resume the image tokenizer.

    Raises:
        CheckpointError: If `output` holds a codec that this training did not make, or the state is of other settings.
    """
    work = _claim(config.output, "image.safetensors")
    codec = train_image_codec(
        emoji_artwork(), work, sizes=config.sizes, config=config.training, device=str(device), report=report
    ).cpu()
    codec.save(config.output)
    return codec


def run_speech(
    config: SpeechCodecRun, *, device: torch.device, report: StepReport, report_spoken: Callable[[int], None]
) -> SmallSpeechTokenizer:
    """Speak what is missing of the corpus, then train or resume the speech tokenizer; weights end up in bfloat16.

    Args:
        report_spoken: Called with the number of sentences there are.

    Raises:
        CheckpointError: If `output` holds a codec that this training did not make, or the state does not fit.
        ConfigError: If a voice of the corpus is no style of the codec.
        RequestError: If flite or espeak-ng is not installed.
    """
    work = _claim(config.output, "speech.safetensors")
    corpus = spoken_corpus(config.sentences, report_spoken)
    codec = SmallSpeechTokenizer(config.sizes)
    initialise(codec, torch.Generator().manual_seed(config.seed))
    train_speech_codec(codec.to(device), corpus, config.training, folder=work, seed=config.seed, report=report)
    write_speech_codec(config.output, codec, torch.bfloat16)
    return read_speech_codec(config.output)


def spoken_corpus(config: SentencesConfig, report: Callable[[int], None] = lambda done: None) -> SpeechCorpus:
    """The corpus of the speech codec, with phones; nothing held out is in it, neither sentences nor voices."""
    return speak_in_parts(sentence_items(config), config.folder, with_phones=True, report=report)


def sentence_items(config: SentencesConfig) -> Items:
    """Every sentence of the corpus with its voice; equal settings give equal items."""
    texts = world_sentences(config.world, seed=config.seed, split="train")
    texts += general_sentences(config.general, seed=config.seed)
    return assign_voices(texts, np.random.default_rng(config.seed), config.target_share)


def _claim(output: Path, weights: str) -> Path:
    """The folder of the state; CheckpointError if a codec of another training would be lost."""
    work = state_folder(output)
    if (output / weights).exists() and not work.exists():
        raise CheckpointError(
            f"{output} holds a codec already, and {work} no training of it; remove it, or set another output"
        )
    return work
