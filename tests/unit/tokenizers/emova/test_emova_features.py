"""The mel front end of the published speech tokenizer: lengths, window, bands, normalisation."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from dynin.tokenizers.emova.features import features, hann_window, mel_filter_bank, num_frames, pad


@pytest.mark.parametrize(
    ("num_samples", "num_valid", "num_padded"), [(16000, 100, 112), (16001, 101, 112), (80000, 500, 512), (1, 1, 16)]
)
def test_a_frame_stands_for_10_ms_and_frames_fill_a_multiple_of_16(num_samples, num_valid, num_padded, noise):
    assert num_frames(num_samples) == num_valid
    if num_samples > 256:
        padded, count = pad([features(noise(num_samples))])
        assert padded.shape == (1, 128, num_padded)
        assert count.tolist() == [num_valid]
        assert not padded[..., num_valid:].any()


def test_a_number_of_frames_that_fits_is_not_padded(noise):
    padded, _ = pad([features(noise(16000 * 112 // 100))])
    assert padded.shape[2] == 112


def test_shorter_sounds_are_padded_to_the_longest(noise):
    rows = [features(noise(5000)), features(noise(20000))]
    padded, count = pad(rows)
    assert padded.shape == (2, 128, 128)
    assert count.tolist() == [32, 125]
    assert torch.equal(padded[0, :, :32], rows[0])
    assert not padded[0, :, 32:].any()


def test_every_band_has_mean_0_and_deviation_1(noise):
    energies = features(noise(16000) * 3e-3)
    assert_close(energies.mean(dim=1), torch.zeros(128), rtol=0, atol=1e-5)
    assert_close(energies.std(dim=1, unbiased=True), torch.ones(128), rtol=0, atol=1e-4)


def test_loudness_hardly_matters_and_silence_is_safe(noise):
    wave = noise(8000)
    assert_close(features(wave * 0.5), features(wave), rtol=0, atol=5e-3)
    assert bool(features(torch.zeros(8000)).isfinite().all())


def test_fewer_samples_than_a_spectrum_reflects_are_refused():
    with pytest.raises(ValueError, match="256 samples.*at least 257"):
        features(torch.ones(256))


def test_the_window_is_symmetric():
    window = hann_window()
    assert window.shape == (320,)
    assert torch.equal(window, window.flip(0)) or float((window - window.flip(0)).abs().max()) < 1e-6
    assert abs(float(window[0])) + abs(float(window[-1])) < 1e-7
    assert_close(window, torch.from_numpy(np.hanning(320)).float(), rtol=0, atol=1e-6)


def test_the_bands_are_those_of_slaney():
    audio_utils = pytest.importorskip("transformers.audio_utils")
    expected = audio_utils.mel_filter_bank(257, 128, 0.0, 8000.0, 16000, norm="slaney", mel_scale="slaney")
    assert_close(mel_filter_bank(), torch.from_numpy(expected.T).float(), rtol=1e-4, atol=1e-8)


def test_features_equal_a_transform_written_out_frame_by_frame(noise):
    wave = noise(4000)
    x = wave.double().numpy()
    x = x / (np.abs(x).max() + 1e-5)
    x = np.append(x[0], x[1:] - 0.97 * x[:-1])
    x = np.pad(x, 256, mode="reflect")
    window = np.zeros(512)
    window[96:416] = np.hanning(320)
    frames = np.stack([np.abs(np.fft.rfft(x[160 * k : 160 * k + 512] * window)) ** 2 for k in range(25)], axis=1)
    energies = np.log(mel_filter_bank().double().numpy() @ frames + 2.0**-24)
    expected = (energies - energies.mean(1, keepdims=True)) / (energies.std(1, ddof=1, keepdims=True) + 1e-5)
    assert_close(features(wave), torch.from_numpy(expected).float(), rtol=0, atol=2e-3)


def test_looking_at_the_tables_twice_gives_the_same_ones():
    assert mel_filter_bank() is mel_filter_bank()
    assert hann_window() is hann_window()
