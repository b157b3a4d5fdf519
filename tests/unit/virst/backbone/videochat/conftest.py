import json

import pytest
import torch

from dynin.tokenizers.text import ByteLevelText
from dynin.virst.backbone.videochat.config import LanguageConfig, TowerConfig, VideoChatConfig
from dynin.virst.backbone.videochat.model import draw

TEXTS = ("Reference image: What is the dog in the image? It is (0), (1). You are a helpful assistant.", "user system\n")


@pytest.fixture(scope="session")
def text():
    """A tokenizer with the three control tokens of Qwen2 behind its pieces."""
    values = json.loads(ByteLevelText.train(TEXTS, size=300).to_json())
    size = len(values["model"]["vocab"])
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    names = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    values["added_tokens"] = [{"id": size + at, "content": name, **flags} for at, name in enumerate(names)]
    return ByteLevelText.from_json(json.dumps(values))


@pytest.fixture(scope="session")
def config(text):
    """A model of the published kind, 32 wide: clips of 2 frames of 4 x 4 patches, merged to 4 tokens a frame."""
    return VideoChatConfig(
        tower=TowerConfig(
            width=32, num_layers=2, num_heads=4, mlp_dim=64, patch_px=4, frame_px=16, clip_frames=2, trained_side=2,
            trained_frames=2,
        ),
        language=LanguageConfig(
            width=48, num_layers=2, num_heads=4, num_kv_heads=2, mlp_dim=64, num_rows=text.size + 20, max_len=512
        ),
        tokens_per_frame=4,
        tokens_per_picture=6,
        num_st=3,
        max_frames=8,
    )  # fmt: skip


@pytest.fixture(scope="session")
def model(config, text):
    made = draw(config, text, torch.Generator().manual_seed(7))
    with torch.no_grad():
        made.st_embed.normal_(generator=torch.Generator().manual_seed(8))
    return made
