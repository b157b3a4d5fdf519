"""Waveforms at 16 kHz to normalised log-mel energies, 100 frames a second.

Enters: float32 waveforms of any loudness. Leaves: energies of 128 bands, with mean 0 and deviation 1 in every band over
the whole sound; several sounds padded to one length. Does not know networks or codes.

    samples --> peak 1 --> less 0.97 of the sample before --> power spectrum --> 128 bands --> log --> normalised
    T                                                        257 bins, T/160

Parity:
    Published: the window is symmetric, the bands are Slaney's, powers (not magnitudes) are summed. Each changes codes.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

RATE_HZ = 16000
HOP = 160
"""Samples between frames; 10 ms."""
WINDOW = 320
FFT_SIZE = 512
MEL_BINS = 128
FRAME_MULTIPLE = 16
"""Frames are padded to a multiple of this."""
FEWEST_SAMPLES = FFT_SIZE // 2 + 1
"""The spectrum of the first frame reflects this many samples; no deviation exists of fewer than two frames."""
_PRE_EMPHASIS = 0.97
_LOG_FLOOR = 2.0**-24
_EPS = 1e-5
_LINEAR_HZ_PER_MEL = 200 / 3
_BREAK_HZ = 1000.0
_BREAK_MEL = _BREAK_HZ / _LINEAR_HZ_PER_MEL
_LOG_STEP = math.log(6.4) / 27
"""Growth of the frequency per mel above the break."""


def num_frames(num_samples: int) -> int:
    """Frames that a sound fills, the last one perhaps in part."""
    return -(-num_samples // HOP)


@lru_cache(maxsize=1)
def hann_window() -> Float[Tensor, " W"]:
    """The window of a frame, which begins and ends with 0; do not write into it."""
    return torch.hann_window(WINDOW, periodic=False)


@lru_cache(maxsize=1)
def mel_filter_bank() -> Float[Tensor, "M F"]:
    """Triangles over the bins of a spectrum, each of area 1 over Hertz; do not write into it.

    Source:
        M. Slaney, Auditory Toolbox, 1998: linear below 1 kHz, logarithmic above.
    """
    top = _BREAK_MEL + math.log(RATE_HZ / 2 / _BREAK_HZ) / _LOG_STEP
    mels = torch.linspace(0, top, MEL_BINS + 2, dtype=torch.float64)
    above = _BREAK_HZ * torch.exp(_LOG_STEP * (mels - _BREAK_MEL))
    edges = torch.where(mels < _BREAK_MEL, mels * _LINEAR_HZ_PER_MEL, above)  # M + 2
    bins = torch.linspace(0, RATE_HZ / 2, FFT_SIZE // 2 + 1, dtype=torch.float64)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]  # M F
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    triangles = torch.minimum(rising, falling).clamp(min=0)
    return (triangles * (2 / (edges[2:] - edges[:-2]))[:, None]).float()


def features(samples: Float[Tensor, " T"]) -> Float[Tensor, "M K"]:
    """Normalised log-mel energies of the frames that a sound fills, on its device.

    Raises:
        ValueError: If there are fewer than `FEWEST_SAMPLES` samples.
    """
    if samples.shape[0] < FEWEST_SAMPLES:
        raise ValueError(f"{samples.shape[0]} samples have no spectrum; give at least {FEWEST_SAMPLES}")
    wave = samples.float() / (samples.abs().max().float() + _EPS)
    wave = torch.cat([wave[:1], wave[1:] - _PRE_EMPHASIS * wave[:-1]])
    window = hann_window().to(wave.device)
    spectrum = torch.stft(wave, FFT_SIZE, HOP, WINDOW, window, center=True, pad_mode="reflect", return_complex=True)
    mel = mel_filter_bank().to(wave.device) @ spectrum.abs().square()  # M 1+T/160
    energies = torch.log(mel + _LOG_FLOOR)[:, : num_frames(samples.shape[0])]
    deviation = energies.std(dim=1, keepdim=True)
    return (energies - energies.mean(dim=1, keepdim=True)) / (deviation + _EPS)


def pad(rows: Sequence[Float[Tensor, "M _"]]) -> tuple[Float[Tensor, "B M K"], Int[Tensor, " B"]]:
    """Features of several sounds with zeros behind the shorter ones, and the frames of each; K is a multiple of 16."""
    counts = [row.shape[1] for row in rows]
    longest = -(-max(counts) // FRAME_MULTIPLE) * FRAME_MULTIPLE
    padded = [F.pad(row, (0, longest - row.shape[1])) for row in rows]
    return torch.stack(padded), torch.tensor(counts, device=rows[0].device)
