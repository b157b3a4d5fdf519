"""Sound files to samples and back.

Enters: WAV, FLAC, MP3 or OGG as a file or bytes; sounds to write, resample or splice. Leaves: `Audio`, mono float32 in
[-1, 1] at the file's own rate (two channels are averaged, and kept beside their mean); files. Samples of 16 or 24 bits
and of 32-bit floats survive the way there and back exactly. Does not know codes, models, or which rate a tokenizer
wants.
"""

import io
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dynin.errors import MediaError
from dynin.media import containers, files


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioLimits:
    """What is refused, as early as the file allows."""

    max_s: float = 300.0
    """Longest sound in seconds."""
    min_rate_hz: int = 8000
    max_rate_hz: int = 48000
    max_channels: int = 2
    max_abs: float = 4.0
    """Lossy decoders overshoot full scale a little, and are clipped; beyond this the file is damaged."""
    min_sound_s: float = 0.1
    """Shortest sound in seconds that `require_sound` accepts."""
    silence_peak: float = 1e-3
    """A sound whose largest sample is below this (-60 dB) counts as silence."""


LIMITS = AudioLimits()
WRITE_SUFFIXES = {".wav": "WAV", ".flac": "FLAC", ".mp3": "MP3", ".ogg": "OGG"}

Depth = Literal["16", "24", "float"]
"""How finely a file without loss holds a sample: integers of so many bits, or 32-bit floats."""

_DEPTHS: dict[str, Depth] = {"PCM_24": "24", "PCM_32": "24", "FLOAT": "float", "DOUBLE": "float"}
"""The depth of a file's samples by libsndfile's name; all others fit into 16 bits or have lost more already."""
_FINER = ("PCM_32", "DOUBLE")
_SUBTYPES: dict[str, dict[Depth, str]] = {
    "WAV": {"16": "PCM_16", "24": "PCM_24", "float": "FLOAT"},
    "FLAC": {"16": "PCM_16", "24": "PCM_24", "float": "PCM_24"},
    "MP3": {"16": "MPEG_LAYER_III", "24": "MPEG_LAYER_III", "float": "MPEG_LAYER_III"},
    "OGG": {"16": "VORBIS", "24": "VORBIS", "float": "VORBIS"},
}
_MP3_RATES_HZ = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_BLOCK_SAMPLES = 1 << 16
_MP3_FRAME_SAMPLES = 1152


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Audio:
    """A mono sound; beside it the channels of the file it came from, if there were two."""

    samples: Float[Tensor, " T"]
    """Float32 in [-1, 1]."""
    rate_hz: int
    """Samples per second."""
    channels: Float[Tensor, "C T"] | None = None
    """What `samples` is the mean of; None where there was one channel. Written in its place."""
    depth: Depth = "16"
    """How finely the samples are written as WAV or FLAC."""

    def __post_init__(self) -> None:
        """MediaError for a shape or rate that is no mono sound."""
        if self.samples.ndim != 1 or not self.samples.is_floating_point() or self.rate_hz < 1:
            raise MediaError(
                f"a sound of shape {tuple(self.samples.shape)}, {self.samples.dtype}, at {self.rate_hz} Hz was given, "
                "expected one row of floating-point samples in [-1, 1] and a rate above 0 Hz; average the channels"
            )

    def __iter__(self) -> Iterator[Tensor | int]:
        """The samples, then the rate, so that `samples, rate_hz = value` reads well."""
        yield self.samples
        yield self.rate_hz

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.samples.shape[0] / self.rate_hz


def read(path: str | os.PathLike[str]) -> Audio:
    """Read a sound; see `decode`. MediaError also if the file is missing or empty."""
    with files.opened(path) as stream:
        return _decode_stream(stream, str(path))


def decode(data: bytes, name: str = "<bytes>") -> Audio:
    """The sound in `data`, its format told by its content, at its own rate; two channels are averaged.

    Silence is a sound here; `require_sound` refuses it where speech is needed.

    Args:
        name: What error messages call the sound.

    Raises:
        MediaError: If `data` is no sound in a known format, is damaged or cut short, holds samples that are not
            finite, or is over `LIMITS`.
    """
    return _decode_stream(io.BytesIO(data), name)


def _decode_stream(stream: io.BufferedIOBase, name: str) -> Audio:
    kind = containers.sniff(stream.read(containers.HEAD_BYTES))
    if kind not in containers.SOUNDS:
        received = f"is {kind}" if kind else "is in no known format"
        raise MediaError(f"{name}: {received}, expected a sound as {', '.join(containers.SOUNDS)}; convert it first")
    soundfile = files.import_optional("soundfile")
    with files.decoding_untrusted(name, f"a {kind} sound"):
        is_cut_short = not containers.is_complete(stream, kind)
        if is_cut_short and kind == "MP3":
            raise _cut_short(name, kind)  # before the decoder, which would print its own warnings
        with soundfile.SoundFile(stream) as sound:
            _check_header(sound, name)
            if is_cut_short:
                raise _cut_short(name, kind)
            samples = _read_blocks(sound, name)
            if len(samples) < sound.frames - (_MP3_FRAME_SAMPLES // 4 if kind == "MP3" else 0):
                raise _cut_short(name, kind)
            rate_hz, depth = int(sound.samplerate), _DEPTHS.get(sound.subtype, "16")
    channels = torch.from_numpy(_checked_samples(samples, name).T.copy())
    if len(channels) == 1:
        return Audio(samples=channels[0], rate_hz=rate_hz, depth=depth)
    return Audio(samples=channels.mean(dim=0), rate_hz=rate_hz, channels=channels, depth=depth)


def _cut_short(name: str, kind: str) -> MediaError:
    return MediaError(
        f"{name}: the {kind} file ends before its sound does, expected a complete file; save or download it again"
    )


def _check_header(sound: Any, name: str) -> None:
    """MediaError unless rate, channels and declared length are within `LIMITS`; reads no sample."""
    rate_hz, channels = int(sound.samplerate), int(sound.channels)
    if not LIMITS.min_rate_hz <= rate_hz <= LIMITS.max_rate_hz:
        raise MediaError(
            f"{name}: {rate_hz} samples a second, expected {LIMITS.min_rate_hz} to {LIMITS.max_rate_hz}; resample it"
        )
    if channels > LIMITS.max_channels:
        raise MediaError(
            f"{name}: {channels} channels, expected 1 or {LIMITS.max_channels}; mix them down to one first"
        )
    if sound.frames == 0:
        raise MediaError(f"{name}: holds no samples, expected a sound; record or save it again")
    if sound.frames > LIMITS.max_s * rate_hz:
        raise _too_long(name, f"{sound.frames / rate_hz:.0f} seconds of sound")


def _too_long(name: str, received: str) -> MediaError:
    return MediaError(f"{name}: {received}, expected at most {LIMITS.max_s:.0f} seconds; cut it into parts")


def _read_blocks(sound: Any, name: str) -> np.ndarray:
    """All samples, time by channel; stops at the limit even where the header promised less."""
    budget = int(LIMITS.max_s * sound.samplerate)
    blocks = []
    num_samples = 0
    while True:
        block = sound.read(_BLOCK_SAMPLES, dtype="float32", always_2d=True)
        num_samples += len(block)
        if num_samples > budget:
            raise _too_long(name, f"more than {LIMITS.max_s:.0f} seconds of sound")
        if len(block) == 0:
            break
        blocks.append(block)
    if num_samples == 0:
        raise MediaError(f"{name}: holds no samples, expected a sound; record or save it again")
    return np.concatenate(blocks)


def _checked_samples(samples: np.ndarray, name: str) -> np.ndarray:
    if not np.isfinite(samples).all():
        raise MediaError(f"{name}: holds samples that are not finite, expected values in [-1, 1]; save it again")
    peak = float(np.abs(samples).max())
    if peak > LIMITS.max_abs:
        raise MediaError(f"{name}: samples reach {peak:.3g}, expected values in [-1, 1]; scale it down")
    return np.clip(samples, -1, 1)


def check_exact(path: str | os.PathLike[str]) -> None:
    """MediaError if a file holds samples more finely than float32 does, so that reading rounds them."""
    with files.opened(path) as stream:
        if containers.sniff(stream.read(containers.HEAD_BYTES)) not in ("WAV", "FLAC"):
            return
        stream.seek(0)
        soundfile = files.import_optional("soundfile")
        with files.decoding_untrusted(str(path), "a sound"), soundfile.SoundFile(stream) as sound:
            subtype = str(sound.subtype)
    if subtype in _FINER:
        raise MediaError(
            f"{path}: samples are stored as {subtype}, expected at most 24 bits or 32-bit floats, which can be kept "
            "bit for bit; convert it first"
        )


def require_sound(audio: Audio, name: str = "the sound") -> Audio:
    """The same sound, if there is something to hear in it.

    Raises:
        MediaError: If it is shorter than `LIMITS.min_sound_s` or nowhere louder than `LIMITS.silence_peak`.
    """
    if audio.duration_s < LIMITS.min_sound_s:
        raise MediaError(
            f"{name}: lasts {audio.duration_s:.3f} seconds, expected at least {LIMITS.min_sound_s}; record more"
        )
    if float(audio.samples.abs().max()) < LIMITS.silence_peak:
        raise MediaError(f"{name}: is silent, expected speech; check the microphone or the file")
    return audio


def write(path: str | os.PathLike[str], audio: Audio) -> None:
    """Write a sound as WAV or FLAC (without loss), MP3 or OGG (Vorbis), by suffix; whole or not at all.

    Samples outside [-1, 1] are clipped. FLAC holds integers only, so floats are rounded to 24 bits there.

    Raises:
        MediaError: If the suffix is none of these, a sample is not finite, there is no sample, the format does not
            know the rate, or the file cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in WRITE_SUFFIXES:
        raise MediaError(
            f"{path}: unknown suffix {suffix!r} for a sound, expected one of {' '.join(WRITE_SUFFIXES)}; rename it"
        )
    kind = WRITE_SUFFIXES[suffix]
    if kind == "MP3" and audio.rate_hz not in _MP3_RATES_HZ:
        raise MediaError(
            f"{path}: MP3 cannot hold {audio.rate_hz} samples a second, expected one of "
            f"{' '.join(map(str, _MP3_RATES_HZ))}; pass the sound through media.audio.resample"
        )
    if audio.samples.shape[0] == 0:
        raise MediaError(f"{path}: the sound to write holds no samples, expected at least one; check how it was made")
    subtype = _SUBTYPES[kind][audio.depth]
    levels = _frames(audio, subtype)
    soundfile = files.import_optional("soundfile")
    encoded = io.BytesIO()
    form = {"format": kind, "subtype": subtype, "samplerate": audio.rate_hz, "channels": levels.shape[1]}
    with soundfile.SoundFile(encoded, "w", **form) as sound:
        for start in range(0, len(levels), _BLOCK_SAMPLES):  # the Vorbis encoder overflows its stack on long blocks
            sound.write(levels[start : start + _BLOCK_SAMPLES])
    with files.replace_whole(path) as temporary:
        temporary.write_bytes(encoded.getvalue())


def _frames(audio: Audio, subtype: str) -> np.ndarray:
    """What a file holds, time by channel: floats, or integers that fill 32 bits from above, or 16-bit ones."""
    values = audio.samples[None] if audio.channels is None else audio.channels
    if subtype == "FLOAT":
        _require_finite(values)
        return values.detach().float().clamp(-1, 1).cpu().numpy().T
    if subtype == "PCM_24":
        _require_finite(values)
        levels = (values.detach().double() * 2**23).round().clamp(-(2**23), 2**23 - 1)
        return (levels.to(torch.int32) * 256).cpu().numpy().T
    return np.stack([to_levels(row) for row in values], axis=1)


def _require_finite(samples: Tensor) -> None:
    if not bool(torch.isfinite(samples).all()):
        raise MediaError("the sound holds samples that are not finite, expected values in [-1, 1]; check its source")


def to_levels(samples: Float[Tensor, " T"]) -> np.ndarray:
    """Samples in [-1, 1] to int16, clipped; MediaError if one is not finite."""
    _require_finite(samples)
    levels = (samples.detach().float() * 32768).round().clamp(-32768, 32767)
    return levels.to(torch.int16).cpu().numpy()


def from_levels(levels: np.ndarray) -> Float[Tensor, " T"]:
    """Int16 levels to samples in [-1, 1)."""
    return torch.from_numpy(np.array(levels)).float() / 32768


def resample(audio: Audio, rate_hz: int) -> Audio:
    """The same sound at another rate (band-limited, high quality), its duration kept to half a sample.

    Raises:
        MediaError: If the rate is not positive, or the resampling package is missing.
    """
    if rate_hz < 1:
        raise MediaError(f"the rate {rate_hz} Hz was asked for, expected one above 0; correct it")
    if rate_hz == audio.rate_hz:
        return audio
    soxr = files.import_optional("soxr")
    samples = soxr.resample(audio.samples.detach().float().cpu().numpy(), audio.rate_hz, rate_hz, quality="HQ")
    return Audio(samples=torch.from_numpy(samples).clamp(-1, 1), rate_hz=rate_hz)


def splice(original: Audio, replacement: Audio, start_s: float, stop_s: float, margin_s: float) -> Audio:
    """Put a stretch of `replacement` into `original`; both run on the same clock, from 0 s.

    From `start_s` to `stop_s` the result is `replacement`, farther than the margin it is `original`, both bit for bit;
    in the margins the two are cross-faded linearly. Length, depth and channels stay those of `original`, whose channels
    all get the same stretch; a margin is cut short where either sound ends.

    Raises:
        MediaError: If the rates differ, the stretch is empty or not within both sounds, or the margin is negative.
    """
    if original.rate_hz != replacement.rate_hz:
        raise MediaError(
            f"the replacement is at {replacement.rate_hz} Hz, expected the original's {original.rate_hz} Hz; "
            "pass it through media.audio.resample"
        )
    times = (start_s, stop_s, margin_s)
    num_common = min(original.samples.shape[0], replacement.samples.shape[0])
    start, stop, margin = (round(time * original.rate_hz) if math.isfinite(time) else -1 for time in times)
    if not 0 <= start < stop <= num_common or margin < 0:
        raise MediaError(
            f"the stretch {start_s} s to {stop_s} s with margin {margin_s} s was given, expected a part of the "
            f"{num_common / original.rate_hz:.3f} s that both sounds last and a margin of 0 or more; correct it"
        )
    first, last = max(0, start - margin), min(num_common, stop + margin)
    whole = original.samples[None] if original.channels is None else original.channels
    old = whole[:, first:last]
    new = replacement.samples[first:last].to(old.dtype)
    at = torch.arange(first, last, dtype=torch.float32)
    outside = torch.maximum(start - at, at - (stop - 1)).clamp(min=0)
    weight = (1 - outside / (margin + 1)).to(old.device)
    spliced = whole.clone()
    spliced[:, first:last] = torch.where(weight == 1, new, old + weight * (new - old))
    if original.channels is None:
        return replace(original, samples=spliced[0])
    return replace(original, samples=spliced.mean(dim=0), channels=spliced)
