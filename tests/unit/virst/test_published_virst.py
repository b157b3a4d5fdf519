"""A whole published VIRST, in little: three parts in one folder, as the published code writes them."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from dynin.errors import CheckpointError, ConfigError
from dynin.pickled import to_safetensors
from dynin.tokenizers.text import ByteLevelText
from dynin.training.config import LoraConfig
from dynin.virst.backbone.protocol import Clips, Sentences
from dynin.virst.backbone.videochat.config import LanguageConfig, TowerConfig, VideoChatConfig
from dynin.virst.backbone.videochat.load import add_adapters
from dynin.virst.backbone.videochat.model import draw
from dynin.virst.branch import convert as branch_names
from dynin.virst.cells import SeenFrames
from dynin.virst.config import FusionConfig
from dynin.virst.model import Virst
from dynin.virst.published import PUBLISHED, load, to_published
from dynin.virst.segment import SegmentConfig, Segmenter
from tests import tiny_branch, tiny_virst

CONFIG = replace(PUBLISHED, num_st=3, fusion=FusionConfig(num_downs=1, initial_heads=2, heads=2))
LAYOUTS = ("peft-0.4", "peft")


@pytest.fixture(scope="module")
def text():
    values = json.loads(ByteLevelText.train(["It is (0), (1). the dog in the image"], size=280).to_json())
    size = len(values["model"]["vocab"])
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    names = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    values["added_tokens"] = [{"id": size + at, "content": name, **flags} for at, name in enumerate(names)]
    return ByteLevelText.from_json(json.dumps(values))


@pytest.fixture(scope="module")
def sizes(text):
    return VideoChatConfig(
        tower=TowerConfig(width=16, num_layers=1, num_heads=2, mlp_dim=32, patch_px=4, frame_px=16, clip_frames=2),
        language=LanguageConfig(
            width=32, num_layers=1, num_heads=2, num_kv_heads=1, mlp_dim=32, num_rows=text.size + 8, max_len=512
        ),
        tokens_per_frame=4,
        tokens_per_picture=4,
        num_st=3,
    )


@pytest.fixture(scope="module")
def virst(sizes, text):
    backbone = draw(sizes, text, torch.Generator().manual_seed(1))
    add_adapters(backbone, LoraConfig(rank=2, alpha=16.0), seed=2)
    with torch.no_grad():
        backbone.st_embed.normal_(generator=torch.Generator().manual_seed(3))
        for name, value in backbone.named_parameters():
            if ".lora_B" in name:
                value.normal_(0, 0.05, generator=torch.Generator().manual_seed(4))
    return Virst(CONFIG, backbone, tiny_branch.make_branch(tiny_branch.sam2_config()), seed=5).eval()


@pytest.fixture(autouse=True)
def _small_size(monkeypatch):
    """The mask branch's size counts among the published ones, by which it is told."""
    monkeypatch.setattr(branch_names, "SIZES", {"small": tiny_branch.sam2_config()})


def write(folder, tensors, text):
    folder.mkdir()
    save_file(
        {name: value.detach().contiguous().clone() for name, value in tensors.items()}, folder / "model.safetensors"
    )
    (folder / "tokenizer.json").write_text(text.to_json())
    return folder


@torch.no_grad()
def prompts(model):
    generator = torch.Generator().manual_seed(0)
    clips = Clips(frames=torch.rand(1, 3, 3, 16, 16, generator=generator), is_frame=torch.ones(1, 3, dtype=torch.bool))
    features = torch.randn(1, 3, model.branch.width, 4, 4, generator=generator)
    seen = SeenFrames(features=features, is_frame=clips.is_frame, times=torch.arange(3.0)[None])
    return model.prompts(clips, seen, Sentences(texts=("the dog",), videos=(0,)))[0].tokens


@pytest.mark.parametrize("layout", LAYOUTS)
def test_three_parts_of_one_folder_make_the_model_that_was_written(tmp_path, virst, sizes, text, layout):
    published = to_published(virst, layout=layout)
    assert all(name.startswith("base_model.model.") for name in published)
    unused = {"base_model.model.model.occ_predictor.weight": torch.zeros(1, 128)}
    again = load(write(tmp_path / "virst", published | unused, text), config=CONFIG, sizes=sizes)
    torch.testing.assert_close(prompts(again), prompts(virst), rtol=1e-3, atol=1e-4)
    for part in ("initial", "second", "branch"):
        state = getattr(virst, part).state_dict()
        assert all(torch.equal(value, state[name]) for name, value in getattr(again, part).state_dict().items())
    assert not again.training
    assert not any(value.requires_grad for value in again.parameters())


def test_the_pickle_as_it_is_published_becomes_the_folder(tmp_path, virst, sizes, text):
    (tmp_path / "fetched").mkdir()
    published = {name: value.detach().clone() for name, value in to_published(virst).items()}
    torch.save({"model_state_dict": published, "epoch": 3}, tmp_path / "fetched" / "virst_checkpoint.pt")
    with pytest.raises(CheckpointError, match="the weights are pickled"):
        load(tmp_path / "fetched", config=CONFIG, sizes=sizes)
    to_safetensors(tmp_path / "fetched", tmp_path / "virst")
    (tmp_path / "videochat").mkdir()
    (tmp_path / "videochat" / "tokenizer.json").write_text(text.to_json())
    again = load(tmp_path / "virst", config=CONFIG, sizes=sizes, text_folder=tmp_path / "videochat")
    torch.testing.assert_close(prompts(again), prompts(virst), rtol=1e-3, atol=1e-4)


def test_a_backbone_in_bfloat16_works_beside_fusions_in_float32(tmp_path, virst, sizes, text):
    folder = write(tmp_path / "virst", to_published(virst), text)
    again = load(folder, config=CONFIG, sizes=sizes, dtype=torch.bfloat16)
    found = prompts(again)
    assert found.dtype == torch.float32
    assert float((found - prompts(virst)).abs().max()) < 0.1


@pytest.mark.parametrize("frames", [1, 5])
def test_a_published_model_segments_a_video_and_a_picture(tmp_path, virst, sizes, text, frames):
    model = load(write(tmp_path / "virst", to_published(virst), text), config=CONFIG, sizes=sizes)
    example = tiny_virst.example("which dog turns back?", frames=frames, height=20, width=32)
    masks = [*Segmenter(model, SegmentConfig()).predict(example)]
    assert [mask.shape for mask in masks] == [(20, 32)] * frames


def test_the_initial_fusion_may_be_left_off(tmp_path, virst, sizes, text):
    folder = write(tmp_path / "virst", to_published(virst), text)
    off = replace(CONFIG, fusion=replace(CONFIG.fusion, initial=False))
    again = load(folder, config=off, sizes=sizes)
    assert again.initial is None
    assert float((prompts(again) - prompts(virst)).abs().max()) > 1e-5


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("model.seg_model.", "has no mask branch; expected a published VIRST"),
        ("model.seg_prompter.", "missing: model.seg_prompter"),
        ("model.seg_model.maskmem_tpos_enc", "missing: maskmem_tpos_enc"),
        ("model.initial_seg_fusion_module.gate", "missing: model.initial_seg_fusion_module.gate"),
        ("model.layers.", "missing: model.layers.0"),
    ],
)
def test_a_part_that_is_missing_is_named(tmp_path, virst, sizes, text, gone, message):
    published = {name: value for name, value in to_published(virst).items() if f"base_model.model.{gone}" not in name}
    if gone == "model.layers.":
        published = {name: value for name, value in published.items() if ".lora_" not in name}
    with pytest.raises(CheckpointError, match=message):
        load(write(tmp_path / "virst", published, text), config=CONFIG, sizes=sizes)


def test_a_config_of_another_kind_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="start from published.PUBLISHED"):
        load(tmp_path, config=replace(CONFIG, fusion=FusionConfig(second="mlp")))


def test_a_virst_with_another_backbone_has_no_published_names(virst):
    other = Virst(CONFIG, virst.backbone, virst.branch, seed=0)
    other.backbone = torch.nn.Identity()
    with pytest.raises(CheckpointError, match="Identity and Sam2Branch has no published names"):
        to_published(other)
