"""The published speech tokenizer behind the protocol: pieces, batches, styles, seeds, and what it refuses."""

import dataclasses
import re
import subprocess
import sys

import pytest
import torch
from processor import convolves_wrongly

from dynin.data.pretokenize_speech import BatchEncoder
from dynin.errors import ConfigError, MediaError, RequestError, VocabularyError
from dynin.media.audio import Audio
from dynin.tokenizers.emova import networks
from dynin.tokenizers.emova.config import (
    DEFAULT_STYLE,
    EmovaConfig,
    EncoderSizes,
    VocoderSizes,
    published_styles,
)
from dynin.tokenizers.emova.tokenizer import EmovaTokenizer
from dynin.tokenizers.protocol import SpeechTokenizer


def collapsed(codes: torch.Tensor) -> list[int]:
    row = codes.tolist()
    return [code for index, code in enumerate(row) if index == 0 or code != row[index - 1]]


def test_the_tokenizer_meets_the_protocol(narrow):
    assert isinstance(narrow, SpeechTokenizer)
    assert isinstance(narrow, BatchEncoder)
    assert (narrow.codebook_size, narrow.frame_rate_hz) == (4096, 25)
    assert (narrow.input_rate_hz, narrow.output_rate_hz) == (16000, 22050)
    assert (narrow.reversible, narrow.collapses_repeats) == (False, True)


@pytest.mark.parametrize(("num_samples", "num_codes"), [(16000, 25), (16001, 26), (80000, 125)])
def test_a_code_stands_for_40_ms_before_repeats_are_collapsed(num_samples, num_codes, narrow, noise):
    (codes,) = narrow.encode_frames([noise(num_samples)])
    assert codes.shape == (num_codes,)
    assert 0 <= int(codes.min()) <= int(codes.max()) < 4096
    assert len(codes.unique()) > 5


def test_repeats_are_collapsed(narrow, sound):
    (frames,) = narrow.encode_frames([sound.samples])
    codes = narrow.encode(sound)
    assert codes.tolist() == collapsed(frames)
    assert len(codes) < len(frames)
    assert codes.dtype == torch.int64


def test_a_clip_of_70_s_is_encoded_in_pieces_that_count_for_themselves(narrow, noise):
    wave = noise(70 * 16000 + 1)
    pieces = wave.split(30 * 16000)
    frames = [narrow.encode_frames([piece])[0] for piece in pieces]
    assert [len(row) for row in frames] == [750, 750, 251]
    assert narrow.encode(Audio(samples=wave, rate_hz=16000)).tolist() == collapsed(torch.cat(frames))


def test_repeats_are_collapsed_across_a_joint(build, noise):
    short = build(dataclasses.replace(build().config, longest_s=2))
    short.pre_quant.weight.zero_()
    assert short.encode(Audio(samples=noise(16000 * 5), rate_hz=16000)).shape == (1,)


@pytest.mark.parametrize(
    ("seconds", "cuts"), [(30, []), (31, [30]), (30.5, [15]), (60, [30]), (60.25, [30, 45]), (61, [30, 60]), (0.1, [])]
)
def test_a_rest_too_short_to_be_normalised_shares_the_piece_before(seconds, cuts, narrow):
    num_samples = int(seconds * 16000)
    edges = [0, *(cut * 16000 for cut in cuts), num_samples]
    assert narrow.pieces(num_samples) == list(zip(edges[:-1], edges[1:], strict=True))


def test_pieces_are_whole_codes_of_at_most_30_s_for_every_length(narrow):
    for num_samples in [*range(1600, 3 * 480000, 7919), 480000, 480001, 960000, 960001, 495999, 496000]:
        pieces = narrow.pieces(num_samples)
        assert [start for start, _ in pieces[1:]] == [stop for _, stop in pieces[:-1]]
        assert (pieces[0][0], pieces[-1][1]) == (0, num_samples)
        assert all(start % 640 == 0 and stop - start <= 480000 for start, stop in pieces)
        assert len(pieces) == 1 or min(stop - start for start, stop in pieces) >= 16000


def test_a_batch_gives_every_sound_the_codes_it_gets_alone(narrow, noise):
    waves = [noise(count, seed) for seed, count in enumerate([16000, 30000, 1600, 500000] + [4000] * 7)]
    together = narrow.encode_batch(waves)
    assert len(together) == len(waves)
    for wave, codes in zip(waves, together, strict=True):
        assert torch.equal(narrow.encode_batch([wave])[0], codes)
    assert narrow.encode_batch([]) == []


@pytest.mark.parametrize(
    ("audio", "words"),
    [
        (Audio(samples=torch.ones(44100), rate_hz=44100), "44100 Hz.*needs 16000 Hz.*media.audio.resample"),
        (Audio(samples=torch.ones(1599), rate_hz=16000), "lasts 0.100 seconds.*at least 0.1"),
        (Audio(samples=torch.zeros(0), rate_hz=16000), "lasts 0.000 seconds"),
        (Audio(samples=torch.zeros(16000), rate_hz=16000), "is silent"),
        (Audio(samples=torch.full((16000,), torch.nan), rate_hz=16000), "not finite, working in torch.float32"),
    ],
)
def test_sounds_that_cannot_be_encoded_are_refused(audio, words, narrow):
    with pytest.raises(MediaError, match=words):
        narrow.encode(audio)


def test_decoding_is_repeatable_and_follows_the_generator(narrow):
    codes = torch.tensor([3, 1, 4095, 0, 5])
    first, again = narrow.decode(codes), narrow.decode(codes)
    assert torch.equal(first.samples, again.samples)
    assert first.rate_hz == 22050
    seeds = [narrow.decode(codes, generator=torch.Generator().manual_seed(seed)).samples for seed in (5, 5, 6)]
    assert torch.equal(seeds[0], seeds[1])
    assert seeds[0].shape != seeds[2].shape or not torch.equal(seeds[0], seeds[2])


def test_a_generator_goes_on_where_it_stopped(narrow):
    generator = torch.Generator().manual_seed(5)
    first, second = (narrow.decode(torch.tensor([3, 1, 4]), generator=generator).samples for _ in range(2))
    assert first.shape != second.shape or not torch.equal(first, second)


def test_a_long_row_of_codes_becomes_sound(narrow):
    codes = torch.randint(0, 4096, (1500,), generator=torch.Generator().manual_seed(0))
    audio = narrow.decode(codes)
    assert audio.samples.shape[0] >= 1500 * 256
    assert bool(audio.samples.isfinite().all())


def test_styles_are_told_by_name_and_listed_by_row(narrow):
    codes = torch.tensor([3, 1, 4095, 0, 5])
    assert narrow.default_style == DEFAULT_STYLE
    assert [narrow.style_row(name) for name in narrow.styles] == [0, 2, 3]
    by_default, by_name, other = (
        narrow.decode(codes, style).samples for style in (None, DEFAULT_STYLE, narrow.styles[2])
    )
    assert torch.equal(by_default, by_name)
    assert by_name.shape != other.shape or not torch.equal(by_name, other)


@pytest.mark.parametrize(
    ("style", "near"),
    [
        ("gender-male_emotion-sad_speed-slow_pitch-high", "gender-male_emotion-sad_speed-slow_pitch-low"),
        ("happy", "gender-male_emotion-happy_speed-fast_pitch-high"),
        ("", "gender"),
    ],
)
def test_an_unknown_style_is_refused_with_the_nearest_ones(style, near, narrow):
    with pytest.raises(RequestError, match=f"unknown style '{style}'.*one of the 3 styles.*nearest are.*{near}"):
        narrow.decode(torch.tensor([1]), style)


@pytest.mark.parametrize(
    ("codes", "words"),
    [([4096], r"\[4096, 4096\].*0 to 4095.*offset"), ([3, -1], r"\[-1, 3\].*0 to 4095"), ([], "no speech codes")],
)
def test_codes_outside_the_codebook_are_refused(codes, words, narrow):
    with pytest.raises(VocabularyError, match=words):
        narrow.decode(torch.tensor(codes, dtype=torch.int64))


def test_the_fingerprint_follows_weights_configuration_and_dtype(build, narrow):
    twin = build()
    assert twin.fingerprint() == narrow.fingerprint()
    twin.vocoder.decoder.conv_post.weight[0, 0, 0] += 1e-3
    other = build(dataclasses.replace(narrow.config, longest_s=60))
    prints = {narrow.fingerprint(), twin.fingerprint(), other.fingerprint(), build().to(torch.bfloat16).fingerprint()}
    assert len(prints) == 4


def test_the_networks_work_in_the_dtype_of_their_weights(build, narrow, sound):
    coarse = build().to("cpu", torch.bfloat16)
    (exact,), (rounded,) = (tokenizer.encode_frames([sound.samples]) for tokenizer in (narrow, coarse))
    assert convolves_wrongly() or float((exact == rounded).float().mean()) > 0.5
    audio = coarse.decode(exact)
    assert audio.samples.dtype == torch.float32
    assert bool(audio.samples.isfinite().all())


def test_the_published_styles_are_126_in_alphabetical_order():
    styles = published_styles()
    assert len(styles) == 126
    assert list(styles) == sorted(styles)
    assert list(styles.values()) == list(range(126))
    assert DEFAULT_STYLE in styles
    assert EmovaConfig().codebook_size == 4096


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: EmovaConfig(levels=(8, 1)), "levels must be at least 2"),
        (lambda: EmovaConfig(longest_s=1), "longest_s is 1.*at least 2 seconds"),
        (lambda: EmovaConfig(num_styles=125), "is row 125 of a table of 125 rows"),
        (lambda: EmovaConfig(default_style="x"), "default style 'x' is not among the 126"),
        (lambda: EncoderSizes(widths=(1, 2)), "widths has 2 entries"),
        (lambda: VocoderSizes(upsample_rates=(2,)), "differ in length"),
        (lambda: VocoderSizes(window_frames=0), "window_frames is 0"),
    ],
)
def test_sizes_that_make_no_tokenizer_are_refused(make, words):
    with pytest.raises(ConfigError, match=words):
        make()


def test_the_library_is_imported_when_a_tokenizer_is_built_and_not_before():
    code = (
        "import sys, dynin, dynin.tokenizers.bundle, dynin.tokenizers.emova.convert\n"
        "sys.exit('transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0


def test_a_missing_library_is_told_with_the_command_that_installs_it(monkeypatch, narrow_config):
    def missing(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(networks, "import_quietly", missing)
    with pytest.raises(RequestError, match=re.escape("pip install 'dynin[published]'")):
        EmovaTokenizer(narrow_config)


def test_nothing_is_printed(capfd, narrow, sound):
    narrow.decode(narrow.encode(sound))
    assert capfd.readouterr() == ("", "")
