"""The atlas is the one the manifest describes, and tiles are exact averages of it."""

import hashlib
import json
from importlib.resources import files

import numpy as np
import pytest

from dynin.data.emoji_world import artwork
from dynin.data.emoji_world.artwork import ARTWORKS, NAMES, SIZES_PX, TILE_PX, article, atlas, family, plural, tile


def manifest():
    return json.loads((files("dynin") / "assets" / "emoji_atlas.json").read_text())


def test_there_are_100_different_names_plurals_and_emoji():
    assert len(ARTWORKS) == 100
    for field in ("name", "plural", "emoji"):
        assert len({getattr(art, field) for art in ARTWORKS}) == 100


def test_the_atlas_is_the_one_of_the_manifest():
    packed = (files("dynin") / "assets" / "emoji_atlas.png").read_bytes()
    assert hashlib.sha256(packed).hexdigest() == manifest()["file_sha256"]
    assert hashlib.sha256(atlas().tobytes()).hexdigest() == manifest()["pixels_sha256"]
    assert len(packed) < 1_500_000


def test_the_manifest_lists_the_objects_in_their_order():
    assert tuple(manifest()["objects"]) == NAMES
    assert manifest()["tile_px"] == TILE_PX
    assert manifest()["columns"] == artwork.ATLAS_COLUMNS


@pytest.mark.parametrize("size_px", SIZES_PX)
def test_a_tile_is_premultiplied_and_conserves_the_mean(size_px):
    for name in ("dog", "red apple", "dinosaur"):
        small = tile(name, size_px).astype(np.float64)
        assert small.shape == (size_px, size_px, 4)
        assert (small[..., :3] <= small[..., 3:] + 1e-6).all()
        whole = tile(name, 64).astype(np.float64)
        np.testing.assert_allclose(small.mean(axis=(0, 1)), whole.mean(axis=(0, 1)), atol=1e-6)


def test_every_object_fills_its_tile():
    for name in NAMES:
        rows, columns = np.nonzero(tile(name, 64)[..., 3] > 0.1)
        height, width = int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1
        assert 58 <= max(height, width) <= 60, name
        assert abs(rows.min() + rows.max() - 63) <= 4, name
        assert abs(columns.min() + columns.max() - 63) <= 4, name


def test_no_two_objects_look_alike_when_small():
    small = np.stack([tile(name, 16) for name in NAMES]).astype(np.float64)
    for index, one in enumerate(small):
        distances = np.sqrt(((small - one) ** 2).mean(axis=(1, 2, 3)))
        distances[index] = 1
        assert distances.min() > 0.1, (NAMES[index], NAMES[int(distances.argmin())])


def test_words_around_names():
    assert [article(name) for name in ("dog", "owl", "umbrella", "red apple")] == ["a", "an", "an", "a"]
    assert [plural(name) for name in ("mouse", "fish", "leaf", "cactus")] == ["mice", "fish", "leaves", "cacti"]
    assert [family(name) for name in ("red heart", "blue book", "dog", "soccer ball")] == ["heart", "book", None, None]


def test_an_unknown_object_or_size_is_named():
    with pytest.raises(ValueError, match="'dogg' is unknown"):
        plural("dogg")
    with pytest.raises(ValueError, match="48 px"):
        tile("dog", 48)
