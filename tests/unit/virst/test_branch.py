"""Mask branches of three families: what they promise, and how their weights are read."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from dynin.errors import CheckpointError, ConfigError
from dynin.pickled import to_safetensors
from dynin.virst.branch import convert
from dynin.virst.branch.build import build, config_values, small_config
from dynin.virst.branch.protocol import MaskBranch, MaskOutput, Pointed, Recalled, concatenate
from tests.tiny_branch import (
    IMAGE_PX,
    WIDTH,
    edgetam_config,
    make_branch,
    random_frames,
    sam2_config,
    sam3_config,
    shared_branch,
)

PROMPTS = torch.randn(2, 3, WIDTH, generator=torch.Generator().manual_seed(0))


def published_virst(branch) -> dict[str, torch.Tensor]:
    return {convert.VIRST_PREFIX + name: value for name, value in convert.to_published(branch).items()}


def same(first, second) -> bool:
    states = first.network.state_dict(), second.network.state_dict()
    return states[0].keys() == states[1].keys() and all(
        torch.equal(states[0][name], states[1][name]) for name in states[0]
    )


@pytest.mark.parametrize("values", [sam2_config(), edgetam_config(), sam3_config()], ids=["sam2", "edgetam", "sam3"])
def test_a_branch_encodes_decodes_remembers_and_attends(values) -> None:
    branch = make_branch(values).eval()
    assert isinstance(branch, MaskBranch)
    features = branch.encode(random_frames(2))
    assert features.cells.shape == (2, branch.width, *branch.grid)
    output = branch.decode(branch.without_memory(features), features, PROMPTS, choice="best")
    assert output.mask_logits.shape == (2, *branch.mask_size)
    memory = branch.remember(features, output)
    assert memory.pointer.shape == (2, branch.width)
    recalled = [Recalled(memory=memory, steps_back=0), Recalled(memory=memory, steps_back=2)]
    cells = branch.attend(features, recalled, [Pointed(pointer=memory.pointer, distance=2)], max_pointers=16)
    assert cells.shape == features.cells.shape
    assert not torch.allclose(cells, branch.attend(features, recalled[:1], [], max_pointers=16))


def test_features_do_not_depend_on_how_many_frames_are_encoded_at_a_time() -> None:
    branch, frames = shared_branch(), random_frames(5)
    whole, parts = branch.encode(frames, chunk=8), branch.encode(frames, chunk=2)
    torch.testing.assert_close(whole.cells, parts.cells, atol=1e-5, rtol=1e-4)
    again = concatenate([branch.encode(frames[:3]), branch.encode(frames[3:])])
    torch.testing.assert_close(whole.fine[0], again.fine[0], atol=1e-5, rtol=1e-4)


def test_frames_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="1 frames of 40 x 32 px were given, the mask branch takes at least one of 64"):
        shared_branch().encode(torch.zeros(1, 3, 32, 40))


def test_training_and_evaluation_choose_the_same_candidate() -> None:
    branch = make_branch(sam2_config())
    features = branch.encode(random_frames(2))
    for choice in ("single", "best"):
        outputs = []
        for mode in (True, False):
            branch.train(mode)
            outputs.append(branch.decode(branch.without_memory(features), features, PROMPTS, choice=choice))
        assert torch.equal(outputs[0].mask_logits, outputs[1].mask_logits)
        assert torch.equal(outputs[0].chosen, outputs[0].candidate_iou.argmax(dim=1))
        assert outputs[0].candidate_logits.shape[1] == (1 if choice == "single" else 3)


def output_of(logit: float, score: float) -> MaskOutput:
    return MaskOutput(
        mask_logits=torch.full((1, 2, 2), logit),
        predicted_iou=torch.tensor([0.5]),
        object_score=torch.tensor([score]),
        pointer=torch.zeros(1, 4),
        candidate_logits=torch.full((1, 1, 2, 2), logit),
        candidate_iou=torch.tensor([[0.5]]),
        chosen=torch.tensor([0]),
    )


@settings(deadline=None)
@given(logit=st.floats(-60, 60, width=32), score=st.floats(-60, 60, width=32))
def test_the_soft_gate_is_the_product_of_both_probabilities(logit: float, score: float) -> None:
    gated = output_of(logit, score).gated_logits("soft")
    expected = torch.tensor(logit).double().sigmoid() * torch.tensor(score).double().sigmoid()
    torch.testing.assert_close(gated.double().sigmoid(), expected.expand(1, 2, 2), atol=1e-6, rtol=1e-4)


def test_the_hard_gate_empties_a_mask_that_is_judged_absent() -> None:
    assert output_of(3.0, -0.1).gated_logits().max() < -1000
    assert output_of(3.0, 0.1).gated_logits().min() == 3.0


def test_a_small_branch_has_about_a_million_parameters_and_is_drawn_by_its_generator() -> None:
    drawn = [build(small_config(), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert same(drawn[0], drawn[1])
    assert not same(drawn[0], drawn[2])
    assert 0.8e6 < sum(value.numel() for value in drawn[0].parameters()) < 2.5e6


def test_a_branch_is_built_again_from_its_config() -> None:
    branch = shared_branch()
    again = build(config_values(branch), torch.Generator().manual_seed(9))
    again.network.load_state_dict(branch.network.state_dict())
    again.eval()
    assert torch.equal(again.encode(random_frames(1)).cells, branch.encode(random_frames(1)).cells)


def test_unknown_families_and_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model type 'sam2_vide' was asked for.*did you mean 'sam2_video'"):
        build({"model_type": "sam2_vide"})
    with pytest.raises(ConfigError, match="a mask branch of width 32 for frames of 60 px"):
        small_config(60, width=32)
    with pytest.raises(ConfigError, match="the config makes no Sam2VideoModel"):
        build({"model_type": "sam2_video", "memory_attention_hidden_size": "wide"})


@pytest.mark.parametrize(
    ("ours", "published"),
    [
        ("vision_encoder.backbone.blocks.3.mlp.proj_out.weight", "image_encoder.trunk.blocks.3.mlp.layers.1.weight"),
        ("vision_encoder.backbone.blocks.3.layer_norm2.bias", "image_encoder.trunk.blocks.3.norm2.bias"),
        ("vision_encoder.neck.convs.2.weight", "image_encoder.neck.convs.2.conv.weight"),
        ("mask_decoder.upscale_layer_norm.weight", "sam_mask_decoder.output_upscaling.1.weight"),
        (
            "mask_decoder.output_hypernetworks_mlps.2.proj_out.bias",
            "sam_mask_decoder.output_hypernetworks_mlps.2.layers.2.bias",
        ),
        (
            "mask_decoder.output_hypernetworks_mlps.2.layers.0.bias",
            "sam_mask_decoder.output_hypernetworks_mlps.2.layers.1.bias",
        ),
        (
            "mask_decoder.transformer.layers.1.mlp.proj_in.bias",
            "sam_mask_decoder.transformer.layers.1.mlp.layers.0.bias",
        ),
        (
            "mask_decoder.transformer.layer_norm_final_attn.bias",
            "sam_mask_decoder.transformer.norm_final_attn.bias",
        ),
        ("memory_encoder.mask_downsampler.layers.2.layer_norm.bias", "memory_encoder.mask_downsampler.encoder.7.bias"),
        ("memory_encoder.mask_downsampler.final_conv.weight", "memory_encoder.mask_downsampler.encoder.12.weight"),
        ("memory_encoder.memory_fuser.layers.1.scale", "memory_encoder.fuser.layers.1.gamma"),
        ("memory_encoder.projection.weight", "memory_encoder.out_proj.weight"),
        ("memory_attention.layers.0.self_attn.o_proj.weight", "memory_attention.layers.0.self_attn.out_proj.weight"),
        ("object_pointer_proj.layers.0.weight", "obj_ptr_proj.layers.1.weight"),
        ("temporal_positional_encoding_projection_layer.bias", "obj_ptr_tpos_proj.bias"),
        (
            "prompt_encoder.shared_embedding.positional_embedding",
            "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
        ),
    ],
)
def test_names_of_sam2_are_known(ours: str, published: str) -> None:
    assert convert.published_name(ours, 4) == published


@pytest.fixture
def tiny_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny network is one of the published sizes, so that whole files of it can be written and read."""
    monkeypatch.setattr(convert, "SIZES", {**convert.SIZES, "tiny": sam2_config()})


@pytest.mark.usefixtures("tiny_size")
def test_published_weights_come_back_as_they_were(tmp_path) -> None:
    branch = shared_branch()
    torch.save({"model": convert.to_published(branch)}, tmp_path / "sam2.1_hiera_tiny.pt")
    to_safetensors(tmp_path, tmp_path / "new")
    assert same(convert.load(tmp_path / "new"), branch)


@pytest.mark.usefixtures("tiny_size")
def test_the_mask_branch_of_a_virst_is_found_below_its_prefix() -> None:
    branch = shared_branch()
    assert same(convert.from_virst(published_virst(branch)), branch)
    with pytest.raises(CheckpointError, match="are no mask branch of SAM2"):
        convert.from_virst({"model.layers.0.mlp.weight": torch.zeros(1)})


@pytest.mark.usefixtures("tiny_size")
def test_a_missing_an_unknown_and_a_misshapen_tensor_are_all_named(tmp_path) -> None:
    tensors = convert.to_published(shared_branch())
    del tensors["no_mem_embed"]
    tensors["memory_attention.norm.weight"] = torch.zeros(3)
    tensors["extra"] = torch.zeros(1)
    save_file({name: value.contiguous() for name, value in tensors.items()}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"missing: no_mem_embed; unknown: extra; wrong shapes: memory_attention"):
        convert.load(tmp_path)


def test_the_layout_of_transformers_is_read_strictly(tmp_path) -> None:
    branch = make_branch(edgetam_config()).eval()
    (tmp_path / "config.json").write_text(json.dumps(config_values(branch)))
    state = {name: value.clone() for name, value in branch.network.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    assert same(convert.load(tmp_path), branch)
    save_file({name: state[name] for name in list(state)[1:]}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=rf"{tmp_path}.*missing: {next(iter(state))}"):
        convert.load(tmp_path)


def test_a_folder_with_another_model_is_told_apart(tmp_path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=f"{tmp_path}: holds no mask branch but a; name a folder"):
        convert.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "num_parameters"),
    [
        ("sam2.1_hiera_tiny", 38_962_498),
        ("sam2.1_hiera_small", 46_060_354),
        ("sam2.1_hiera_base_plus", 80_850_178),
        ("sam2.1_hiera_large", 224_446_642),
    ],
)
def test_published_sizes_have_the_published_numbers_of_parameters(name: str, num_parameters: int) -> None:
    """38.9, 46, 80.8 and 224.4 million, as SAM2's own table says."""
    with torch.device("meta"):
        branch = build(convert.SIZES[name])
    assert sum(value.numel() for value in branch.parameters()) == num_parameters
    shapes = {published: tuple(value.shape) for published, value in convert.to_published(branch).items()}
    assert convert.size_of(shapes) == name


def test_the_older_name_of_the_base_of_angles_is_read() -> None:
    values = {**sam2_config(), "memory_attention_rope_theta": 500}
    assert build(values).network.config.rope_parameters["rope_theta"] == 500


def test_an_image_encoder_of_no_published_size_is_refused() -> None:
    with pytest.raises(CheckpointError, match=f"width {IMAGE_PX} with 1 blocks is of no published size"):
        convert.size_of(
            {
                "image_encoder.trunk.patch_embed.proj.bias": (IMAGE_PX,),
                "image_encoder.trunk.blocks.0.norm1.bias": (IMAGE_PX,),
            }
        )
