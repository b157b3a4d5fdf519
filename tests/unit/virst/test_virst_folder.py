"""A trained VIRST in one folder."""

import shutil
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from dynin import checkpoint
from dynin.errors import CheckpointError
from dynin.testing import tiny_model
from dynin.training.config import LoraConfig
from dynin.virst import folder
from dynin.virst.batch import make_batch
from dynin.virst.build import build
from dynin.virst.config import BackboneConfig, BranchConfig, VirstConfig
from dynin.virst.tracker import TrackerConfig
from tests.tiny_virst import CONFIG, example


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("start") / "model")


def settings(start) -> VirstConfig:
    backbone = BackboneConfig(start=str(start), lora=LoraConfig(rank=2))
    return replace(CONFIG, backbone=backbone, branch=BranchConfig(image_px=32, hiera_width=8))


def test_what_was_saved_segments_as_before_and_the_start_is_not_in_it(start, tmp_path):
    model = build(settings(start), seed=1).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if ".lora_B" in name:
                value.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    folder.save(tmp_path / "virst", model, dtype=torch.float32, provenance={"steps": 3})
    stored = checkpoint.load(tmp_path / "virst")
    assert stored.provenance == {"steps": 3}
    assert not any(
        "base_layer" in name or "embed.weight" in name for name in stored.tensors if name.startswith("backbone")
    )
    assert {name.split(".")[0] for name in stored.tensors} == {"backbone", "initial", "second", "branch"}
    again = folder.load(tmp_path / "virst")
    assert again.config == model.config
    batch = make_batch([[example()]], model.sizes)
    with torch.no_grad():
        first, second = (made.own_masks(made(batch), [(0, 1)], TrackerConfig()).mask_logits for made in (model, again))
    assert_close(first, second)


def test_a_start_with_another_content_is_refused_and_may_lie_elsewhere(start, tmp_path):
    folder.save(tmp_path / "virst", build(settings(start), seed=1))
    moved = tmp_path / "moved"
    shutil.copytree(start, moved)
    assert folder.load(tmp_path / "virst", start=str(moved)).config.backbone.start == str(moved)
    with pytest.raises(CheckpointError, match=r"another content of .*other.* `start`"):
        folder.load(tmp_path / "virst", start=str(tiny_model(tmp_path / "other", seed=1)))


def test_a_folder_that_holds_something_else_or_lacks_a_tensor_is_refused(start, tmp_path):
    with pytest.raises(CheckpointError, match="expected a VIRST"):
        folder.load(start)
    model = build(settings(start), seed=1)
    folder.save(tmp_path / "virst", model)
    part = checkpoint.load(tmp_path / "virst")
    checkpoint.save(
        tmp_path / "virst", replace(part, tensors={k: v for k, v in part.tensors.items() if "gate" not in k})
    )
    with pytest.raises(CheckpointError, match=r"missing: .*initial\.gate"):
        folder.load(tmp_path / "virst")
    with pytest.raises(CheckpointError, match="unknown: strange"):
        folder.save(tmp_path / "new", model, tensors={"strange": torch.zeros(1)})
    assert not (tmp_path / "new").exists()


def test_the_default_small_virst_takes_at_most_8_mib(tmp_path):
    model = build(VirstConfig(), seed=0)
    assert sum(value.numel() for value in folder.learned(model).values()) * 2 <= 8 * 2**20
