"""Voices: a sentence to a sound, by running speech programs.

Enters: a sentence and the name of a voice. Leaves: `Audio`, mono, 16 kHz, silence at both ends cut to 40 ms.
Does not know scenes or tasks. flite and espeak-ng are run as programs, never linked; the same sentence and voice always
give the same samples. One voice of each program is held out: no training of any kind may hear it.
"""

import io
import shutil
import subprocess
import wave
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dynin.errors import MediaError, RequestError
from dynin.media.audio import Audio, resample

RATE_HZ = 16000
"""Rate of every sound this module returns."""
EDGE_MS = 40
"""Silence left before the first and after the last audible window."""
WINDOW_MS = 10
"""Length of the windows whose loudness decides what is silence."""
SILENCE_DB = -38.0
"""A window this far below the loudest one is silence."""
TIMEOUT_S = 60
"""Longest time a speech program may take for one sentence."""
TEXT_LIMIT = 1000
"""Longest sentence in characters."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Voice:
    """One voice of one program."""

    name: str
    program: str
    """`flite` or `espeak-ng`."""


VOICES = {
    voice.name: voice
    for voice in (
        *(Voice(name=name, program="flite") for name in ("slt", "awb", "kal16", "rms")),
        *(
            Voice(name=name, program="espeak-ng")
            for name in (
                "en-us",
                "en-us+f2",
                "en-us+m3",
                "en-us+f5",
                "en-us+m7",
                "en-gb",
                "en-gb+f4",
                "en-us+f3",
                "en-gb+m5",
            )
        ),
    )
}
VOICE_TARGET = "slt"
"""The voice of everything the model says."""
VOICES_HELD_OUT = ("rms", "en-us+f3", "en-gb+m5")
"""Voices that no training may hear, the codec's included."""
VOICES_TRAIN = tuple(name for name in VOICES if name not in VOICES_HELD_OUT)
"""Voices for training; the first is the target voice."""
PACKAGES = {"flite": "flite", "espeak-ng": "espeak-ng"}


def speak(text: str, voice: str = VOICE_TARGET) -> Audio:
    """A sentence spoken by a voice.

    Args:
        text: English words, 1 to 1000 characters.
        voice: One of `VOICES`.

    Returns:
        Mono sound at 16 kHz, about 40 ms of silence at both ends.

    Raises:
        RequestError: If the voice is unknown, the text is empty or too long, or the program is not installed.
        MediaError: If the program fails or returns no sound.
    """
    if voice not in VOICES:
        raise RequestError(f"unknown voice {voice!r}; choose one of {', '.join(VOICES)}")
    words = " ".join(text.split())
    if not words or len(words) > TEXT_LIMIT:
        raise RequestError(f"a sentence to speak has 1 to {TEXT_LIMIT} characters, received {len(words)}")
    samples, rate_hz = _parse_wave(_run(words, VOICES[voice]), voice)
    audio = Audio(samples=torch.from_numpy(samples), rate_hz=rate_hz)
    if rate_hz != RATE_HZ:
        audio = resample(audio, RATE_HZ)
    return Audio(samples=trim_silence(audio.samples, RATE_HZ), rate_hz=RATE_HZ)


def trim_silence(samples: Float[Tensor, " T"], rate_hz: int) -> Float[Tensor, " T2"]:
    """Cut silence at both ends to 40 ms; a sound without any audible window is returned unchanged.

    A window is audible when its root mean square is above `SILENCE_DB` relative to the loudest window. Sounds that
    begin or end with less silence than 40 ms get zeros, so that every sentence has the same margins.
    """
    window, edge = rate_hz * WINDOW_MS // 1000, rate_hz * EDGE_MS // 1000
    num_windows = samples.shape[0] // window
    if num_windows == 0:
        return samples
    loudness = samples[: num_windows * window].reshape(num_windows, window).square().mean(dim=1).sqrt()
    peak = loudness.max()
    if peak <= 0:
        return samples
    audible = torch.nonzero(loudness > peak * 10 ** (SILENCE_DB / 20)).flatten()
    start, stop = int(audible[0]) * window - edge, (int(audible[-1]) + 1) * window + edge
    padded = torch.nn.functional.pad(samples, (max(0, -start), max(0, stop - samples.shape[0])))
    offset = max(0, -start)
    return padded[start + offset : stop + offset].clone()


def find_program(voice: Voice) -> str:
    """The path of the program that a voice needs; RequestError where it is not installed."""
    program = shutil.which(voice.program)
    if program is None:
        raise RequestError(
            f"the program {voice.program!r} is not installed, which voice {voice.name!r} needs: "
            f"apt-get install {PACKAGES[voice.program]}"
        )
    return program


def _run(words: str, voice: Voice) -> bytes:
    """The WAV bytes a program writes for a sentence."""
    program = find_program(voice)
    if voice.program == "flite":
        command = [program, "-voice", voice.name, "-t", words, "-o", "/dev/stdout"]
    else:
        command = [program, "-v", voice.name, "--stdout", "--", words]
    try:
        finished = subprocess.run(command, capture_output=True, check=False, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise MediaError(f"{voice.program} took more than {TIMEOUT_S} s for one sentence; use a shorter one") from error
    if finished.returncode != 0:
        message = finished.stderr.decode("utf-8", "replace").strip().splitlines()
        raise MediaError(f"{voice.program} failed with status {finished.returncode}: {message[-1:] or 'no message'}")
    return finished.stdout


def _parse_wave(data: bytes, voice: str) -> tuple[np.ndarray, int]:
    """Samples in [-1, 1] and the rate of a 16-bit mono WAV whose stated length may be wrong, as it was streamed."""
    try:
        with wave.open(io.BytesIO(data)) as reader:
            layout = (reader.getnchannels(), reader.getsampwidth())
            rate_hz = reader.getframerate()
            raw = reader.readframes(min(reader.getnframes(), len(data)))
    except (wave.Error, EOFError) as error:
        raise MediaError(f"voice {voice!r} returned no sound ({error}); check that its program works") from error
    if layout != (1, 2) or len(raw) < 2:
        raise MediaError(f"voice {voice!r} returned no 16-bit mono sound; check that its program works")
    return np.frombuffer(raw[: len(raw) // 2 * 2], dtype="<i2").astype(np.float32) / 32768, rate_hz
