"""Folders in the published layout: what is read, what is refused, what is written."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from dynin import repository, testing
from dynin.errors import CheckpointError
from dynin.model import publish, published
from dynin.model.config import PUBLISHED_8B
from dynin.model.convert import published_names
from dynin.model.family import FAMILIES
from dynin.pipeline import published as models
from dynin.types import Modality
from dynin.vocabulary import PUBLISHED


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return testing.tiny_published(tmp_path_factory.mktemp("published") / "model")


@pytest.fixture
def folder(whole, tmp_path):
    """A copy that may be damaged."""
    copy = tmp_path / "model"
    copy.mkdir()
    for path in whole.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    return copy


def change_config(folder, **values):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for key, value in values.items():
        if value is None:
            config.pop(key, None)
        else:
            config[key] = value
    path.write_text(json.dumps(config))


def put_tokenizer(folder, text):
    """Another tokenizer, as if the folder had come without sums."""
    (folder / "tokenizer.json").write_text(text)
    (folder / "SHA256SUMS").unlink(missing_ok=True)


def forget_sums(folder):
    (folder / "SHA256SUMS").unlink()


def first_shard(folder):
    return sorted(folder.glob("*.safetensors"))[0]


def test_a_published_folder_gives_its_weights_under_our_names(whole):
    found = published.read(whole)
    model = published.load_network(found, dtype=torch.float32)
    stored = {name: value for shard in found.repository.shards for name, value in load_file(shard).items()}
    assert len(found.repository.shards) > 1
    for theirs, ours in published_names(found.config).items():
        assert torch.equal(model.state_dict()[ours], stored[theirs].float())


@pytest.mark.parametrize("text_len", [126_349, 126_372, 126_464])
def test_the_layout_follows_the_tokenizer_where_the_config_says_nothing(tmp_path, text_len):
    folder = testing.tiny_published(tmp_path / "model", text_len=text_len)
    change_config(folder, dynin_vocabulary=None, text_len=None)
    _, layout = models.read_text(published.read(folder))
    assert (layout.image.start, layout.speech.start) == (text_len, text_len + 8192)


@pytest.mark.parametrize(("family", "rows"), [("published", 138_752), ("mmada", 134_656), ("llada", 126_464)])
def test_each_family_has_its_rows_and_modalities(tmp_path, family, rows):
    folder = testing.tiny_published(tmp_path / "model", family)
    found = published.read(folder)
    _, layout = models.read_text(found)
    assert (found.family.name, layout.size, found.config.num_rows) == (family, rows, rows)
    assert [len(layout.range_of(modality)) > 0 for modality in (Modality.IMAGE, Modality.SPEECH)] == {
        "published": [True, True],
        "mmada": [True, False],
        "llada": [False, False],
    }[family]


def test_keys_that_are_left_out_have_the_values_of_the_8b_model(tmp_path):
    config = published.config_of({"model_type": "dynin_omni"}, tmp_path / "config.json")
    assert config == PUBLISHED_8B


def test_a_written_config_describes_the_network_it_came_from(tmp_path):
    values = publish.published_config(PUBLISHED_8B, PUBLISHED, FAMILIES["published"])
    assert published.config_of(values, tmp_path / "config.json") == PUBLISHED_8B


@pytest.mark.parametrize("key", ["vocab_size", "embedding_size"])
def test_a_config_alone_has_as_many_rows_as_its_largest_key_says(tmp_path, key):
    values = {"model_type": "dynin_omni", "vocab_size": 138_800, "embedding_size": 138_800, key: 126_464}
    assert published.config_of(values, tmp_path / "config.json").num_rows == 138_800
    stale = {"model_type": "dynin_omni", "vocab_size": 134_656, key: 126_464}
    assert published.config_of(stale, tmp_path / "config.json").num_rows == 138_752


def test_rows_of_the_table_count_where_the_config_is_out_of_date(folder):
    forget_sums(folder)
    change_config(folder, vocab_size=126_464, embedding_size=126_464)
    assert published.read(folder).config.num_rows == 138_752


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "lada"}, "model_type is 'lada'.*did you mean 'llada'"),
        ({"model_type": "gpt2"}, "model_type is 'gpt2'"),
        ({"alibi": True}, "alibi is True, expected False"),
        ({"weight_tying": True}, "weight_tying is True, expected False"),
        ({"d_model": 24}, "wte.weight is \\(138752, 16\\).*the config says \\(138752, 24\\)"),
        ({"n_layers": 3}, "missing: model.transformer.blocks.2.attn_norm.weight"),
        ({"n_layers": 1}, "unknown: model.transformer.blocks.1.attn_norm.weight \\(16,\\)"),
        ({"mlp_hidden_size": 48}, "ff_proj.weight is \\(32, 16\\)"),
        ({"model_type": "mmada", "dynin_vocabulary": None}, "138,752 rows, as dynin_omni models have, a mmada model"),
        ({"model_type": "llada", "dynin_vocabulary": None}, "138,752 rows, as dynin_omni models have, a llada model"),
        ({"model_type": "mmada"}, "model_type is 'mmada', but dynin_vocabulary is of a published model"),
        ({"new_vocab_size": 138_880, "dynin_vocabulary": None}, "needs 138,880 rows, but .*wte.weight has 138,752"),
        ({"llm_vocab_size": 130_000, "dynin_vocabulary": None}, "llm_vocab_size is 130000, which needs 142,288 rows"),
        ({"num_new_special_tokens": 23}, "num_new_special_tokens is 23, expected 0 or None"),
        ({"n_layers": 100_000}, "n_layers is 100000, expected at most 1024"),
        ({"d_model": 10**30}, "d_model is 1000.*, expected a whole number from 1 to 16,777,216"),
        ({"rope_theta": float("inf")}, "rope_theta is inf, expected a positive number"),
        ({"n_heads": 0}, "n_heads is 0"),
        ({"n_heads": "two"}, "n_heads is 'two'"),
    ],
)
def test_a_config_that_contradicts_is_named(folder, values, message):
    forget_sums(folder)
    change_config(folder, **values)
    with pytest.raises(CheckpointError, match=message):
        published.read(folder)


def test_a_missing_shard_is_named(folder):
    first_shard(folder).unlink()
    with pytest.raises(CheckpointError, match="model-00001-of-.*missing, though model.safetensors.index.json names it"):
        published.read(folder)


def test_a_shard_that_was_cut_short_is_named(folder):
    shard = first_shard(folder)
    shard.write_bytes(shard.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="model-00001-of-.*damaged or cut short"):
        published.read(folder)


def test_one_flipped_bit_is_found(folder):
    shard = first_shard(folder)
    data = bytearray(shard.read_bytes())
    data[-100] ^= 1
    shard.write_bytes(bytes(data))
    found = published.read(folder)
    with pytest.raises(CheckpointError, match="model-00001-of-.*damaged.*SHA-256"):
        published.load_network(found)


def test_one_flipped_bit_is_found_by_the_hub_s_own_notes(folder):
    shard = first_shard(folder)
    forget_sums(folder)
    notes = folder / ".cache" / "huggingface" / "download" / f"{shard.name}.metadata"
    notes.parent.mkdir(parents=True)
    notes.write_text(f"commit\n{'0' * 64}\n1.0\n")
    with pytest.raises(CheckpointError, match="damaged.*SHA-256 is not 000000000000"):
        published.load_network(published.read(folder))


def test_a_file_of_the_hub_cache_is_compared_with_its_own_name(folder):
    shard = first_shard(folder)
    forget_sums(folder)
    blob = folder / ("0" * 64)
    shard.rename(blob)
    shard.symlink_to(blob)
    with pytest.raises(CheckpointError, match="damaged"):
        published.load_network(published.read(folder))


def test_a_shard_of_another_model_is_named(folder):
    shard = first_shard(folder)
    save_file({"other.weight": torch.zeros(2)}, shard)
    with pytest.raises(CheckpointError, match="lacks model.transformer.*which the index puts there"):
        published.read(folder)


def test_an_index_that_names_a_tensor_twice_is_refused(folder):
    index = folder / repository.INDEX
    text = index.read_text()
    entry = next(line for line in text.splitlines() if "wte.weight" in line)
    index.write_text(text.replace(entry, entry + "\n" + entry))
    with pytest.raises(CheckpointError, match="names model.transformer.wte.weight twice"):
        published.read(folder)


def test_a_tensor_in_two_shards_is_refused(folder):
    shards = sorted(folder.glob("*.safetensors"))
    both = {**load_file(shards[1]), **{name: value for name, value in list(load_file(shards[0]).items())[:1]}}
    save_file(both, shards[1])
    with pytest.raises(CheckpointError, match="which model-00001-of-.* holds too|which the index does not put there"):
        published.read(folder)


def test_weights_of_video_merging_are_passed_over_and_others_are_not(folder):
    forget_sums(folder)
    (folder / repository.INDEX).unlink()
    tensors = {name: value for shard in folder.glob("*.safetensors") for name, value in load_file(shard).items()}
    for shard in folder.glob("*.safetensors"):
        shard.unlink()
    save_file({**tensors, "video_token_merger.norm.weight": torch.ones(3)}, folder / "model.safetensors")
    published.load_network(published.read(folder))
    save_file({**tensors, "vision.weight": torch.ones(3)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="unknown: vision.weight \\(3,\\)"):
        published.read(folder)


def rewrite(folder, change):
    """Every tensor of a folder as `change` makes it from name and value."""
    forget_sums(folder)
    for shard in folder.glob("*.safetensors"):
        save_file({name: change(name, value) for name, value in load_file(shard).items()}, shard)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn, torch.float64])
def test_weights_in_another_kind_of_numbers_are_named(folder, dtype):
    rewrite(folder, lambda name, value: value.to(dtype) if "blocks.1.q_proj" in name else value)
    with pytest.raises(
        CheckpointError, match=r"stored as other than F32, .*: .*blocks\.1\.q_proj\.weight as [IF]\w+ in"
    ):
        published.read(folder)


def test_weights_of_two_floating_point_types_take_that_of_the_most_numbers(folder):
    rewrite(folder, lambda name, value: value.float() if "norm" in name or "ln_f" in name else value)
    model = published.load_network(published.read(folder))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number_is_named(folder, wrong):
    rewrite(folder, lambda name, value: torch.full_like(value, wrong) if "ln_f" in name else value)
    with pytest.raises(CheckpointError, match=r"model-00001-of-.*ln_f\.weight holds values that are not finite"):
        published.load_network(published.read(folder))


def test_a_damaged_config_beside_its_checksum_is_named(folder):
    change_config(folder, rope_theta=10_000.0)
    with pytest.raises(CheckpointError, match=r"config\.json: damaged .*SHA-256"):
        published.load_network(published.read(folder))


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000, "\udc80"])
def test_an_index_that_is_no_json_is_named(folder, text):
    (folder / repository.INDEX).write_text(text, errors="surrogateescape")
    with pytest.raises(CheckpointError, match=r"index\.json: (no valid JSON|expected a JSON object); fetch"):
        published.read(folder)


def test_pickled_weights_are_refused_with_the_cure(folder):
    for path in (*folder.glob("*.safetensors"), folder / repository.INDEX):
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"pickled \(pytorch_model.bin\).*--from-pickle"):
        published.read(folder)


def test_an_index_that_leads_out_of_the_folder_is_refused(folder):
    index = folder / repository.INDEX
    index.write_text(index.read_text().replace("model-00001", "../model-00001"))
    with pytest.raises(CheckpointError, match="expected a .safetensors file beside the index"):
        published.read(folder)


def test_a_tokenizer_of_an_unknown_length_is_refused_until_the_user_says_where_images_begin(folder):
    change_config(folder, dynin_vocabulary=None, text_len=None)
    put_tokenizer(folder, testing.published_text(PUBLISHED, 126_400))
    found = published.read(folder)
    with pytest.raises(CheckpointError, match=r"126,400 ids, expected one of 126,349, 126,372, 126,464"):
        models.read_text(found)
    assert models.read_text(found, text_len=126_400)[1].image.start == 126_400


def test_a_tokenizer_longer_than_the_stored_layout_allows_is_refused(folder):
    put_tokenizer(folder, testing.published_text(PUBLISHED, 126_372))
    with pytest.raises(CheckpointError, match="126,372 ids, expected at most 126,349, since media codes begin there"):
        models.read_text(published.read(folder))


def test_a_tokenizer_with_control_ids_elsewhere_is_refused(folder):
    text = (folder / "tokenizer.json").read_text()
    put_tokenizer(folder, text.replace('"id": 126336', '"id": 126337'))
    with pytest.raises(CheckpointError, match="<|mdm_mask|> has id 126337, the model's is 126336"):
        models.read_text(published.read(folder))


def test_no_control_id_comes_out_of_text(whole):
    text, _ = models.read_text(published.read(whole))
    ids = text.encode("a <|mdm_mask|> and <|eot_id|>")
    assert max(ids) < 300
    assert text.decode(ids) == "a <|mdm_mask|> and <|eot_id|>"
