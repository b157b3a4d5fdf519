"""The embedded image tokenizer: local codes, layered tiles, whole files."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from dynin.errors import CheckpointError, MediaError, VocabularyError
from dynin.tokenizers.protocol import ImageTokenizer
from dynin.tokenizers.small.image import (
    CONFIG_NAME,
    WEIGHTS_NAME,
    SmallImageConfig,
    SmallImageTokenizer,
    patches_of,
)

RED, BLUE, GLASS, SPOT = 0, 1, 2, 3


@pytest.fixture
def tokenizer() -> SmallImageTokenizer:
    """Random encoder; tiles: plain red, plain blue, nothing at all, a white spot in front of the ground."""
    torch.manual_seed(0)
    built = SmallImageTokenizer(SmallImageConfig(num_bits=5, hidden_dim=16))
    with torch.no_grad():
        built.tiles[RED, :3] = torch.tensor([1.0, -1.0, -1.0])[:, None, None]
        built.tiles[BLUE, :3] = torch.tensor([-1.0, -1.0, 1.0])[:, None, None]
        built.tiles[GLASS, 3] = 0.0
        built.tiles[SPOT] = 0.0
        built.tiles[SPOT, :, 4:12, 4:12] = 1.0
        built.ground_weight[[RED, BLUE]] = 1.0
    return built.eval().requires_grad_(False)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_it_meets_the_protocol(tokenizer: SmallImageTokenizer) -> None:
    assert isinstance(tokenizer, ImageTokenizer)
    assert (tokenizer.codebook_size, tokenizer.downsample, tokenizer.image_size) == (32, 16, 64)


@pytest.mark.parametrize(("height", "width", "grid"), [(64, 64, (4, 4)), (32, 80, (2, 5)), (16, 16, (1, 1))])
def test_every_multiple_of_a_patch_has_its_grid(
    tokenizer: SmallImageTokenizer, height: int, width: int, grid: tuple[int, int]
) -> None:
    codes = tokenizer.encode(noise(2, 3, height, width))
    assert tokenizer.grid(height, width) == grid
    assert codes.shape == (2, grid[0] * grid[1])
    assert tokenizer.decode(codes, grid).shape == (2, 3, height, width)


@pytest.mark.parametrize(("height", "width"), [(65, 64), (64, 8), (0, 64), (1, 1)])
def test_other_sizes_are_refused(tokenizer: SmallImageTokenizer, height: int, width: int) -> None:
    with pytest.raises(MediaError, match="multiples of 16 px"):
        tokenizer.grid(height, width)


def test_a_code_depends_on_its_patch_alone(tokenizer: SmallImageTokenizer) -> None:
    picture, changed = noise(1, 3, 64, 64), noise(1, 3, 64, 64, seed=1)
    changed[:, :, 16:32, 32:48] = picture[:, :, 16:32, 32:48]
    assert tokenizer.encode(picture)[0, 6] == tokenizer.encode(changed)[0, 6]
    alone = tokenizer.encode(picture[:, :, 16:32, 32:48])
    assert tokenizer.encode(picture)[0, 6] == alone[0, 0]


def test_patches_are_in_raster_order() -> None:
    picture = torch.arange(6.0).reshape(1, 1, 2, 3).expand(1, 3, 2, 3).repeat_interleave(16, 2).repeat_interleave(16, 3)
    assert patches_of(picture, 16).mean(-1).tolist() == [[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]]


def test_the_first_bit_is_the_most_significant(tokenizer: SmallImageTokenizer) -> None:
    with torch.no_grad():
        tokenizer.encoder.outer.weight.zero_()
        tokenizer.encoder.outer.bias.copy_(torch.tensor([1.0, -1.0, -1.0, 0.0, 1.0]))
    assert tokenizer.encode(noise(1, 3, 16, 16)).tolist() == [[0b10001]]  # zero counts as a bit that is not set


def test_the_prevailing_plain_colour_shows_through(tokenizer: SmallImageTokenizer) -> None:
    codes = torch.tensor([[RED, RED, RED, BLUE, GLASS, SPOT, RED, RED, RED]])
    picture = tokenizer.decode(codes, (3, 3))[0]
    assert picture[:, 16:32, 16:32].mean((1, 2)).tolist() == pytest.approx([1.0, -1.0, -1.0])
    assert picture[:, 17, 33].tolist() == pytest.approx([1.0, -1.0, -1.0])
    assert picture[:, 24, 40].tolist() == pytest.approx([1.0, 1.0, 1.0])


def test_near_plain_cells_count_more_than_far_ones(tokenizer: SmallImageTokenizer) -> None:
    codes = torch.tensor([[RED, RED, GLASS, *[SPOT] * 9, GLASS, BLUE, BLUE]])
    picture = tokenizer.decode(codes, (1, 15))[0]
    assert picture[:, 0, 2 * 16].tolist() == pytest.approx([1.0, -1.0, -1.0])
    assert picture[:, 0, 12 * 16].tolist() == pytest.approx([-1.0, -1.0, 1.0])


def test_without_plain_cells_the_ground_is_grey(tokenizer: SmallImageTokenizer) -> None:
    assert tokenizer.decode(torch.tensor([[GLASS, SPOT]]), (1, 2))[0, :, 0, 0].tolist() == [0.0, 0.0, 0.0]


def test_a_row_decodes_alone_as_in_a_batch(tokenizer: SmallImageTokenizer) -> None:
    codes = torch.randint(32, (3, 16), generator=torch.Generator().manual_seed(3))
    together = tokenizer.decode(codes, (4, 4))
    assert torch.equal(together[1:2], tokenizer.decode(codes[1:2], (4, 4)))


@pytest.mark.parametrize("code", [-1, 32])
def test_a_code_outside_the_codebook_is_refused(tokenizer: SmallImageTokenizer, code: int) -> None:
    with pytest.raises(VocabularyError, match="0 to 31"):
        tokenizer.decode(torch.tensor([[code]]), (1, 1))


def test_codes_that_do_not_fill_the_grid_are_refused(tokenizer: SmallImageTokenizer) -> None:
    with pytest.raises(VocabularyError, match="2 rows x 2 columns"):
        tokenizer.decode(torch.zeros(1, 3, dtype=torch.long), (2, 2))


def test_a_saved_tokenizer_comes_back_the_same(tokenizer: SmallImageTokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    loaded = SmallImageTokenizer.load(tmp_path)
    assert loaded.fingerprint() == tokenizer.fingerprint()
    assert torch.equal(loaded.encode(noise(1, 3, 64, 64)), tokenizer.encode(noise(1, 3, 64, 64)))
    assert sorted(path.name for path in tmp_path.iterdir()) == [CONFIG_NAME, WEIGHTS_NAME]


def test_the_fingerprint_follows_the_weights(tokenizer: SmallImageTokenizer) -> None:
    before = tokenizer.fingerprint()
    tokenizer.tiles[0, 0, 0, 0] += 0.5
    assert tokenizer.fingerprint() != before


@pytest.mark.parametrize("name", [CONFIG_NAME, WEIGHTS_NAME])
def test_a_missing_file_is_named(tokenizer: SmallImageTokenizer, tmp_path: Path, name: str) -> None:
    tokenizer.save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(CheckpointError, match="missing"):
        SmallImageTokenizer.load(tmp_path)


@pytest.mark.parametrize("name", [CONFIG_NAME, WEIGHTS_NAME])
def test_a_damaged_file_is_one_clear_line(tokenizer: SmallImageTokenizer, tmp_path: Path, name: str) -> None:
    tokenizer.save(tmp_path)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:20])
    with pytest.raises(CheckpointError, match="damaged") as caught:
        SmallImageTokenizer.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_weights_of_another_size_are_refused(tokenizer: SmallImageTokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    (tmp_path / CONFIG_NAME).write_text('{"num_bits": 6, "hidden_dim": 16}')
    with pytest.raises(CheckpointError, match="another version"):
        SmallImageTokenizer.load(tmp_path)
