"""The embedded speech tokenizer with tiny random weights."""

import dataclasses
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynin.errors import ConfigError, MediaError, RequestError, VocabularyError
from dynin.media.audio import Audio
from dynin.tokenizers.protocol import SpeechTokenizer
from dynin.tokenizers.small.spectrum import SpectrumConfig, griffin_lim, magnitudes, mel_filter_bank
from dynin.tokenizers.small.speech import FiniteScalarQuantizer, SmallSpeechTokenizer, SpeechCodecConfig

TINY = SpeechCodecConfig(
    styles=("slt", "awb"),
    default_style="slt",
    levels=(4, 3),
    encoder_dim=16,
    encoder_layers=1,
    decoder_dim=16,
    decoder_layers=1,
    frame_dim=16,
    frame_layers=1,
    style_dim=4,
)


@pytest.fixture(scope="module")
def codec() -> SmallSpeechTokenizer:
    torch.manual_seed(0)
    return SmallSpeechTokenizer(TINY).eval()


def _noise(num_samples: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(num_samples, generator=torch.Generator().manual_seed(seed)) * 0.4 - 0.2


def test_the_codec_meets_the_protocol(codec: SmallSpeechTokenizer) -> None:
    assert isinstance(codec, SpeechTokenizer)
    assert codec.codebook_size == 12
    assert codec.frame_rate_hz == 25


@pytest.mark.parametrize(("num_samples", "num_codes"), [(1, 1), (640, 1), (641, 2), (16000, 25), (16001, 26)])
def test_one_code_stands_for_40_ms(codec: SmallSpeechTokenizer, num_samples: int, num_codes: int) -> None:
    codes = codec.encode(Audio(samples=_noise(num_samples), rate_hz=16000))
    assert codes.shape == (num_codes,)
    assert 0 <= int(codes.min()) <= int(codes.max()) < 12


def test_a_batch_gives_every_sound_the_codes_it_gets_alone(codec: SmallSpeechTokenizer) -> None:
    waves = [_noise(5000, 1), _noise(16000, 2), _noise(640, 3), torch.zeros(2000)]
    together = codec.encode_batch(waves)
    for wave, codes in zip(waves, together, strict=True):
        assert torch.equal(codec.encode_batch([wave])[0], codes)


def test_loudness_does_not_change_the_codes(codec: SmallSpeechTokenizer) -> None:
    wave = _noise(8000)
    loud, quiet = codec.encode_batch([wave])[0], codec.encode_batch([wave * 0.1])[0]
    assert torch.equal(loud, quiet)


def test_decoding_is_repeatable_and_as_long_as_its_codes(codec: SmallSpeechTokenizer) -> None:
    codes = torch.tensor([3, 1, 11, 0, 5])
    first, second = codec.decode(codes), codec.decode(codes)
    assert torch.equal(first.samples, second.samples)
    assert first.samples.shape == (5 * 640,)
    assert first.rate_hz == 16000
    assert float(first.samples.abs().max()) <= 1


def test_styles_differ_and_unknown_ones_are_refused(codec: SmallSpeechTokenizer) -> None:
    codes = torch.tensor([3, 1, 11, 0, 5])
    assert not torch.equal(codec.decode(codes, "awb").samples, codec.decode(codes, "slt").samples)
    with pytest.raises(RequestError, match="slt, awb"):
        codec.decode(codes, "nobody")


@pytest.mark.parametrize("codes", [torch.tensor([12]), torch.tensor([-1]), torch.zeros(0, dtype=torch.long)])
def test_codes_outside_the_codebook_are_refused(codec: SmallSpeechTokenizer, codes: torch.Tensor) -> None:
    with pytest.raises(VocabularyError, match="0 to 11"):
        codec.decode(codes)


def test_another_rate_or_no_sound_is_refused(codec: SmallSpeechTokenizer) -> None:
    with pytest.raises(MediaError, match="resample"):
        codec.encode(Audio(samples=_noise(800), rate_hz=8000))
    with pytest.raises(MediaError, match="without samples"):
        codec.encode(Audio(samples=torch.zeros(0), rate_hz=16000))


def test_the_fingerprint_follows_weights_and_configuration(codec: SmallSpeechTokenizer) -> None:
    twin = SmallSpeechTokenizer(TINY)
    twin.load_state_dict(codec.state_dict())
    assert twin.fingerprint() == codec.fingerprint()
    with torch.no_grad():
        twin.decoder.linear.bias[0] += 1
    assert twin.fingerprint() != codec.fingerprint()


def test_a_configuration_survives_json() -> None:
    assert SpeechCodecConfig.from_dict(json.loads(json.dumps(dataclasses.asdict(TINY)))) == TINY


@pytest.mark.parametrize("change", [{"styles": None}, {"colour": 1}, {"levels": [1]}, {"default_style": "x"}])
def test_a_wrong_configuration_is_refused(change: dict[str, object]) -> None:
    values = json.loads(json.dumps(dataclasses.asdict(TINY))) | change
    with pytest.raises(ConfigError):
        SpeechCodecConfig.from_dict(values)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(2, 9), min_size=1, max_size=4))
def test_every_code_survives_the_quantizer(levels: list[int]) -> None:
    quantizer = FiniteScalarQuantizer(tuple(levels))
    codes = torch.arange(quantizer.codebook_size)[None]
    values = quantizer.to_values(codes)
    assert torch.equal(quantizer.to_codes(values), codes)
    assert values.min() == -1
    assert values.max() == 1


def test_gradients_pass_the_quantizer() -> None:
    latents = torch.randn(1, 2, 5, requires_grad=True)
    FiniteScalarQuantizer((4, 3))(latents).sum().backward()
    assert latents.grad is not None
    assert bool((latents.grad > 0).all())


def test_mel_filters_cover_the_band_and_sum_to_one() -> None:
    filters = mel_filter_bank(SpectrumConfig(mel_bins=40))
    assert filters.shape == (40, 321)
    assert torch.allclose(filters.sum(dim=1), torch.ones(40), atol=1e-4)
    assert bool((filters.argmax(dim=1).diff() >= 0).all())


def test_griffin_lim_finds_a_wave_with_the_magnitudes_of_a_tone() -> None:
    config = SpectrumConfig()
    tone = torch.sin(2 * torch.pi * 440 * torch.arange(8000) / 16000)[None] * 0.3
    target = magnitudes(tone, config)
    rebuilt = griffin_lim(target, config, generator=torch.Generator().manual_seed(0))
    error = (magnitudes(rebuilt, config) - target).norm() / target.norm()
    assert rebuilt.shape == tone.shape
    assert float(error) < 0.2
