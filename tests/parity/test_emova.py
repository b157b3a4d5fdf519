"""The published speech tokenizer at full size: recorded numbers of both networks, names and sizes."""

import json
import math
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from dynin.tokenizers.emova.config import EmovaConfig, VocoderSizes
from dynin.tokenizers.emova.convert import expected_shapes, from_published, to_published
from dynin.tokenizers.emova.tokenizer import EmovaTokenizer
from dynin.tokenizers.protocol import SpeechTokenizer

FOLDER = Path(os.environ.get("DYNIN_GOLDEN", Path(__file__).parent / "golden"))
TABLES = {kind: FOLDER / f"{kind}_tensors.json" for kind in ("spiral", "vits")}
IS_COMPLETE = all(path.is_file() for path in TABLES.values())
ENCODED = sorted(FOLDER.glob("spiral_*.npz")) if IS_COMPLETE else []
SPOKEN = sorted(FOLDER.glob("vits_*.npz")) if IS_COMPLETE else []
STILL = EmovaConfig(vocoder=VocoderSizes(noise_scale=0.0, duration_noise_scale=0.0))
ADDED = ("style_embedding.", "encoder.decoder.", "encoder.encoder.mask_emb", "encoder.encoder.wav2spec.")
"""What a published file holds beside the tensors of the two tables, and the tables of the quantizer."""


@pytest.fixture(scope="module", autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def table(*kinds: str) -> dict[str, tuple[int, ...]]:
    return {name: tuple(shape) for kind in kinds for name, shape in json.loads(TABLES[kind].read_text()).items()}


def values_of(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """The values that follow from a published tensor's name."""
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    values = torch.from_numpy(generator.standard_normal(shape).astype(np.float32))
    leaf = name.rpartition(".")[2]
    if leaf == "weight_g":
        return 1 + 0.1 * values.abs()
    if len(shape) == 1:
        return 0.1 * values + float(leaf in ("weight", "GAMMA"))
    values = values / math.prod(shape[1:]) ** 0.5
    return values * 3 if name == "encoder.pre_quant.weight" else values


@pytest.fixture(scope="module")
def golden_tensors():
    names = {**table("spiral", "vits"), "style_embedding.weight": (126, 256)}
    return {name: values_of(name, shape) for name, shape in names.items()}


@pytest.fixture(scope="module")
def published(golden_tensors):
    """The tokenizer with the recorded weights, which draws no noise."""
    with torch.device("meta"):
        tokenizer = EmovaTokenizer(STILL)
    state, tokenizer.unused = from_published(golden_tensors, STILL)
    tokenizer.load_state_dict(state, assign=True)
    return tokenizer.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def meta_tokenizer() -> EmovaTokenizer:
    with torch.device("meta"):
        return EmovaTokenizer()


def read(path: Path) -> dict[str, torch.Tensor]:
    with np.load(path) as stored:
        return {name: torch.from_numpy(stored[name]) for name in stored.files}


def assert_near(got, expected, tolerance=1e-4):
    assert_close(got, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))


@pytest.mark.parametrize("path", ENCODED, ids=lambda path: path.stem)
def test_hidden_states_latents_and_codes_equal_the_published_ones(path, published):
    golden = read(path)
    hidden, count = published.encoder(golden["features"], golden["lengths"])
    latent, again = published.latent(golden["features"], golden["lengths"])
    assert torch.equal(count, golden["hidden_lengths"])
    assert torch.equal(again, count)
    for row, length in enumerate(count.tolist()):
        assert_near(hidden[row, :length], golden["hidden"][row, :, :length].T)
        assert_near(latent[row, :length], golden["latent"][row, :length])
        codes = published.quantizer.codes(latent[row, :length])
        assert torch.equal(codes, golden["units"][row, :length])
        assert len(codes.unique()) > 1


@pytest.mark.parametrize("path", SPOKEN, ids=lambda path: path.stem)
def test_samples_equal_the_published_ones(path, published):
    golden = read(path)
    samples = published.vocoder(golden["units"][0], golden["style"], torch.Generator())
    assert samples.shape == golden["waveform"].shape
    assert_near(samples, golden["waveform"])


@pytest.mark.skipif(not IS_COMPLETE, reason="no spiral_tensors.json and vits_tensors.json")
def test_names_and_shapes_equal_the_published_tables():
    shapes = expected_shapes()
    recorded = table("spiral", "vits")
    assert {name: shapes.get(name) for name in recorded} == recorded
    assert all(name.startswith((*ADDED, "encoder.quantizer.")) for name in shapes.keys() - recorded.keys())
    assert (len(table("spiral")), len(table("vits")), len(shapes)) == (222 + 2, 876, 1116)
    assert math.prod(shapes["encoder.quantizer._basis"]) == 4


@pytest.mark.skipif(not IS_COMPLETE, reason="no spiral_tensors.json and vits_tensors.json")
def test_the_recorded_weights_come_back_bit_for_bit(published, golden_tensors):
    back = to_published(published.state_dict(), published.unused, STILL)
    assert all(torch.equal(back[name], tensor) for name, tensor in golden_tensors.items())


def test_the_published_sizes_are_met(meta_tokenizer):
    shapes = expected_shapes()
    counts = {
        "encoder.encoder.feature_encoder.": 90_617_216,
        "encoder.decoder.": 4_068_081,
        "decoder.": 41_874_224,
        "decoder.enc_p.": 7_113_216,
        "decoder.dec.": 14_468_608,
        "decoder.enc_q.": 8_823_168,
        "decoder.flow.": 8_687_232,
        "decoder.dp.": 1_366_512,
        "decoder.emb_g.": 344_064,
        "decoder.enc_r.": 1_071_424,
        "style_embedding.": 126 * 256,
    }
    for prefix, count in counts.items():
        assert sum(math.prod(shape) for name, shape in shapes.items() if name.startswith(prefix)) == count, prefix
    assert sum(parameter.numel() for parameter in meta_tokenizer.encoder.parameters()) == 90_617_216
    assert isinstance(meta_tokenizer, SpeechTokenizer)
    assert len(meta_tokenizer.styles) == 126
    assert meta_tokenizer.codebook_size == 4096


@pytest.mark.skipif(not IS_COMPLETE, reason="no spiral_tensors.json and vits_tensors.json")
def test_a_batch_gives_every_sound_the_codes_it_gets_alone_at_full_size(published):
    generator = torch.Generator().manual_seed(0)
    waves = [torch.rand(count, generator=generator) - 0.5 for count in (16000, 9000)]
    for wave, codes in zip(waves, published.encode_batch(waves), strict=True):
        assert torch.equal(published.encode_batch([wave])[0], codes)
