"""Training of the embedded image tokenizer on a tiny world."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dynin.errors import CheckpointError, ConfigError
from dynin.tokenizers.small.image import SmallImageConfig, SmallImageTokenizer
from dynin.training.codec_image import ImageCodecTraining, bits_of, train_image_codec
from dynin.training.codec_tiles import (
    Artwork,
    TileChoice,
    draw_batch,
    emoji_artwork,
    make_tiles,
    over,
    quarters,
    tiles_of,
    tree_order,
)

SIZES = SmallImageConfig(num_bits=6, hidden_dim=48)
CHOICE = TileChoice(num_plain=12, num_objects=3)
CONFIG = ImageCodecTraining(
    choice=CHOICE, num_steps=150, batch_patches=128, learning_rate=5e-3, warmup_steps=10, save_every=50
)


@pytest.fixture(scope="module")
def artwork() -> Artwork:
    return emoji_artwork(("star", "red heart", "tree", "blue book"))


@pytest.fixture(scope="module")
def trained(artwork: Artwork, tmp_path_factory: pytest.TempPathFactory) -> SmallImageTokenizer:
    return train_image_codec(artwork, tmp_path_factory.mktemp("codec"), sizes=SIZES, config=CONFIG)


def test_a_sprite_has_the_same_code_on_every_ground(artwork: Artwork, trained: SmallImageTokenizer) -> None:
    tiles = make_tiles(artwork, CHOICE, trained.codebook_size)
    right = []
    for ground in artwork.grounds:
        shown = over(tiles.pictures[tiles.world], ground[None].expand(len(tiles.world), 3))
        right.append(trained.encode(shown)[:, 0] == tiles.world)
    assert torch.stack(right).float().mean() > 0.9


def test_the_tiles_of_sprites_are_exact(artwork: Artwork, trained: SmallImageTokenizer) -> None:
    sprites = quarters(artwork.large)
    visible = sprites[sprites[:, 3].sum((1, 2)) > 2]
    assert all(any(torch.equal(patch, tile) for tile in trained.tiles) for patch in visible)


def test_a_continued_run_equals_an_uninterrupted_one(artwork: Artwork, tmp_path: Path) -> None:
    short = replace(CONFIG, num_steps=20, save_every=10)
    whole = train_image_codec(artwork, tmp_path / "whole", sizes=SIZES, config=short)

    class PowerCutError(Exception):
        """Ends a run between two saves."""

    saved = SmallImageTokenizer.save
    calls = []

    def save_once(self: SmallImageTokenizer, folder: Path) -> None:
        if calls:
            raise PowerCutError
        calls.append(folder)
        saved(self, folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SmallImageTokenizer, "save", save_once)
        with pytest.raises(PowerCutError):
            train_image_codec(artwork, tmp_path / "parts", sizes=SIZES, config=short)
    continued = train_image_codec(artwork, tmp_path / "parts", sizes=SIZES, config=short)
    assert continued.fingerprint() == whole.fingerprint()


def test_the_state_of_other_settings_is_refused(artwork: Artwork, tmp_path: Path) -> None:
    short = replace(CONFIG, num_steps=2)
    train_image_codec(artwork, tmp_path, sizes=SIZES, config=short)
    with pytest.raises(CheckpointError, match="other settings"):
        train_image_codec(artwork, tmp_path, sizes=SIZES, config=replace(short, num_steps=3))


def test_training_on_from_weights_keeps_the_meaning_of_codes(artwork: Artwork, trained: SmallImageTokenizer) -> None:
    first = make_tiles(artwork, CHOICE, trained.codebook_size)
    kept = tiles_of(trained, artwork, replace(CHOICE, num_plain=20))
    named = torch.cat([first.world, first.others, first.is_plain.nonzero()[:, 0]])
    assert torch.equal(kept.pictures[named], first.pictures[named])
    assert set(kept.world.tolist()) == set(first.world.tolist())
    assert int(kept.is_plain.sum()) == 20
    assert bool(kept.is_plain[first.is_plain].all())


def test_a_tokenizer_of_other_artwork_cannot_be_trained_on(trained: SmallImageTokenizer) -> None:
    with pytest.raises(CheckpointError, match="no tile"):
        tiles_of(trained, emoji_artwork(("dog",)), CHOICE)


def test_a_codebook_that_is_too_small_is_refused(artwork: Artwork) -> None:
    with pytest.raises(ConfigError, match="more than 16 codes"):
        make_tiles(artwork, CHOICE, 16)


def test_batches_repeat_with_their_generator(artwork: Artwork) -> None:
    tiles = make_tiles(artwork, CHOICE, 64)
    one, two = (draw_batch(tiles, artwork, CHOICE, 64, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
    assert one[0].shape == (64, 768)


def test_bits_are_most_significant_first() -> None:
    assert bits_of(torch.tensor([0b10001]), 5).tolist() == [[1.0, 0.0, 0.0, 0.0, 1.0]]


def test_the_tree_keeps_near_points_together() -> None:
    points = torch.tensor([[10.0], [0.0], [11.0], [1.0]])
    halves = tree_order(points)[:2], tree_order(points)[2:]
    assert {frozenset(half.tolist()) for half in halves} == {frozenset({1, 3}), frozenset({0, 2})}
