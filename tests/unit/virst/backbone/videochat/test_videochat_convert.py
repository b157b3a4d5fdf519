import json
import math

import pytest
import torch
from safetensors.torch import save_file

from dynin.errors import CheckpointError, ConfigError
from dynin.repository import open_repository
from dynin.tokenizers.text import ByteLevelText
from dynin.training.adapters import merged
from dynin.training.config import LoraConfig
from dynin.virst.backbone.protocol import Clips, Sentences
from dynin.virst.backbone.videochat import language
from dynin.virst.backbone.videochat import load as loading
from dynin.virst.backbone.videochat.config import VideoChatConfig, from_published
from dynin.virst.backbone.videochat.convert import (
    Part,
    contents_of,
    expected_shapes,
    folded,
    published_names,
    to_published,
)
from dynin.virst.backbone.videochat.load import add_adapters, config_of, load, load_folder, num_bytes, open_folder
from dynin.virst.backbone.videochat.model import VideoChat, draw
from dynin.virst.config import BackboneConfig

PEFT = ("peft-0.4", "peft")
LORA = LoraConfig(rank=4, alpha=16.0)


class FullSizeText(ByteLevelText):
    """Stands for the published tokenizer where only its number of ids is asked for."""

    def __init__(self):
        self.size = 151_643
        self.added = {"<|endoftext|>": 151_643, "<|im_start|>": 151_644, "<|im_end|>": 151_645}

    def encode(self, text):
        return [0]


def write(folder, tensors, num_shards=1):
    """A folder as the hub has it; in several shards, adapters lie away from their matrices."""
    folder.mkdir(exist_ok=True)
    names = sorted(tensors, key=lambda name: (".lora_" not in name, name))
    if num_shards == 1:
        save_file({name: tensors[name].contiguous() for name in names}, folder / "model.safetensors")
        return folder
    size = math.ceil(len(names) / num_shards)
    weight_map = {}
    for shard in range(num_shards):
        part, file = names[shard * size : (shard + 1) * size], f"model-{shard + 1:05d}-of-{num_shards:05d}.safetensors"
        save_file({name: tensors[name].contiguous() for name in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


@pytest.fixture(scope="module")
def adapted(config, text):
    """A model with adapters that do something."""
    made = draw(config, text, torch.Generator().manual_seed(3))
    add_adapters(made, LORA, seed=4)
    with torch.no_grad():
        made.st_embed.normal_(generator=torch.Generator().manual_seed(5))
        for name, value in made.named_parameters():
            if ".lora_B." in name:
                value.normal_(0, 0.05, generator=torch.Generator().manual_seed(len(name)))
    return made.eval()


@pytest.fixture
def tensors(adapted):
    return to_published(adapted.state_dict(), adapted.prompter.st_id, layout="peft-0.4")


def read_back(folder, config, text, **options):
    contents = open_folder(folder)
    return load(contents, text, config_of(contents, config), **options)


def with_st_row(state, model):
    """A state whose table has the [ST] embedding in its row, as files do; the model itself never reads that row."""
    table = state["language.embed_tokens.weight"].clone()
    table[model.prompter.st_id] = model.st_embed.detach()[0]
    return {**state, "language.embed_tokens.weight": table}


@torch.no_grad()
def states(model):
    frames = torch.rand(1, 3, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    clips = Clips(frames=frames, is_frame=torch.ones(1, 3, dtype=torch.bool))
    return model.read(clips, Sentences(texts=("a dog",), videos=(0,)), model.st_embeddings()[None]).st_states


# --- the published size -----------------------------------------------------------------------------------------------


def test_the_published_model_has_646_tensors_and_takes_15_85_gb():
    config, text = VideoChatConfig(), FullSizeText()
    shapes = expected_shapes(config, text)
    names = published_names(config, text)
    assert len(names) == 646
    assert num_bytes(config, text, 2) - 2 * 3584 == 2 * sum(math.prod(shapes[ours]) for ours in names.values())
    assert round(2 * sum(math.prod(shapes[ours]) for ours in names.values()) / 1e9, 2) == 15.85
    connector = sum(math.prod(shape) for name, shape in shapes.items() if name.startswith("connector."))
    assert round(connector / 1e6, 1) == 16.5
    tower = sum(math.prod(shape) for name, shape in shapes.items() if name.startswith("tower."))
    assert round(tower / 1e9, 1) == 0.3
    assert shapes["language.layers.27.mlp.down_proj.weight"] == (3584, 18_944)
    assert shapes["language.layers.27.self_attn.k_proj.weight"] == (512, 3584)
    assert shapes["head.weight"] == (152_064, 3584)
    tower_name = "model.vision_tower.vision_tower.encoder.blocks.22"
    assert {name.removeprefix(tower_name) for name in names if name.startswith(f"{tower_name}.")} == {
        f".{leaf}"
        for leaf in (
            "norm1.weight norm1.bias attn.q_bias attn.v_bias attn.qkv.weight attn.proj.weight attn.proj.bias "
            "norm2.weight norm2.bias mlp.fc1.weight mlp.fc1.bias mlp.fc2.weight mlp.fc2.bias"
        ).split()
    }


def test_the_published_adapters_lie_beside_196_matrices():
    with torch.device("meta"):
        model = VideoChat(VideoChatConfig(), FullSizeText())
        matrices = [
            part.weight.shape
            for name, part in model.language.named_modules()
            if isinstance(part, torch.nn.Linear) and name.endswith("_proj")
        ]
    assert len(matrices) == 196
    assert round(64 * sum(rows + columns for rows, columns in matrices) / 1e6, 1) == 161.5


def test_the_published_st_token_is_id_151646_and_fits_the_shrunken_table():
    with torch.device("meta"):
        model = VideoChat(VideoChatConfig().with_rows(151_647), FullSizeText())
    assert model.prompter.st_id == 151_646


# --- there and back ---------------------------------------------------------------------------------------------------


def test_a_plain_folder_is_read_and_written_back_bit_for_bit(tmp_path, model, config, text):
    published = to_published(model.state_dict(), model.prompter.st_id)
    assert published.keys() == published_names(config, text).keys()
    again = read_back(write(tmp_path / "plain", published, 3), config, text)
    for name, value in with_st_row(model.state_dict(), model).items():
        assert torch.equal(again.state_dict()[name], value), name
    back = to_published(again.state_dict(), again.prompter.st_id)
    assert all(torch.equal(back[name], value) for name, value in published.items())
    assert torch.equal(states(again), states(model))
    assert not any(value.requires_grad for value in again.parameters())


@pytest.mark.parametrize("layout", PEFT)
@pytest.mark.parametrize("num_shards", [1, 4])
def test_adapters_of_both_layouts_are_folded_in(tmp_path, adapted, config, text, layout, num_shards):
    published = to_published(adapted.state_dict(), adapted.prompter.st_id, layout=layout)
    again = read_back(write(tmp_path / layout, published, num_shards), config, text)
    assert not any(".lora_" in name for name in again.state_dict())
    torch.testing.assert_close(states(again), states(adapted), rtol=1e-4, atol=1e-5)
    plain = {name.replace(".base_layer.", "."): value for name, value in adapted.state_dict().items()}
    learned = {name: value for name, value in plain.items() if ".lora_" in name}
    expected = with_st_row(
        merged({name: plain[name] for name in plain.keys() - learned.keys()}, learned, LORA), adapted
    )
    assert again.state_dict().keys() == expected.keys()
    assert all(torch.equal(again.state_dict()[name], value) for name, value in expected.items())


@pytest.mark.parametrize("layout", PEFT)
def test_names_of_both_layouts_are_sorted_and_made_again(tmp_path, adapted, layout):
    published = to_published(adapted.state_dict(), adapted.prompter.st_id, layout=layout)
    assert all(name.startswith("base_model.model.") for name in published)
    contents = contents_of(open_repository(write(tmp_path / layout, published)))
    assert contents.num_adapters == 14
    backbone = contents.parts[Part.BACKBONE]
    stored = [name for matrix in backbone.values() for name in (matrix.stored, matrix.first, matrix.second) if name]
    assert sorted(stored) == sorted(published)
    assert backbone.keys() == {name for name in published_names(adapted.config, adapted.prompter.text)}


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_names_of_the_newer_layout_are_those_that_peft_writes(tensors, adapted, config):
    from peft import LoraConfig as PeftConfig
    from peft import get_peft_model
    from transformers.models.qwen2.modeling_qwen2 import Qwen2ForCausalLM

    settings = PeftConfig(
        r=4, target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    )
    wrapped = get_peft_model(Qwen2ForCausalLM(adapted.language.config), settings)
    ours = to_published(adapted.state_dict(), adapted.prompter.st_id, layout="peft")
    visual = ("base_model.model.model.vision_tower.", "base_model.model.model.mm_projector.")
    assert {name for name in ours if not name.startswith(visual)} == wrapped.state_dict().keys()
    assert {name.replace(".base_layer.", ".") for name in ours} == tensors.keys()


def test_a_folded_matrix_does_what_matrix_and_adapter_do():
    generator = torch.Generator().manual_seed(0)
    weight, first, second, x = (torch.randn(*shape, generator=generator) for shape in ((6, 5), (2, 5), (6, 2), (3, 5)))
    expected = x @ weight.T + 16 / 2 * (x @ first.T) @ second.T
    torch.testing.assert_close(x @ folded(weight, first, second).T, expected, rtol=1e-4, atol=1e-4)


def test_tables_may_end_at_the_st_token(tmp_path, model, config, text):
    rows = model.prompter.st_id + 1
    published = to_published(model.state_dict(), model.prompter.st_id, num_rows=rows)
    again = read_back(write(tmp_path / "short", published), config, text)
    assert again.config.language.num_rows == rows
    assert torch.equal(again.st_embed, model.st_embed)
    assert torch.equal(states(again), states(model))


def test_weights_are_cast_as_they_are_read(tmp_path, tensors, config, text):
    again = read_back(write(tmp_path / "cast", tensors), config, text, dtype=torch.bfloat16)
    assert {value.dtype for name, value in again.named_parameters() if name != "st_embed"} == {torch.bfloat16}
    assert again.st_embed.dtype == torch.float32
    assert again.language.rotary_emb.inv_freq.dtype == torch.float32


def test_each_st_token_may_start_from_the_published_one(tmp_path, tensors, adapted, config, text):
    folder = write(tmp_path / "own", tensors)
    (folder / "tokenizer.json").write_text(text.to_json())
    again = load_folder(folder, config=config, num_st=5, has_distinct_st=True)
    assert torch.equal(again.st_embed, adapted.st_embed.expand(5, -1))
    assert len(again.origin()) == 64
    with pytest.raises(CheckpointError, match="5 \\[ST\\] embeddings; published files have room for one"):
        to_published(again.state_dict(), again.prompter.st_id)


def test_the_other_parts_are_handed_on_by_their_names(tmp_path, tensors, config, text):
    more = {
        "seg_model.no_mem_embed": torch.ones(1, 1, 4),
        "seg_prompter.seg_proj.weight": torch.ones(2, 4),
        "initial_seg_fusion_module.gate": torch.tensor(0.5),
        "occ_predictor.weight": torch.ones(1, 4),
    }
    whole = tensors | {f"base_model.model.model.{name}": value for name, value in more.items()}
    contents = open_folder(write(tmp_path / "virst", whole))
    assert contents.read(Part.MASK_BRANCH).keys() == {"model.seg_model.no_mem_embed"}
    fusions = contents.read(Part.FUSIONS, torch.float64)
    assert fusions.keys() == {"model.seg_prompter.seg_proj.weight", "model.initial_seg_fusion_module.gate"}
    assert float(fusions["model.initial_seg_fusion_module.gate"]) == 0.5
    load(contents, text, config_of(contents, config))


# --- what is wrong ----------------------------------------------------------------------------------------------------

A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight"
B = A.replace("lora_A", "lora_B")
W = "base_model.model.model.layers.0.self_attn.q_proj.weight"
NORM = "base_model.model.model.norm.weight"


@pytest.mark.parametrize(
    ("gone", "added", "message"),
    [
        ((NORM,), {}, "missing: model.norm.weight"),
        ((), {"base_model.model.model.extra.weight": (2,)}, "unknown: model.extra.weight"),
        ((), {NORM: (47,)}, r"model.norm.weight is \(47,\), expected \(48,\)"),
        ((A,), {}, "lora_B.default.weight lacks its other factor"),
        ((W,), {}, "lora_A.default.weight has no matrix model.layers.0.self_attn.q_proj.weight"),
        ((), {B: (48, 5)}, "its other factor"),
        ((), {W.replace("weight", "base_layer.weight"): (48, 48)}, "one tensor under two names"),
        ((), {A.replace("default", "other"): (4, 48)}, "one tensor under two names"),
        (("base_model.model.model.embed_tokens.weight",), {}, "no tensor model.embed_tokens.weight"),
    ],
)
def test_what_is_missing_unknown_or_misshapen_is_named(tmp_path, tensors, config, text, gone, added, message):
    changed = {name: value for name, value in tensors.items() if name not in gone}
    changed |= {name: torch.ones(shape) for name, shape in added.items()}
    with pytest.raises(CheckpointError, match=message):
        read_back(write(tmp_path / "wrong", changed), config, text)


def test_a_weight_that_is_no_number_is_named(tmp_path, tensors, config, text):
    tensors[NORM] = torch.full((48,), float("nan"))
    with pytest.raises(CheckpointError, match="norm.weight holds values that are not finite"):
        read_back(write(tmp_path / "nan", tensors), config, text)


def test_integers_are_no_weights(tmp_path, tensors, config, text):
    tensors[NORM] = torch.ones(48, dtype=torch.int64)
    with pytest.raises(CheckpointError, match="stored as other than F32, F16, BF16: model.norm.weight"):
        read_back(write(tmp_path / "whole", tensors), config, text)


def test_adapters_have_no_names_in_the_plain_layout(adapted):
    with pytest.raises(CheckpointError, match="14 adapters; fold them in first"):
        to_published(adapted.state_dict(), adapted.prompter.st_id)


# --- to start from ----------------------------------------------------------------------------------------------------


@pytest.fixture
def start(tmp_path, model, config, text, monkeypatch):
    """VideoChat-Flash's own folder; a published config has no words for sizes as small."""
    folder = write(tmp_path / "start", to_published(model.state_dict(), model.prompter.st_id))
    (folder / "tokenizer.json").write_text(text.to_json())
    sizes = config.with_rows(model.config.language.num_rows)
    monkeypatch.setattr(loading, "config_of", lambda contents, given=None: given or sizes)
    return folder


def test_a_virst_of_ones_own_starts_with_adapters_that_change_nothing_yet(start, model):
    settings = BackboneConfig(kind="videochat", start=str(start), lora=LoraConfig(rank=2))
    made = loading.load_start(settings, num_st=4, has_distinct_st=True, seed=0)
    learns = {name for name, value in made.named_parameters() if value.requires_grad}
    assert learns == {name for name in made.state_dict() if made.is_learned(name)}
    assert len(learns) == 1 + 2 * 14
    assert made.st_embed.shape == (4, 48)
    with torch.no_grad():
        made.st_embed.copy_(model.st_embed.expand(4, -1))
    same = loading.load_start(settings, num_st=3, has_distinct_st=False, seed=1)
    torch.testing.assert_close(states(same), states(model), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("settings", [{"start": ""}, {"start": "somewhere", "network": {"num_layers": 1}}])
def test_a_start_that_is_not_named_is_asked_for(settings):
    config = BackboneConfig(kind="videochat", lora=LoraConfig(rank=0), **settings)
    with pytest.raises(ConfigError, match=r"backbone\.start"):
        loading.load_start(config, num_st=3, has_distinct_st=False, seed=0)


# --- config and tokenizer ---------------------------------------------------------------------------------------------


def published_config(**changed):
    values = {"model_type": "virst", "hidden_size": 3584, "vocab_size": 152_064, "mm_vision_select_layer": -2}
    return values | {"mm_projector_type": "tome16_mlp_hd64", "mm_local_num_frames": 4, "rope_scaling": None} | changed


def test_a_published_config_is_the_default(tmp_path):
    assert from_published(published_config(), tmp_path) == VideoChatConfig()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model_type": "qwen2"}, "expected videochat_flash_qwen or virst"),
        ({"mm_llm_compress": True}, "mm_llm_compress is True, expected False"),
        ({"hidden_size": "3584"}, "hidden_size is '3584', expected a positive whole number"),
        ({"num_attention_heads": 5}, "must be a multiple"),
    ],
)
def test_a_config_of_another_kind_is_refused(tmp_path, changed, message):
    with pytest.raises(CheckpointError, match=message):
        from_published(published_config(**changed), tmp_path)


def test_a_tokenizer_in_two_files_is_read_too(tmp_path, text):
    model = json.loads(text.to_json())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    lines = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *lines]) + "\n")
    (tmp_path / "added_tokens.json").write_text(json.dumps(dict(text.added)))
    again = language.read_text(tmp_path)
    assert again.added == text.added
    assert again.decode(again.encode("a dog <|im_start|> 12")) == "a dog <|im_start|> 12"
    assert max(again.encode("<|im_start|>")) < again.size


def test_a_folder_without_a_tokenizer_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="has no tokenizer.json, and not vocab.json and merges.txt either"):
        language.read_text(tmp_path)
