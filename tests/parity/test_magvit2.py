"""The published image tokenizer: recorded numbers, names and sizes, the order of bits, and what it refuses."""

import gc
import json
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.testing import assert_close

from dynin.errors import CheckpointError, ConfigError, MediaError, VocabularyError
from dynin.media.image import from_pil
from dynin.tokenizers.magvit2.convert import expected_shapes, from_published, load, to_published
from dynin.tokenizers.magvit2.layers import Magvit2Config
from dynin.tokenizers.magvit2.quantizer import Quantizer
from dynin.tokenizers.magvit2.tokenizer import Magvit2Tokenizer, preprocess
from dynin.tokenizers.protocol import ImageTokenizer

FOLDER = Path(os.environ.get("DYNIN_GOLDEN", Path(__file__).parent / "golden"))
TABLE = FOLDER / "magvitv2_tensors.json"
MAPS = Path("/proc/self/maps")
RECORDED = sorted(FOLDER.glob("magvitv2_*.npz")) if TABLE.is_file() else []
NARROW = Magvit2Config(width=32, encoder_blocks=(1,) * 5, decoder_blocks=(1,) * 5, image_size=64)


@pytest.fixture(scope="module", autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def table() -> dict[str, tuple[int, ...]]:
    return {name: tuple(shape) for name, shape in json.loads(TABLE.read_text()).items()}


def values_of(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """The values that follow from a published tensor's name."""
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    values = torch.from_numpy(generator.standard_normal(shape).astype(np.float32))
    if len(shape) == 1:
        return values * 0.1 + float(name.endswith("weight"))
    return values / np.prod(shape[1:]) ** 0.5


@pytest.fixture(scope="module")
def golden_tensors():
    return {name: values_of(name, shape) for name, shape in table().items() if not name.startswith("quantize.")}


@pytest.fixture(scope="module")
def published(golden_tensors):
    with torch.device("meta"):
        tokenizer = Magvit2Tokenizer()
    tokenizer.load_state_dict(from_published(golden_tensors), assign=True)
    return tokenizer.eval()


@pytest.fixture(scope="module")
def narrow():
    tokenizer = Magvit2Tokenizer(NARROW)
    for name, value in tokenizer.state_dict().items():
        if not name.startswith("quantize."):
            value.copy_(values_of(name, tuple(value.shape)))
    return tokenizer.eval()


@pytest.fixture(scope="module")
def meta_tokenizer() -> Magvit2Tokenizer:
    with torch.device("meta"):
        return Magvit2Tokenizer()


def pictures(count: int, height: int, width: int) -> torch.Tensor:
    return torch.rand((count, 3, height, width), generator=torch.Generator().manual_seed(5)) * 2 - 1


def assert_near(got, expected, tolerance=1e-4):
    assert_close(got, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_latent_codes_and_pixels_equal_the_published_ones(path, published):
    with np.load(path) as stored:
        golden = {name: torch.from_numpy(stored[name]) for name in stored.files}
    grid = published.grid(*golden["pixels"].shape[-2:])
    latent = published.latent(golden["pixels"])
    assert_near(latent, golden["latent"])
    assert torch.equal(published.quantize.codes(latent), golden["indices"])
    decoded = published.decode_unclamped(golden["indices"], grid)
    assert_near(decoded, golden["decoded"])
    assert decoded.abs().max() > 1


@pytest.mark.skipif(not RECORDED, reason="no magvitv2_*.npz beside magvitv2_tensors.json")
def test_names_and_shapes_equal_the_published_table():
    assert expected_shapes() == table()
    assert len(expected_shapes()) == 382


def test_the_published_sizes_are_met(meta_tokenizer):
    tokenizer = meta_tokenizer
    parts = (tokenizer, tokenizer.encoder, tokenizer.decoder)
    counts = [sum(parameter.numel() for parameter in part.parameters()) for part in parts]
    assert counts == [95_387_004, 55_439_171, 39_947_833]
    assert isinstance(tokenizer, ImageTokenizer)
    assert (tokenizer.codebook_size, tokenizer.downsample, tokenizer.image_size) == (8192, 16, 512)


@pytest.mark.parametrize(
    ("height", "width", "num_codes"),
    [
        (128, 128, 64),
        (224, 224, 196),
        (256, 256, 256),
        (336, 336, 441),
        (480, 480, 900),
        (512, 512, 1024),
        (256, 336, 336),
    ],
)
def test_grids_have_a_code_for_every_16_pixels(height, width, num_codes, meta_tokenizer):
    rows, columns = meta_tokenizer.grid(height, width)
    assert (rows, columns) == (height // 16, width // 16)
    assert rows * columns == num_codes
    latent = meta_tokenizer.latent(torch.empty((1, 3, height, width), device="meta"))
    assert latent.shape == (1, 13, rows, columns)
    assert meta_tokenizer.decoder(latent).shape == (1, 3, height, width)


@pytest.mark.parametrize(("height", "width"), [(250, 256), (256, 250), (8, 16), (0, 16)])
def test_sides_that_are_no_multiple_of_16_are_refused(height, width, narrow):
    message = f"picture is {width} x {height} px.*multiples of 16 px.*fit_square"
    with pytest.raises(MediaError, match=message):
        narrow.grid(height, width)
    with pytest.raises(MediaError, match=message):
        narrow.encode(torch.zeros(1, 3, height, width))


def test_code_1_is_the_last_channel_alone_and_code_4096_the_first():
    signs = Quantizer(13).signs(torch.tensor([[1, 4096]]), (1, 2))[0, :, 0]
    assert signs[:, 0].tolist() == [-1.0] * 12 + [1.0]
    assert signs[:, 1].tolist() == [1.0] + [-1.0] * 12


def test_all_8192_codes_survive_the_signs_there_and_back():
    quantizer = Quantizer(13)
    codes = torch.randperm(8192, generator=torch.Generator().manual_seed(0)).reshape(2, 4096)
    signs = quantizer.signs(codes, (32, 128))
    assert torch.equal(signs.abs(), torch.ones(2, 13, 32, 128))
    assert torch.equal(quantizer.codes(signs), codes)
    assert torch.equal(quantizer.codes(signs * 1e-20), codes)


def test_codes_are_in_raster_order_and_exactly_zero_is_not_positive():
    latent = torch.zeros(1, 13, 2, 3)
    latent[0, 12, 0, 2], latent[0, 11, 1, 0] = 0.5, 0.5
    assert Quantizer(13).codes(latent).tolist() == [[0, 0, 1, 2, 0, 0]]


def test_pictures_that_are_not_square_decode_to_their_own_shape_in_range(narrow):
    codes = narrow.encode(pictures(1, 32, 64))
    decoded = narrow.decode(codes, (2, 4))
    assert codes.shape == (1, 8)
    assert decoded.shape == (1, 3, 32, 64)
    assert decoded.dtype == torch.float32
    assert torch.equal(decoded, narrow.decode_unclamped(codes, (2, 4)).clamp(-1, 1))


def test_frames_in_a_batch_equal_the_same_frames_alone(narrow):
    frames = pictures(3, 32, 48)
    together, alone = narrow.latent(frames), torch.cat([narrow.latent(frame[None]) for frame in frames])
    assert_near(together, alone)
    codes = narrow.encode(frames)
    assert codes.unique(dim=0).shape[0] == 3
    decoded = narrow.decode(codes, (2, 3))
    assert_near(decoded, torch.cat([narrow.decode(row[None], (2, 3)) for row in codes]))


def test_channels_last_changes_numbers_by_rounding_alone(narrow):
    turned = Magvit2Tokenizer(NARROW).eval()
    turned.load_state_dict(narrow.state_dict())
    turned.to(memory_format=torch.channels_last)
    frames = pictures(2, 32, 48)
    assert turned.encoder.conv_in(frames).is_contiguous(memory_format=torch.channels_last)
    assert_near(turned.latent(frames), narrow.latent(frames))
    codes = narrow.encode(frames)
    assert_near(turned.decode(codes, (2, 3)), narrow.decode(codes, (2, 3)))
    assert turned.fingerprint() == narrow.fingerprint()


def test_bfloat16_runs_and_stays_close(narrow):
    half = Magvit2Tokenizer(NARROW).eval()
    half.load_state_dict(narrow.state_dict())
    half.to(torch.bfloat16)
    frames = pictures(2, 32, 32)
    latent, expected = half.latent(frames), narrow.latent(frames)
    assert latent.dtype == torch.bfloat16
    assert (latent.float() - expected).abs().max() < 0.1 * expected.abs().max()
    codes = narrow.encode(frames)
    assert (half.decode(codes, (2, 2)) - narrow.decode(codes, (2, 2))).abs().max() < 0.1
    assert half.decode(codes, (2, 2)).dtype == torch.float32
    assert half.encode(frames).shape == (2, 4)
    assert half.fingerprint() != narrow.fingerprint()


@pytest.mark.parametrize("codes", [[[0, 8192]], [[-1, 0]]])
def test_codes_outside_the_codebook_are_refused_and_not_clamped(codes, narrow):
    with pytest.raises(VocabularyError, match=r"image codes lie in \[.*0 to 8191"):
        narrow.decode(torch.tensor(codes), (1, 2))


@pytest.mark.parametrize("grid", [(1, 3), (2, 3), (-1, -4), (0, 0)])
def test_codes_that_do_not_fill_the_grid_are_refused(grid, narrow):
    with pytest.raises(
        VocabularyError, match=f"4 image codes do not fill a grid of {grid[0]} rows x {grid[1]} columns"
    ):
        narrow.decode(torch.zeros(1, 4, dtype=torch.int64), grid)


def test_pixels_that_are_not_finite_are_refused(narrow):
    frame = pictures(1, 16, 16)
    frame[0, 0, 0, 0] = float("nan")
    with pytest.raises(MediaError, match=r"not finite, working in torch\.float32"):
        narrow.encode(frame)


def test_the_fingerprint_follows_every_weight(narrow):
    before = narrow.fingerprint()
    assert before == narrow.fingerprint()
    bias = narrow.decoder.conv_out.bias
    bias[0] += 1e-3
    changed = narrow.fingerprint()
    bias[0] -= 1e-3
    assert changed != before


def test_converting_there_and_back_is_the_identity(narrow):
    state = dict(narrow.state_dict())
    given = to_published(state, NARROW)
    back = from_published(given, NARROW)
    assert back.keys() == given.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)
    assert all(back[name] is state[name] for name in state if not name.startswith("quantize."))
    assert given["quantize.embedding"].dtype == torch.float32


def test_weights_that_do_not_fit_are_listed(narrow):
    state = dict(narrow.state_dict())
    state["encoder.conv_outer.bias"] = state.pop("encoder.conv_out.bias")
    state["decoder.conv_in.bias"] = torch.zeros(5)
    with pytest.raises(CheckpointError) as caught:
        from_published(state, NARROW)
    for words in ("missing: encoder.conv_out.bias", "unknown: encoder.conv_outer.bias", "decoder.conv_in.bias is (5,)"):
        assert words in str(caught.value)


@pytest.mark.parametrize("name", ["embedding", "power_vals"])
def test_a_table_of_another_bit_order_is_refused_and_a_missing_one_is_made(name, narrow):
    state = dict(narrow.state_dict())
    table = state.pop(f"quantize.{name}")
    assert torch.equal(from_published(state, NARROW)[f"quantize.{name}"], table)
    state[f"quantize.{name}"] = table.flip(-1)
    with pytest.raises(CheckpointError, match=f"quantize.{name} differs.*most significant first"):
        from_published(state, NARROW)


def test_a_folder_without_fitting_weights_is_refused(tmp_path, narrow):
    with pytest.raises(CheckpointError, match="no weights; expected .* one of pytorch_model.safetensors, .*pickled"):
        load(tmp_path)
    file = tmp_path / "model.safetensors"
    save_file(dict(narrow.state_dict()), file)
    with pytest.raises(CheckpointError, match="wrong shapes: .*is .32, 3, 3, 3., expected .128, 3, 3, 3."):
        load(tmp_path)
    save_file({"model.transformer.wte.weight": torch.zeros(2)}, file)
    with pytest.raises(CheckpointError, match="holds no image tokenizer but model.transformer.wte.weight; name the"):
        load(tmp_path)
    save_file({name: value.to(torch.int8) for name, value in narrow.state_dict().items()}, file)
    with pytest.raises(CheckpointError, match=r"decoder.* \(torch.int8\).* are no floating-point numbers"):
        load(tmp_path)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="model.safetensors: damaged"):
        load(tmp_path)


@pytest.mark.skipif(not RECORDED, reason="no magvitv2_*.npz beside magvitv2_tensors.json")
def test_a_folder_of_published_weights_loads(tmp_path, golden_tensors):
    save_file({name: value.half() for name, value in golden_tensors.items()}, tmp_path / "pytorch_model.safetensors")
    tokenizer = load(tmp_path, dtype=torch.bfloat16, channels_last=True)
    weight = tokenizer.encoder.conv_in.weight
    assert weight.dtype == torch.bfloat16
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert_close(weight.float(), golden_tensors["encoder.conv_in.weight"], rtol=1e-2, atol=1e-4)
    assert not tokenizer.training
    assert not any(parameter.requires_grad for parameter in tokenizer.parameters())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"width": 48}, "width is 48.*multiple of 32"),
        ({"num_bits": 0}, "num_bits is 0.*1 to 16"),
        ({"image_size": 100}, "image_size is 100.*multiple of 16"),
        ({"encoder_mult": (1, 2)}, "different numbers of levels"),
    ],
)
def test_sizes_that_make_no_tokenizer_are_refused(wrong, words):
    with pytest.raises(ConfigError, match=words):
        Magvit2Config(**wrong)


@pytest.mark.parametrize(("width", "height"), [(300, 200), (200, 300), (256, 256), (257, 255), (41, 97)])
@pytest.mark.parametrize("squash", [False, True], ids=["cut", "squash"])
def test_preprocessing_gives_the_published_levels(width, height, squash):
    levels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    picture, size = Image.fromarray(levels), 64
    got = preprocess(from_pil(picture), size, squash=squash)

    if squash:
        expected = picture.resize((size, size), Image.Resampling.BICUBIC)
    else:
        short, long = sorted((width, height))
        other = int(size * long / short)
        wide, high = (size, other) if width <= height else (other, size)
        left, top = int(round((wide - size) / 2.0)), int(round((high - size) / 2.0))
        expected = picture.resize((wide, high), Image.Resampling.BICUBIC).crop((left, top, left + size, top + size))
    normalised = (np.asarray(expected, dtype=np.float32) / 255 - 0.5) / 0.5
    assert_close(got, torch.from_numpy(normalised).movedim(-1, 0), rtol=0, atol=2e-7)


@pytest.mark.skipif(
    not (RECORDED and MAPS.exists()), reason="needs magvitv2_*.npz, and Linux, which tells mapped files"
)
def test_loaded_weights_do_not_keep_their_file_in_memory(tmp_path, golden_tensors):
    file = tmp_path / "model.safetensors"
    save_file({name: value.contiguous() for name, value in golden_tensors.items()}, file)
    tokenizer = load(tmp_path)  # as stored, so that nothing has to be converted
    gc.collect()
    assert str(file) not in MAPS.read_text()
    assert tokenizer is not None
