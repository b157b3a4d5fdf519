"""Codecs trained from settings alone: the shipped files are valid, tiny runs end, resume, and spare other codecs."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dynin.config import load
from dynin.data.emoji_world.splits import is_sentence_held_out
from dynin.data.emoji_world.voice import VOICES_TRAIN
from dynin.errors import CheckpointError, ConfigError
from dynin.tokenizers.small.image import SmallImageConfig, SmallImageTokenizer
from dynin.tokenizers.small.speech import SmallSpeechTokenizer, SpeechCodecConfig
from dynin.training import codec_run, codec_speech
from dynin.training.codec_image import ImageCodecTraining
from dynin.training.codec_run import (
    ImageCodecRun,
    SentencesConfig,
    SpeechCodecRun,
    run_image,
    run_speech,
    sentence_items,
    state_folder,
)
from dynin.training.codec_speech import SpeechTrainConfig, initialise, read_speech_codec
from dynin.training.codec_tiles import Artwork, TileChoice, emoji_artwork

CONFIGS = Path(__file__).resolve().parents[3] / "configs" / "train"
CPU = torch.device("cpu")
needs_flite = pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed: apt-get install flite")

TINY_SPEECH = SpeechCodecConfig(
    styles=("slt",), default_style="slt", levels=(4, 3), encoder_dim=16, encoder_layers=1, decoder_dim=16,
    decoder_layers=1, frame_dim=16, frame_layers=1, style_dim=4,
)  # fmt: skip


def ignore(*figures: object) -> None:
    """Stands in for a report."""


@pytest.fixture
def four_sprites(monkeypatch: pytest.MonkeyPatch) -> Artwork:
    artwork = emoji_artwork(("star", "red heart", "tree", "blue book"))
    monkeypatch.setattr(codec_run, "emoji_artwork", lambda: artwork)
    return artwork


def image_run(folder: Path) -> ImageCodecRun:
    training = ImageCodecTraining(
        choice=TileChoice(num_plain=12, num_objects=3), num_steps=4, batch_patches=16, save_every=2
    )
    return ImageCodecRun(output=folder / "image", sizes=SmallImageConfig(num_bits=6), training=training)


def speech_run(folder: Path, name: str = "speech") -> SpeechCodecRun:
    return SpeechCodecRun(
        output=folder / name,
        sentences=SentencesConfig(folder=folder / "corpus", world=4, general=2, target_share=1.0),
        sizes=TINY_SPEECH,
        training=SpeechTrainConfig(num_steps=4, batch_size=2, save_every=2, warmup_steps=1),
    )


def test_the_shipped_settings_are_valid_and_complete() -> None:
    image = load(CONFIGS / "codec-image.toml", ImageCodecRun)
    speech = load(CONFIGS / "codec-speech.toml", SpeechCodecRun)
    assert image.sizes.num_bits == 10
    assert speech.sizes.styles == VOICES_TRAIN
    assert speech.sizes.codebook_size == 1000


def test_the_corpus_of_the_codec_holds_nothing_held_out() -> None:
    config = replace(load(CONFIGS / "codec-speech.toml", SpeechCodecRun).sentences, world=150, general=50)
    items = sentence_items(config)
    assert len(items) == len({text for text, _ in items}) == 200
    assert not any(is_sentence_held_out(text) for text, _ in items)
    assert {voice for _, voice in items} <= set(VOICES_TRAIN)
    assert items == sentence_items(config)


def test_sentences_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least one sentence"):
        SentencesConfig(world=0, general=0)
    with pytest.raises(ConfigError, match="target_share"):
        SentencesConfig(target_share=1.5)


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        ("image", "training.num_steps=0", "'training.num_steps' is 0; expected at least 1"),
        ("image", "training.learning_rate=nan", "'training.learning_rate' is nan; expected at least 0"),
        ("image", "training.choice.world_share=1.5", "'training.choice.world_share' is 1.5; expected 0 to 1"),
        ("speech", "training.batch_size=0", "'training.batch_size' is 0; expected at least 1"),
        ("speech", "training.disturb=2", "'training.disturb' is 2.0; expected 0 to 1"),
    ],
)
def test_numbers_that_no_training_can_have_are_named(name: str, override: str, message: str) -> None:
    kind = ImageCodecRun if name == "image" else SpeechCodecRun
    with pytest.raises(ConfigError, match=message):
        load(CONFIGS / f"codec-{name}.toml", kind, [override])


@pytest.mark.usefixtures("four_sprites")
def test_an_image_codec_comes_from_settings_and_is_kept_by_a_second_run(tmp_path: Path) -> None:
    seen: list[int] = []
    run = image_run(tmp_path)
    first = run_image(run, device=CPU, report=lambda step, figures: seen.append(step))
    assert seen == [2, 4]
    assert SmallImageTokenizer.load(run.output).fingerprint() == first.fingerprint()
    again = run_image(run, device=CPU, report=lambda step, figures: seen.append(step))
    assert seen == [2, 4]
    assert again.fingerprint() == first.fingerprint()


@pytest.mark.usefixtures("four_sprites")
def test_a_codec_that_was_made_elsewhere_is_not_overwritten(tmp_path: Path) -> None:
    run = image_run(tmp_path)
    run_image(run, device=CPU, report=ignore)
    shutil.rmtree(state_folder(run.output))
    with pytest.raises(CheckpointError, match="holds a codec already"):
        run_image(run, device=CPU, report=ignore)


@pytest.mark.voices
@needs_flite
def test_a_speech_codec_comes_from_settings_and_goes_on_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoken: list[int] = []
    whole = run_speech(speech_run(tmp_path), device=CPU, report=ignore, report_spoken=spoken.append)
    assert spoken == [6]
    assert read_speech_codec(tmp_path / "speech").fingerprint() == whole.fingerprint()
    assert all(torch.equal(value, value.bfloat16().float()) for value in whole.state_dict().values())

    class PowerCutError(Exception):
        """Ends a run between two saves."""

    def cut(step: int, config: SpeechTrainConfig) -> float:
        if step == 3:
            raise PowerCutError
        return uncut(step, config)

    uncut = codec_speech.learning_rate
    parts = speech_run(tmp_path, "parts")
    with monkeypatch.context() as patch:
        patch.setattr(codec_speech, "learning_rate", cut)
        with pytest.raises(PowerCutError):
            run_speech(parts, device=CPU, report=ignore, report_spoken=spoken.append)
    assert not parts.output.exists()
    continued = run_speech(parts, device=CPU, report=ignore, report_spoken=spoken.append)
    assert continued.fingerprint() == whole.fingerprint()
    assert spoken == [6]


def test_first_weights_follow_from_the_seed_and_the_number_of_inputs() -> None:
    drawn = []
    for seed in (1, 1, 2):
        codec = SmallSpeechTokenizer(TINY_SPEECH)
        initialise(codec, torch.Generator().manual_seed(seed))
        drawn.append(codec)
    assert drawn[0].fingerprint() == drawn[1].fingerprint() != drawn[2].fingerprint()
    stem = drawn[0].decoder.linear.weight
    assert 0.9 < stem.abs().max() * stem[0].numel() ** 0.5 <= 1
