"""Voices: the programs speak, silence is cut, and what is missing is said plainly."""

import io
import json
import shutil
import wave
from importlib.resources import files

import numpy as np
import pytest
import torch

from dynin.data.emoji_world import voice
from dynin.errors import MediaError, RequestError
from dynin.media import audio

needs_flite = pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed: apt-get install flite")
needs_espeak = pytest.mark.skipif(
    shutil.which("espeak-ng") is None, reason="espeak-ng is not installed: apt-get install espeak-ng"
)


def test_held_out_voices_are_never_training_voices() -> None:
    assert "rms" in voice.VOICES_HELD_OUT
    assert not set(voice.VOICES_HELD_OUT) & set(voice.VOICES_TRAIN)
    assert set(voice.VOICES_HELD_OUT) | set(voice.VOICES_TRAIN) == set(voice.VOICES)


def test_the_first_training_voice_is_the_target_voice() -> None:
    assert voice.VOICES_TRAIN[0] == voice.VOICE_TARGET == "slt"


def test_silence_is_cut_to_40_ms_at_both_ends() -> None:
    sound = torch.cat([torch.zeros(8000), torch.ones(1600) * 0.5, torch.zeros(4000)])
    cut = voice.trim_silence(sound, 16000)
    assert torch.equal(cut, torch.cat([torch.zeros(640), torch.ones(1600) * 0.5, torch.zeros(640)]))


def test_a_sound_that_starts_at_once_gets_a_margin() -> None:
    cut = voice.trim_silence(torch.ones(1600) * 0.5, 16000)
    assert torch.equal(cut, torch.cat([torch.zeros(640), torch.ones(1600) * 0.5, torch.zeros(640)]))


@pytest.mark.parametrize("samples", [0, 100, 16000])
def test_silence_without_a_sound_stays_as_it_is(samples: int) -> None:
    assert voice.trim_silence(torch.zeros(samples), 16000).shape == (samples,)


def test_an_unknown_voice_lists_the_known_ones() -> None:
    with pytest.raises(RequestError, match="choose one of slt"):
        voice.speak("a dog", "nobody")


@pytest.mark.parametrize("text", ["", "   ", "a" * 2000])
def test_a_text_without_words_or_too_long_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="1 to 1000 characters"):
        voice.speak(text)


def test_a_missing_program_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(RequestError, match="apt-get install espeak-ng"):
        voice.speak("a dog", "en-gb")


def test_a_program_that_returns_no_sound_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voice, "_run", lambda words, chosen: b"no sound at all")
    with pytest.raises(MediaError, match="returned no sound"):
        voice.speak("a dog")


def test_a_streamed_wave_with_a_wrong_length_is_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as writer:
        writer.setparams((1, 2, 16000, 0, "NONE", ""))
        writer.writeframes((np.ones(1600) * 8192).astype("<i2").tobytes())
    data = bytearray(buffer.getvalue())
    data[40:44] = (0x7FFFF000).to_bytes(4, "little")
    monkeypatch.setattr(voice, "_run", lambda words, chosen: bytes(data))
    spoken = voice.speak("a dog")
    assert spoken.samples.shape == (640 + 1600 + 640,)
    assert float(spoken.samples.max()) == 0.25


@pytest.mark.voices
@needs_flite
@pytest.mark.parametrize("name", ["slt", "awb", "kal16", "rms"])
def test_flite_says_the_same_every_time(name: str) -> None:
    first, second = voice.speak("a dog", name), voice.speak(" a  dog ", name)
    assert torch.equal(first.samples, second.samples)
    assert first.rate_hz == 16000
    assert 0.2 < first.duration_s < 2.0


@pytest.mark.voices
@needs_espeak
@pytest.mark.parametrize("name", [name for name in voice.VOICES if voice.VOICES[name].program == "espeak-ng"])
def test_espeak_speaks_at_16_khz(name: str) -> None:
    spoken = voice.speak("-- a dog", name)
    assert spoken.rate_hz == 16000
    assert 0.2 < spoken.duration_s < 2.0
    assert float(spoken.samples.abs().max()) > 0.05


def test_every_recorded_clip_is_listed_and_short() -> None:
    folder = files("dynin") / "assets" / "clips"
    rows = json.loads((folder / "clips.json").read_text())
    assert {row["voice"] for row in rows} == {"slt", "awb", "kal16"}
    listed = {row["file"] for row in rows}
    assert listed == {entry.name for entry in folder.iterdir() if entry.name.endswith(".flac")}
    for row in rows:
        data = (folder / row["file"]).read_bytes()
        assert len(data) < 60_000
        assert audio.decode(data).rate_hz == 16000
