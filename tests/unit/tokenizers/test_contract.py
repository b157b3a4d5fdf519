"""What every tokenizer promises, whoever made it. A further tokenizer is one row in `IMAGES` or `SPEECH`."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny_codecs
import torch
from narrow_emova import emova_of_256_codes
from processor import convolves_wrongly
from torch import Tensor, nn

from dynin.errors import MediaError, RequestError, VocabularyError
from dynin.media.audio import Audio
from dynin.testing import tiny
from dynin.tokenizers.emova import convert
from dynin.tokenizers.emova.tokenizer import EmovaTokenizer
from dynin.tokenizers.library.image import LibraryImageTokenizer
from dynin.tokenizers.library.speech import LibrarySpeechTokenizer
from dynin.tokenizers.magvit2.layers import Magvit2Config
from dynin.tokenizers.magvit2.tokenizer import Magvit2Tokenizer
from dynin.tokenizers.protocol import ImageTokenizer, SpeechTokenizer
from dynin.tokenizers.small.image import SmallImageTokenizer


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One tokenizer."""

    name: str
    build: Callable[[], Any]
    """A small one with random weights."""
    reload: Callable[[Any, Path], Any] = lambda tokenizer, folder: copy.deepcopy(tokenizer)
    """Written to a folder and read again, where it can be."""
    runs_in: tuple[torch.dtype, ...] = (torch.float32, torch.bfloat16)
    """What its weights may be turned into."""
    codebooks: int = 1
    """Codebooks that take turns in a row of codes."""
    frames_per_s: float | None = None
    """Of a sound, each with a code of every codebook; None where equal codes in a row become one."""


def magvit2() -> Magvit2Tokenizer:
    tokenizer = Magvit2Tokenizer(
        Magvit2Config(width=32, num_bits=6, encoder_blocks=(1,) * 5, decoder_blocks=(1,) * 5, image_size=64)
    )
    generator = torch.Generator().manual_seed(0)
    for parameter in tokenizer.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, 0, parameter[0].numel() ** -0.5, generator)
        else:
            nn.init.ones_(parameter)
    return tokenizer.eval()


def saved_small_image(tokenizer: SmallImageTokenizer, folder: Path) -> SmallImageTokenizer:
    tokenizer.save(folder)
    return SmallImageTokenizer.load(folder)


def saved_janus(tokenizer: LibraryImageTokenizer, folder: Path) -> LibraryImageTokenizer:
    tokenizer.network.save_pretrained(folder)
    return LibraryImageTokenizer.load(folder)


def saved_codec(tokenizer: LibrarySpeechTokenizer, folder: Path) -> LibrarySpeechTokenizer:
    tokenizer.network.save_pretrained(folder)
    layout = "first" if tokenizer.codebooks.count == 1 else "interleave"
    return LibrarySpeechTokenizer.load(folder, layout=layout)


def saved_emova(tokenizer: EmovaTokenizer, folder: Path) -> EmovaTokenizer:
    convert.save(folder, tokenizer)
    return convert.load(folder, config=tokenizer.config)


def codec(network: Callable[[], nn.Module], layout: Any) -> Callable[[], LibrarySpeechTokenizer]:
    return lambda: LibrarySpeechTokenizer(network(), layout=layout)


IMAGES = [
    Row(name="small", build=lambda: tiny().tokenizers.image, reload=saved_small_image, runs_in=(torch.float32,)),
    Row(name="magvit2", build=magvit2),
    Row(name="janus", build=lambda: LibraryImageTokenizer(tiny_codecs.janus()), reload=saved_janus),
]
SPEECH = [
    Row(name="small", build=lambda: tiny().tokenizers.speech, runs_in=(torch.float32,), frames_per_s=25),
    Row(name="emova", build=emova_of_256_codes, reload=saved_emova, runs_in=(torch.float32,)),
    Row(name="mimi first", build=codec(tiny_codecs.mimi, "first"), reload=saved_codec, frames_per_s=12.5),
    Row(name="mimi", build=codec(tiny_codecs.mimi, "interleave"), reload=saved_codec, codebooks=4, frames_per_s=12.5),
    Row(name="dac", build=codec(tiny_codecs.dac, "interleave"), reload=saved_codec, codebooks=3, frames_per_s=31.25),
    Row(
        name="encodec", build=codec(tiny_codecs.encodec, "interleave"), reload=saved_codec, codebooks=4, frames_per_s=75
    ),
    Row(name="xcodec", build=codec(tiny_codecs.xcodec, "interleave"), reload=saved_codec, codebooks=4, frames_per_s=50),
]

images = pytest.mark.parametrize("row", IMAGES, ids=lambda row: row.name)
speech = pytest.mark.parametrize("row", SPEECH, ids=lambda row: row.name)
both = pytest.mark.parametrize(
    "row", [*IMAGES, *SPEECH], ids=[*(f"image {row.name}" for row in IMAGES), *(f"speech {row.name}" for row in SPEECH)]
)


def pictures(tokenizer: ImageTokenizer) -> Tensor:
    """Three pictures of 2 x 3 cells."""
    shape = (3, 3, 2 * tokenizer.downsample, 3 * tokenizer.downsample)
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


def sound(tokenizer: SpeechTokenizer, duration_s: float = 1.0) -> Audio:
    """A hum with noise, which grows louder."""
    num_samples = round(duration_s * tokenizer.input_rate_hz)
    at = torch.arange(num_samples) / num_samples
    hum = torch.sin(2 * math.pi * 200 * duration_s * at)
    noise = torch.rand(num_samples, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return Audio(samples=(0.2 + at) * (0.4 * hum + 0.4 * noise), rate_hz=tokenizer.input_rate_hz)


def encode(tokenizer: Any) -> Tensor:
    """Codes of the pictures or the sound."""
    return tokenizer.encode(pictures(tokenizer) if isinstance(tokenizer, ImageTokenizer) else sound(tokenizer))


def decode(tokenizer: Any, codes: Tensor) -> Tensor:
    """Pixels or samples."""
    if isinstance(tokenizer, ImageTokenizer):
        return tokenizer.decode(codes, (2, 3))
    return tokenizer.decode(codes).samples


def every_code(tokenizer: Any, row: Row) -> Tensor:
    """Each code once, one of each codebook in turn."""
    return torch.arange(tokenizer.codebook_size).reshape(row.codebooks, -1).T.flatten()


@images
def test_it_meets_the_image_protocol(row: Row) -> None:
    tokenizer = row.build()
    cell, side = tokenizer.downsample, tokenizer.image_size
    assert isinstance(tokenizer, ImageTokenizer)
    assert side % cell == 0
    assert tokenizer.grid(side, cell) == (side // cell, 1)


@speech
def test_it_meets_the_speech_protocol(row: Row) -> None:
    tokenizer = row.build()
    assert isinstance(tokenizer, SpeechTokenizer)
    assert tokenizer.default_style in tokenizer.styles
    assert tokenizer.codebook_size % row.codebooks == 0
    assert row.frames_per_s is None or tokenizer.frame_rate_hz == row.frames_per_s * row.codebooks


@both
def test_codes_are_whole_numbers_of_the_codebook_and_tell_things_apart(row: Row) -> None:
    tokenizer = row.build()
    codes = encode(tokenizer)
    assert codes.dtype == torch.int64
    assert 0 <= int(codes.min()) <= int(codes.max()) < tokenizer.codebook_size
    assert len(codes.unique()) > row.codebooks


@both
def test_the_same_gives_the_same_twice(row: Row) -> None:
    tokenizer = row.build()
    codes = encode(tokenizer)
    assert torch.equal(encode(tokenizer), codes)
    assert torch.equal(decode(tokenizer, codes), decode(tokenizer, codes))


@both
def test_what_it_gives_is_the_callers_own(row: Row) -> None:
    tokenizer = row.build()
    codes = encode(tokenizer)
    decoded, before = decode(tokenizer, codes), tokenizer.fingerprint()
    assert not decoded.requires_grad
    expected = decoded.clone()
    decoded.zero_()
    assert torch.equal(decode(tokenizer, codes), expected)
    codes.zero_()
    assert tokenizer.fingerprint() == before


@images
def test_a_picture_has_a_code_for_every_cell_and_comes_back_at_its_size(row: Row) -> None:
    tokenizer = row.build()
    given = pictures(tokenizer)
    codes = tokenizer.encode(given)
    assert codes.shape == (3, 6)
    decoded = tokenizer.decode(codes, tokenizer.grid(*given.shape[-2:]))
    assert decoded.shape == given.shape
    assert decoded.dtype == torch.float32


@images
def test_a_picture_in_a_batch_is_the_picture_alone(row: Row) -> None:
    tokenizer = row.build()
    together = tokenizer.encode(pictures(tokenizer))
    assert torch.equal(together, torch.cat([tokenizer.encode(picture[None]) for picture in pictures(tokenizer)]))
    alone = torch.cat([tokenizer.decode(codes[None], (2, 3)) for codes in together])
    torch.testing.assert_close(tokenizer.decode(together, (2, 3)), alone, rtol=0, atol=1e-4)


@images
def test_sides_that_are_no_multiple_of_a_cell_are_refused(row: Row) -> None:
    tokenizer = row.build()
    for height, width in ((tokenizer.downsample + 1, tokenizer.downsample), (0, tokenizer.downsample)):
        with pytest.raises(MediaError, match="fit_square"):
            tokenizer.grid(height, width)
        with pytest.raises(MediaError, match="fit_square"):
            tokenizer.encode(torch.zeros(1, 3, height, width))


@images
def test_every_code_decodes_to_a_picture_in_range(row: Row) -> None:
    tokenizer = row.build()
    codes = every_code(tokenizer, row)
    decoded = tokenizer.decode(codes[None], (8, len(codes) // 8))
    assert bool(decoded.isfinite().all())
    assert float(decoded.abs().max()) <= 1


@images
def test_image_codes_outside_the_codebook_or_the_grid_are_refused(row: Row) -> None:
    tokenizer = row.build()
    for code in (-1, tokenizer.codebook_size):
        with pytest.raises(VocabularyError, match=f"0 to {tokenizer.codebook_size - 1}"):
            tokenizer.decode(torch.tensor([[0, code]]), (1, 2))
    with pytest.raises(VocabularyError, match="2 rows x 2 columns"):
        tokenizer.decode(torch.zeros(1, 3, dtype=torch.int64), (2, 2))


@speech
@pytest.mark.parametrize("duration_s", [0.2, 1.0, 1.001])
def test_a_sound_has_as_many_codes_as_its_rate_says(row: Row, duration_s: float) -> None:
    tokenizer = row.build()
    codes = tokenizer.encode(sound(tokenizer, duration_s))
    assert codes.ndim == 1
    if row.frames_per_s is None:
        assert 0 < len(codes) <= math.ceil(duration_s * tokenizer.frame_rate_hz)
    else:
        assert len(codes) == math.ceil(duration_s * row.frames_per_s) * row.codebooks
        assert 0 <= tokenizer.decode(codes).duration_s - duration_s < 1 / row.frames_per_s


@speech
def test_every_code_decodes_to_a_sound_in_range(row: Row) -> None:
    tokenizer = row.build()
    decoded = tokenizer.decode(every_code(tokenizer, row))
    assert decoded.rate_hz == tokenizer.output_rate_hz
    assert decoded.samples.dtype == torch.float32
    assert bool(decoded.samples.isfinite().all())
    assert 0 < float(decoded.samples.abs().max()) <= 1


@speech
def test_speech_codes_outside_the_codebook_are_refused(row: Row) -> None:
    tokenizer = row.build()
    good = every_code(tokenizer, row)[: row.codebooks]
    for code in (-1, tokenizer.codebook_size):
        with pytest.raises(VocabularyError, match=f"0 to {tokenizer.codebook_size - 1}"):
            tokenizer.decode(torch.cat([good[:-1], torch.tensor([code])]))
    with pytest.raises(VocabularyError):
        tokenizer.decode(good[:0])


@speech
def test_another_rate_no_samples_and_an_unknown_voice_are_refused(row: Row) -> None:
    tokenizer = row.build()
    with pytest.raises(MediaError, match="resample"):
        tokenizer.encode(Audio(samples=sound(tokenizer).samples, rate_hz=tokenizer.input_rate_hz + 1))
    with pytest.raises(MediaError):
        tokenizer.encode(Audio(samples=torch.zeros(0), rate_hz=tokenizer.input_rate_hz))
    with pytest.raises(RequestError, match="nobody"):
        tokenizer.decode(every_code(tokenizer, row), "nobody")


@both
def test_the_fingerprint_and_the_codes_survive_a_reload(row: Row, tmp_path: Path) -> None:
    tokenizer = row.build()
    codes, before = encode(tokenizer), tokenizer.fingerprint()
    again = row.reload(tokenizer, tmp_path)
    assert again.fingerprint() == before == tokenizer.fingerprint()
    assert torch.equal(encode(again), codes)


@both
def test_the_fingerprint_follows_every_weight(row: Row) -> None:
    tokenizer = row.build()
    weights = [value for value in tokenizer.state_dict().values() if value.is_floating_point()]
    seen = {tokenizer.fingerprint()}
    for weight in (weights[0], weights[len(weights) // 2], weights[-1]):
        weight.view(-1)[0] += 1
        seen.add(tokenizer.fingerprint())
    assert len(seen) == 4


@both
def test_it_moves_to_every_dtype_it_claims_and_back(row: Row) -> None:
    tokenizer = row.build()
    expected = encode(tokenizer)
    decoded = decode(tokenizer, expected)
    for dtype in (*row.runs_in, torch.float32):
        before = tokenizer.fingerprint()
        changed = next(tokenizer.parameters()).dtype != dtype
        tokenizer.to(dtype)
        assert (tokenizer.fingerprint() != before) is changed
        codes = encode(tokenizer)
        assert codes.dtype == torch.int64
        is_sound = dtype != torch.bfloat16 or not convolves_wrongly()
        if is_sound and (row.frames_per_s is not None or isinstance(tokenizer, ImageTokenizer)):
            assert float((codes == expected).float().mean()) > 0.6
        again = decode(tokenizer, expected)
        assert again.dtype == torch.float32
        assert float((again - decoded).abs().mean()) < 0.1 * float(decoded.abs().mean()) + 0.01
