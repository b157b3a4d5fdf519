"""Waveforms to magnitudes and log-mel energies, and magnitudes back to a waveform.

Enters: float32 waveforms in [-1, 1]. Leaves: magnitudes, log-mel energies, waveforms. Does not know codes, networks or
files. Frame k is centred on sample k * hop; a waveform of n hops has n frames.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class SpectrumConfig:
    """Rates and sizes of the short-time Fourier transform."""

    rate_hz: int = 16000
    fft_size: int = 640
    hop: int = 160
    """Samples between frames; 10 ms at 16 kHz."""
    mel_bins: int = 80
    mel_low_hz: float = 60.0
    mel_high_hz: float = 7800.0
    floor: float = 1e-2
    """Added to a magnitude or mel energy before the logarithm."""

    @property
    def num_bins(self) -> int:
        """Linear frequency bins of a frame."""
        return self.fft_size // 2 + 1


def mel_filter_bank(config: SpectrumConfig) -> Float[Tensor, "M F"]:
    """Triangular filters on the mel scale m = 2595 log10(1 + f / 700), each summing to about 1.

    Source: the formula of O'Shaughnessy, Speech Communication (1987), as used by HTK.
    """

    def to_mel(hertz: float) -> float:
        return 2595.0 * math.log10(1.0 + hertz / 700.0)

    points = torch.linspace(
        to_mel(config.mel_low_hz), to_mel(config.mel_high_hz), config.mel_bins + 2, dtype=torch.float64
    )
    edges = 700.0 * (10.0 ** (points / 2595.0) - 1.0)  # M + 2
    bins = torch.linspace(0, config.rate_hz / 2, config.num_bins, dtype=torch.float64)  # F
    rising = (bins[None] - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins[None]) / (edges[2:] - edges[1:-1])[:, None]
    filters = torch.minimum(rising, falling).clamp(min=0)
    return (filters / filters.sum(dim=1, keepdim=True).clamp(min=1e-3)).float()


def magnitudes(waves: Float[Tensor, "B T"], config: SpectrumConfig) -> Float[Tensor, "B F K"]:
    """Magnitudes of the short-time Fourier transform; T must be a multiple of the hop, K = T / hop frames."""
    return _transform(waves, config)[:, :, : waves.shape[1] // config.hop].abs()


def log_mel(magnitude: Float[Tensor, "B F K"], filters: Float[Tensor, "M F"], floor: float) -> Float[Tensor, "B M K"]:
    """Natural logarithm of mel-filtered magnitudes plus a floor."""
    return torch.log(torch.matmul(filters, magnitude) + floor)


def griffin_lim(
    magnitude: Float[Tensor, "B F K"],
    config: SpectrumConfig,
    *,
    generator: torch.Generator,
    num_iterations: int = 48,
    momentum: float = 0.99,
) -> Float[Tensor, "B T"]:
    """A waveform of K hops whose spectrogram has about these magnitudes.

    Phases start random from the generator and are refined with momentum.

    Source: Perraudin, Balazs and Sondergaard, "A fast Griffin-Lim algorithm", WASPAA 2013.
    """
    num_samples = magnitude.shape[2] * config.hop
    phase = torch.rand(magnitude.shape, generator=generator, device=generator.device).to(magnitude.device)
    target = torch.cat([magnitude, magnitude[:, :, -1:]], dim=2)  # B F K+1, as a centred transform of K hops has
    phase = torch.cat([phase, phase[:, :, -1:]], dim=2)
    spectrum = torch.polar(target, 2 * math.pi * phase)
    previous = torch.zeros_like(spectrum)
    for _ in range(num_iterations):
        rebuilt = _transform(_invert(spectrum, config, num_samples), config)
        ahead = rebuilt + momentum * (rebuilt - previous)
        previous = rebuilt
        spectrum = target * ahead / ahead.abs().clamp(min=1e-8)
    return _invert(spectrum, config, num_samples)


def _transform(waves: Tensor, config: SpectrumConfig) -> Tensor:
    window = torch.hann_window(config.fft_size, device=waves.device)
    return torch.stft(
        waves, config.fft_size, config.hop, window=window, center=True, pad_mode="constant", return_complex=True
    )


def _invert(spectrum: Tensor, config: SpectrumConfig, num_samples: int) -> Tensor:
    window = torch.hann_window(config.fft_size, device=spectrum.device)
    return torch.istft(spectrum, config.fft_size, config.hop, window=window, center=True, length=num_samples)
