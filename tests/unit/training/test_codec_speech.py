"""Training of the speech codec on a few noisy tones: the loss falls, runs resume, weights survive bfloat16."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dynin.data.speech_corpus import SpeechCorpus
from dynin.errors import CheckpointError, ConfigError
from dynin.tokenizers.small.speech import SmallSpeechTokenizer, SpeechCodecConfig
from dynin.training.codec_speech import (
    SpeechTrainConfig,
    disturb,
    learning_rate,
    read_speech_codec,
    speech_batches,
    train_speech_codec,
    write_speech_codec,
)

TINY = SpeechCodecConfig(
    styles=("slt", "awb"), default_style="slt", levels=(4, 3), encoder_dim=16, encoder_layers=1, decoder_dim=16,
    decoder_layers=1, frame_dim=16, frame_layers=1, style_dim=4,
)  # fmt: skip


@pytest.fixture
def corpus() -> SpeechCorpus:
    rng = np.random.default_rng(0)
    lengths = [1900, 2600, 2500, 1700]
    waves = [np.sin(np.arange(n) * (0.1 + 0.05 * i)) * 9000 + rng.normal(0, 500, n) for i, n in enumerate(lengths)]
    return SpeechCorpus(
        texts=("a", "b", "c", "d"),
        voices=("slt", "awb", "slt", "awb"),
        phones=("d ao g", "k", "", "s"),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        samples=np.concatenate(waves).astype(np.int16),
    )


def _codec() -> SmallSpeechTokenizer:
    torch.manual_seed(0)
    return SmallSpeechTokenizer(TINY)


def _train(folder: Path, corpus: SpeechCorpus, num_steps: int) -> tuple[SmallSpeechTokenizer, dict[int, float]]:
    codec, seen = _codec(), {}
    config = SpeechTrainConfig(num_steps=num_steps, batch_size=2, warmup_steps=5, peak_rate=5e-3, save_every=50)
    train_speech_codec(
        codec, corpus, config, folder=folder, seed=0, report=lambda step, errors: seen.update({step: errors["linear"]})
    )
    return codec, seen


def test_the_error_falls_and_an_ended_run_goes_on(tmp_path: Path, corpus: SpeechCorpus) -> None:
    _, first = _train(tmp_path, corpus, 50)
    codec, second = _train(tmp_path, corpus, 100)
    assert list(first) == [50]
    assert list(second) == [100]
    assert second[100] < 0.8 * first[50]
    again = read_speech_codec(tmp_path)
    assert again.fingerprint() == codec.fingerprint()


def test_weights_survive_bfloat16(tmp_path: Path) -> None:
    codec = _codec()
    write_speech_codec(tmp_path, codec, torch.bfloat16)
    again = read_speech_codec(tmp_path)
    for name, value in codec.state_dict().items():
        assert torch.equal(again.state_dict()[name], value.bfloat16().float())


@pytest.mark.parametrize("damage", ["missing", "cut", "foreign"])
def test_a_damaged_folder_is_an_error(tmp_path: Path, damage: str) -> None:
    if damage != "missing":
        write_speech_codec(tmp_path, _codec())
        weights = tmp_path / "speech.safetensors"
        weights.write_bytes(weights.read_bytes()[:100] if damage == "cut" else b"no weights")
    with pytest.raises(CheckpointError, match="holds no speech codec"):
        read_speech_codec(tmp_path)


def test_a_voice_without_a_style_is_refused(corpus: SpeechCorpus) -> None:
    codec = SmallSpeechTokenizer(SpeechCodecConfig(styles=("slt",), default_style="slt", levels=(4, 3)))
    with pytest.raises(ConfigError, match="awb"):
        next(speech_batches(corpus, codec, 2, np.random.default_rng(0)))


def test_a_disturbance_keeps_the_shape_and_changes_the_sound() -> None:
    mel = torch.randn(2, 80, 40)
    for seed in range(20):
        changed = disturb(mel, 1.0, np.random.default_rng(seed))
        assert changed.shape == mel.shape
        assert bool(torch.isfinite(changed).all())
    assert not torch.equal(disturb(mel, 1.0, np.random.default_rng(0)), mel)


def test_the_learning_rate_rises_then_falls() -> None:
    config = SpeechTrainConfig(num_steps=1000, warmup_steps=100)
    rates = [learning_rate(step, config) for step in range(1001)]
    assert rates.index(max(rates)) in (99, 100)
    assert rates[1000] == pytest.approx(config.final_rate)
