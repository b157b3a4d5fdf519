import io
import os
import struct
import time
import wave

import numpy as np
import pytest
import soundfile
import torch

from dynin.errors import MediaError
from dynin.media import audio
from dynin.media.audio import Audio


def encoded(samples: np.ndarray, kind: str, rate_hz: int = 16000, subtype: str | None = None) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate_hz, format=kind, subtype=subtype)
    return stream.getvalue()


def tone(seconds: float, rate_hz: int = 16000) -> Audio:
    return Audio(
        samples=0.5 * torch.sin(torch.arange(int(seconds * rate_hz)) * 2 * torch.pi * 440 / rate_hz), rate_hz=rate_hz
    )


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".FLAC"])
def test_lossless_files_give_the_same_samples_bit_for_bit(tmp_path, sound, suffix):
    audio.write(tmp_path / f"a{suffix}", sound)
    result = audio.read(tmp_path / f"a{suffix}")
    assert result.rate_hz == 16000
    assert torch.equal(result.samples, sound.samples)


def test_every_16_bit_level_survives_the_way_to_float_and_back():
    levels = np.arange(-32768, 32768).astype(np.int16)
    samples = audio.from_levels(levels)
    assert samples.dtype == torch.float32
    assert float(samples.min()) == -1.0
    assert np.array_equal(audio.to_levels(samples), levels)


def test_samples_outside_the_range_are_clipped_and_not_wrapped():
    assert audio.to_levels(torch.tensor([-2.0, 1.0, 2.0])).tolist() == [-32768, 32767, 32767]


@pytest.mark.parametrize("suffix", [".mp3", ".ogg"])
def test_lossy_files_keep_length_rate_and_tone(tmp_path, suffix):
    audio.write(tmp_path / f"a{suffix}", tone(1.0))
    result = audio.read(tmp_path / f"a{suffix}")
    assert (result.rate_hz, result.samples.shape) == (16000, (16000,))
    assert (result.samples - tone(1.0).samples).abs()[1000:-1000].max() < 0.05


def test_a_wav_is_written_with_16_bits_and_one_channel(tmp_path, sound):
    audio.write(tmp_path / "a.wav", sound)
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert (file.getsampwidth(), file.getnchannels(), file.getframerate()) == (2, 1, 16000)


def test_a_long_ogg_is_written_without_overflowing_its_encoder(tmp_path):
    audio.write(tmp_path / "a.ogg", Audio(samples=torch.zeros(48000 * 60), rate_hz=48000))
    assert audio.read(tmp_path / "a.ogg").duration_s == 60


def test_two_channels_are_averaged():
    data = encoded(np.array([[0.5, 0.25], [0.0, -0.5]] * 10), "WAV")
    assert audio.decode(data).samples[:2].tolist() == [0.375, -0.25]


def test_a_wav_named_mp3_is_read_by_its_content(tmp_path, sound):
    audio.write(tmp_path / "a.wav", sound)
    (tmp_path / "a.wav").rename(tmp_path / "a.mp3")
    assert torch.equal(audio.read(tmp_path / "a.mp3").samples, sound.samples)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "MP3", "OGG"])
@pytest.mark.parametrize("kept", [1, 40, 0.5, 0.9, -5])
def test_a_truncated_sound_is_refused_in_our_words(sound, kind, kept, capfd):
    data = encoded(sound.samples.numpy(), kind)
    stop = int(kept * len(data)) if isinstance(kept, float) else kept
    with pytest.raises(MediaError, match=r"^a\.file: .*expected .*; .*") as caught:
        audio.decode(data[:stop], "a.file")
    assert "0x" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_text_named_wav_is_refused(tmp_path):
    (tmp_path / "a.wav").write_text("hello, I am no sound at all")
    with pytest.raises(MediaError, match=r"a\.wav: is in no known format, expected a sound as WAV, FLAC, MP3, OGG"):
        audio.read(tmp_path / "a.wav")


def test_an_empty_file_and_a_missing_one_are_refused(tmp_path):
    (tmp_path / "a.wav").touch()
    with pytest.raises(MediaError, match="is empty"):
        audio.read(tmp_path / "a.wav")
    with pytest.raises(MediaError, match="no such file"):
        audio.read(tmp_path / "b.wav")


def test_a_sound_without_samples_is_refused():
    with pytest.raises(MediaError, match="holds no samples"):
        audio.decode(encoded(np.zeros(0), "WAV"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_samples_that_are_not_finite_are_refused_in_both_directions(tmp_path, value):
    samples = np.zeros(100, dtype=np.float32)
    samples[50] = value
    with pytest.raises(MediaError, match="not finite"):
        audio.decode(encoded(samples, "WAV", subtype="FLOAT"))
    with pytest.raises(MediaError, match="not finite"):
        audio.write(tmp_path / "a.wav", Audio(samples=torch.from_numpy(samples), rate_hz=16000))
    assert os.listdir(tmp_path) == []


def test_a_small_overshoot_is_clipped_and_a_large_one_refused():
    assert audio.decode(encoded(np.full(100, 1.5), "WAV", subtype="FLOAT")).samples.max() == 1
    with pytest.raises(MediaError, match="samples reach 100"):
        audio.decode(encoded(np.full(100, 100.0), "WAV", subtype="FLOAT"))


def test_a_two_hour_wav_is_refused_from_its_header_without_reading_it(tmp_path):
    size = 2 * 3600 * 16000 * 2
    head = b"RIFF" + struct.pack("<I", 36 + size) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 16000, 32000, 2, 16)
    with (tmp_path / "long.wav").open("wb") as file:
        file.write(head + b"data" + struct.pack("<I", size))
        file.truncate(44 + size)
    start = time.perf_counter()
    with pytest.raises(MediaError, match=r"long\.wav: 7200 seconds of sound, expected at most 300 seconds; cut it"):
        audio.read(tmp_path / "long.wav")
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("kind", ["FLAC", "MP3", "OGG"])
def test_a_long_compressed_silence_is_refused_before_it_is_decoded(kind, monkeypatch):
    stream = io.BytesIO()
    with soundfile.SoundFile(stream, "w", 8000, 1, format=kind) as file:
        for _ in range(304):
            file.write(np.zeros(8000, dtype=np.int16))
    monkeypatch.setattr(audio, "_read_blocks", pytest.fail)
    with pytest.raises(MediaError, match="304 seconds of sound"):
        audio.decode(stream.getvalue())


def test_the_budget_holds_where_the_header_promises_less():
    class Endless:
        samplerate = 8000

        def __init__(self):
            self.num_reads = 0

        def read(self, num_samples, dtype, always_2d):
            self.num_reads += 1
            assert self.num_reads < 50
            return np.zeros((num_samples, 1), dtype=dtype)

    with pytest.raises(MediaError, match="more than 300 seconds"):
        audio._read_blocks(Endless(), "a.mp3")


@pytest.mark.parametrize(("rate_hz", "is_allowed"), [(7999, False), (8000, True), (48000, True), (96000, False)])
def test_rates_have_limits(rate_hz, is_allowed):
    data = encoded(np.zeros(100), "WAV", rate_hz)
    if is_allowed:
        assert audio.decode(data).rate_hz == rate_hz
    else:
        with pytest.raises(MediaError, match=f"{rate_hz} samples a second, expected 8000 to 48000; resample it"):
            audio.decode(data)


def test_three_channels_are_refused():
    with pytest.raises(MediaError, match="3 channels, expected 1 or 2; mix them down"):
        audio.decode(encoded(np.zeros((100, 3)), "WAV"))


def test_silence_is_read_but_not_accepted_as_speech():
    silence = audio.decode(encoded(np.zeros(16000), "FLAC"))
    assert silence.duration_s == 1
    with pytest.raises(MediaError, match="question.wav: is silent, expected speech"):
        audio.require_sound(silence, "question.wav")


def test_a_sound_too_short_is_not_accepted_as_speech():
    with pytest.raises(MediaError, match=r"lasts 0\.050 seconds, expected at least 0\.1"):
        audio.require_sound(tone(0.05))
    with pytest.raises(MediaError, match="record more"):
        audio.require_sound(Audio(samples=torch.zeros(0), rate_hz=16000))


def test_a_sound_to_hear_passes_unchanged():
    speech = tone(0.2)
    assert audio.require_sound(speech) is speech


def test_unknown_suffixes_and_rates_list_the_known_ones(tmp_path, sound):
    with pytest.raises(MediaError, match=r"'\.m4a' .* \.wav \.flac \.mp3 \.ogg"):
        audio.write(tmp_path / "a.m4a", sound)
    with pytest.raises(MediaError, match=r"MP3 cannot hold 17000 .* 16000 .*resample"):
        audio.write(tmp_path / "a.mp3", Audio(samples=sound.samples, rate_hz=17000))
    with pytest.raises(MediaError, match="no samples"):
        audio.write(tmp_path / "a.wav", Audio(samples=torch.zeros(0), rate_hz=16000))
    assert os.listdir(tmp_path) == []


def test_only_one_row_of_floating_samples_is_a_sound():
    with pytest.raises(MediaError, match="above 0 Hz"):
        Audio(samples=torch.zeros(10), rate_hz=0)


def test_resampling_keeps_duration_and_tone():
    result = audio.resample(tone(1.0, 22050), 16000)
    assert (result.rate_hz, result.samples.shape) == (16000, (16000,))
    assert (result.samples - tone(1.0).samples).abs()[500:-500].max() < 0.01


def test_resampling_to_the_same_rate_gives_the_same_sound(sound):
    assert audio.resample(sound, 16000) is sound


def test_resampling_to_no_rate_is_refused(sound):
    with pytest.raises(MediaError, match="expected one above 0"):
        audio.resample(sound, 0)


def test_splicing_changes_the_stretch_fades_the_margin_and_nothing_else():
    original = Audio(samples=torch.full((100,), -0.3), rate_hz=10)
    replacement = Audio(samples=torch.full((90,), 0.6), rate_hz=10)
    result = audio.splice(original, replacement, 4.0, 5.0, 0.2).samples
    assert torch.equal(result[:38], original.samples[:38])
    assert torch.equal(result[52:], original.samples[52:])
    assert torch.equal(result[40:50], replacement.samples[40:50])
    assert torch.allclose(result[38:40], torch.tensor([0.0, 0.3]), atol=1e-6)
    assert torch.allclose(result[50:52], torch.tensor([0.3, 0.0]), atol=1e-6)
    assert original.samples.eq(-0.3).all()


def test_a_margin_is_cut_short_where_a_sound_ends():
    original, replacement = Audio(samples=torch.zeros(20), rate_hz=10), Audio(samples=torch.ones(16), rate_hz=10)
    result = audio.splice(original, replacement, 0.0, 1.5, 0.3).samples
    assert result[:15].eq(1).all()
    assert 0 < result[15] < 1
    assert result[16:].eq(0).all()


@pytest.mark.parametrize("times", [(1.0, 1.0, 0.0), (-0.1, 1.0, 0.0), (1.0, 1.7, 0.0), (0.0, 1.0, -1.0)])
def test_a_stretch_outside_the_sounds_is_refused(times):
    original, replacement = Audio(samples=torch.zeros(20), rate_hz=10), Audio(samples=torch.ones(16), rate_hz=10)
    with pytest.raises(MediaError, match="expected a part of the 1.600 s that both sounds last"):
        audio.splice(original, replacement, *times)


def test_times_that_are_not_finite_are_refused(sound):
    with pytest.raises(MediaError, match="expected a part"):
        audio.splice(sound, sound, 0.0, float("nan"), 0.0)


def test_splicing_needs_equal_rates(sound):
    with pytest.raises(MediaError, match="resample"):
        audio.splice(sound, Audio(samples=sound.samples, rate_hz=8000), 0.0, 0.1, 0.0)


def test_a_sound_unpacks_into_samples_and_rate():
    sound = Audio(samples=torch.zeros(3), rate_hz=16000)
    samples, rate_hz = sound
    assert samples is sound.samples
    assert rate_hz == 16000
