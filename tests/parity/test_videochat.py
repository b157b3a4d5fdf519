"""The video tower, token merging and connector of VideoChat-Flash equal recorded numbers of the published code."""

import json
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dynin.virst.backbone.videochat.config import LanguageConfig, TowerConfig, VideoChatConfig
from dynin.virst.backbone.videochat.connector import Connector
from dynin.virst.backbone.videochat.convert import published_name
from dynin.virst.backbone.videochat.umt import Tower, positions

FOLDER = Path(os.environ.get("DYNIN_GOLDEN", Path(__file__).parent / "golden"))
CARD, NUMBERS = FOLDER / "videochat_public.json", FOLDER / "videochat_public.npz"

pytestmark = pytest.mark.skipif(not NUMBERS.is_file(), reason="the folder has no numbers of VideoChat-Flash")


def values_of(name, shape):
    """The values that follow from a published tensor's name."""
    drawn = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()))).standard_normal(shape).astype(np.float32)
    if len(shape) == 1:
        return torch.from_numpy(drawn) * 0.1 + float(name.endswith("weight"))
    return torch.from_numpy(drawn) / float(np.prod(shape[1:])) ** 0.5


def close(found, expected):
    expected = torch.from_numpy(expected)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.fixture(scope="module")
def card():
    return json.loads(CARD.read_text())


@pytest.fixture(scope="module")
def golden():
    with np.load(NUMBERS) as numbers:
        return dict(numbers)


@pytest.fixture(scope="module")
def config(card):
    sizes = card["sizes"]
    tower = TowerConfig(
        width=sizes["embed_dim"],
        num_layers=sizes["depth"] + sizes["return_index"] + 1,
        num_heads=sizes["num_heads"],
        mlp_dim=4 * sizes["embed_dim"],
        patch_px=sizes["patch_size"],
        frame_px=sizes["img_size"],
        clip_frames=sizes["num_frames"],
    )
    width = sizes["hidden_size"]
    language = LanguageConfig(width=width, num_layers=1, num_heads=1, num_kv_heads=1, mlp_dim=width, num_rows=8)
    return VideoChatConfig(tower=tower, language=language)


@pytest.fixture(scope="module")
def network(card, config):
    """Tower and connector, filled by published names."""
    made = nn.ModuleDict({"tower": Tower(config.tower), "connector": Connector(config)})
    shapes = {name: tuple(value.shape) for name, value in made.state_dict().items()}
    assert {published_name(name): list(shape) for name, shape in shapes.items()} == card["tensors"]
    made.load_state_dict({name: values_of(published_name(name), shape) for name, shape in shapes.items()})
    return made.eval()


@pytest.fixture(scope="module")
def frames(config):
    px = config.tower.frame_px
    drawn = np.random.Generator(np.random.PCG64(7)).uniform(-1, 1, (8, 3, px, px)).astype(np.float32)
    return torch.from_numpy(drawn)


@torch.no_grad()
def test_clips_and_pictures_have_the_published_features_and_tokens(network, frames, golden, config):
    clips, picture = frames.unflatten(0, (2, 4)), frames[:1, None]
    for seen, patches, tokens, num_left in (
        (clips, "patches", "video", config.tokens_per_clip),
        (picture, "picture_patches", "picture", config.tokens_per_picture),
    ):
        found = network["tower"](seen)
        close(found[:, ::9], golden[patches])
        close(network["connector"](found, num_left), golden[tokens])


def test_positions_at_full_size_are_the_published_ones(golden):
    close(positions(4, TowerConfig())[::97, ::31], golden["positions"])
    close(positions(1, TowerConfig())[::97, ::31], golden["picture_positions"])
