"""Published names and folders of the speech tokenizer: there and back, and every way a folder can be wrong."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from dynin.errors import CheckpointError
from dynin.tokenizers.emova.convert import expected_shapes, from_published, load, published_name, save, to_published

G, V = "parametrizations.weight.original0", "parametrizations.weight.original1"
WINDOW, BANK = (f"encoder.encoder.wav2spec.featurizer.{leaf}" for leaf in ("window", "fb"))


@pytest.fixture(scope="module")
def published(narrow, narrow_config):
    """Every published tensor, those that tokenizing does not use included."""
    tensors = to_published(narrow.state_dict(), None, narrow_config)
    for name, shape in expected_shapes(narrow_config).items():
        tensors.setdefault(name, torch.full(shape, 0.25))
    return tensors


@pytest.fixture
def folder(tmp_path, narrow, published, narrow_config):
    """A published repository with narrow networks."""
    save(tmp_path, narrow)
    save_file(published, tmp_path / "model.safetensors")
    return tmp_path


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("encoder.block_modules.4.conv.bias", "encoder.encoder.feature_encoder.block_modules.4.conv.conv.bias"),
        ("encoder.block_modules.4.norm.bias", "encoder.encoder.feature_encoder.block_modules.4.norm.bias"),
        (f"encoder.block_modules.6.pos_conv_embed.conv.{G}", "*.block_modules.6.pos_conv.0.weight_g"),
        ("encoder.block_modules.6.layers.9.layer_norm.bias", "*.block_modules.6.layers.9.self_attn_layer_norm.bias"),
        ("encoder.block_modules.6.layers.9.final_layer_norm.bias", "*.block_modules.6.layers.9.final_layer_norm.bias"),
        ("encoder.block_modules.6.layer_norm.bias", "*.block_modules.6.layer_norm.bias"),
        ("vocoder.text_encoder.encoder.layers.5.layer_norm.bias", "decoder.enc_p.encoder.norm_layers_1.5.BETA"),
        ("vocoder.text_encoder.encoder.layers.5.attention.emb_rel_k", "decoder.enc_p.encoder.attn_layers.5.emb_rel_k"),
        (f"vocoder.flow.flows.3.wavenet.in_layers.2.{V}", "decoder.flow.flows.6.enc.in_layers.2.weight_v"),
        (f"vocoder.decoder.resblocks.11.convs2.2.{V}", "decoder.dec.resblocks.11.convs2.2.weight_v"),
        ("vocoder.decoder.conv_pre.weight", "decoder.dec.conv_pre.weight"),
        ("vocoder.duration_predictor.flows.4.conv_dds.norms_2.1.weight", "decoder.dp.flows.7.convs.norms_2.1.GAMMA"),
        ("vocoder.duration_predictor.post_flows.0.log_scale", "decoder.dp.post_flows.0.logs"),
        ("vocoder.duration_predictor.post_conv_dds.convs_pointwise.0.bias", "decoder.dp.post_convs.convs_1x1.0.bias"),
        ("vocoder.duration_predictor.conv_pre.bias", "decoder.dp.pre.bias"),
        ("pre_quant.bias", "encoder.pre_quant.bias"),
        ("style_embedding.weight", "style_embedding.weight"),
    ],
)
def test_names_are_told_one_by_one(ours, theirs):
    assert published_name(ours).endswith(theirs.removeprefix("*"))


def test_converting_there_and_back_is_the_identity(narrow, published, narrow_config):
    state, unused = from_published(published, narrow_config)
    ours = narrow.state_dict()
    assert state.keys() == ours.keys()
    assert all(torch.equal(state[name], ours[name]) for name in ours)
    back = to_published(state, unused, narrow_config)
    assert {name: tuple(tensor.shape) for name, tensor in back.items()} == expected_shapes(narrow_config)
    assert all(torch.equal(back[name], published[name]) for name in published)


def test_lengths_and_directions_may_have_the_names_of_a_newer_library(published, narrow_config):
    renamed = {name.replace("weight_g", G).replace("weight_v", V): tensor for name, tensor in published.items()}
    assert renamed.keys() != published.keys()
    state, unused = from_published(renamed, narrow_config)
    assert to_published(state, unused, narrow_config).keys() == published.keys()
    with pytest.raises(CheckpointError, match=r"decoder\.flow.*weight_g is there twice"):
        from_published({**published, f"decoder.flow.flows.0.enc.in_layers.0.{G}": torch.zeros(32, 1, 1)}, narrow_config)


def test_weights_that_do_not_fit_are_listed(published, narrow_config):
    tensors = dict(published)
    tensors["decoder.enc_p.embed.weight"] = tensors.pop("decoder.enc_p.emb.weight")
    tensors["encoder.pre_quant.bias"] = torch.zeros(5)
    del tensors["decoder.enc_q.pre.bias"]
    tensors["encoder.encoder.mask_emb"] = torch.zeros(3)
    with pytest.raises(CheckpointError) as caught:
        from_published(tensors, narrow_config)
    for words in (
        "missing: decoder.enc_p.emb.weight, decoder.enc_q.pre.bias",
        "unknown: decoder.enc_p.embed.weight",
        "encoder.pre_quant.bias is (5,), expected (4,)",
        "encoder.encoder.mask_emb is (3,), expected (128,)",
    ):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    "prefix",
    ["decoder.enc_q.", "decoder.enc_r.", "decoder.emb_g.", "encoder.decoder.", "encoder.encoder.mask", WINDOW, BANK],
)
def test_what_tokenizing_does_not_use_may_be_absent_as_a_whole(prefix, published, narrow_config):
    tensors = {name: tensor for name, tensor in published.items() if not name.startswith(prefix)}
    assert len(tensors) < len(published)
    state, unused = from_published(tensors, narrow_config)
    assert not any(name.startswith(prefix) for name in unused)
    assert state.keys() == from_published(published, narrow_config)[0].keys()


@pytest.mark.parametrize("name", [WINDOW, BANK, "encoder.quantizer._levels_np", "encoder.quantizer._basis"])
def test_another_front_end_or_quantizer_is_refused(name, published, narrow_config):
    tensors = {**published, name: published[name].half()}
    from_published(tensors, narrow_config)
    tensors[name] = published[name].clone()
    tensors[name].view(-1)[-2] += 1
    with pytest.raises(CheckpointError, match=f"{name} differs from what codes are made with here, by up to 1"):
        from_published(tensors, narrow_config)


def test_a_periodic_window_is_refused(published, narrow_config):
    with pytest.raises(CheckpointError, match="featurizer.window differs"):
        from_published({**published, WINDOW: torch.hann_window(320)}, narrow_config)


def test_a_folder_that_was_saved_loads_and_is_written_back_bit_for_bit(folder, tmp_path, narrow, published, sound):
    tokenizer = load(folder, config=narrow.config)
    assert tokenizer.config == narrow.config
    assert not tokenizer.training
    assert not any(parameter.requires_grad for parameter in tokenizer.parameters())
    assert torch.equal(tokenizer.encode(sound), narrow.encode(sound))
    again = tmp_path / "again"
    save(again, tokenizer)
    assert sorted(path.name for path in again.iterdir()) == ["config.json", "model.safetensors"]
    written = load_file(again / "model.safetensors")
    assert written.keys() == published.keys()
    assert all(torch.equal(written[name], published[name]) for name in published)
    assert load(again, config=narrow.config).fingerprint() == narrow.fingerprint()


def test_a_tokenizer_that_was_never_published_is_saved_too(tmp_path, narrow):
    save(tmp_path, narrow)
    assert load(tmp_path, config=narrow.config).fingerprint() == narrow.fingerprint()


def test_shards_are_read_by_their_index(folder, narrow, published):
    names = sorted(published)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, inside in shards.items():
        save_file({name: published[name] for name in inside}, folder / file)
    homes = {name: file for file, inside in shards.items() for name in inside}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": homes}))
    (folder / "model.safetensors").unlink()
    assert load(folder, config=narrow.config).fingerprint() == narrow.fingerprint()

    index.write_text(json.dumps({"weight_map": {**homes, names[0]: "b.safetensors"}}))
    with pytest.raises(CheckpointError, match=rf"b\.safetensors: lacks {names[0]}, which the index puts there"):
        load(folder, config=narrow.config)
    (folder / "b.safetensors").unlink()
    index.write_text(json.dumps({"weight_map": homes}))
    with pytest.raises(CheckpointError, match=r"b\.safetensors missing, though .*index\.json names it"):
        load(folder, config=narrow.config)


def test_weights_are_turned_into_the_dtype_that_is_asked_for(folder, narrow):
    tokenizer = load(folder, config=narrow.config, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in tokenizer.parameters()} == {torch.bfloat16}


def test_loading_draws_nothing(folder, narrow):
    before = torch.get_rng_state()
    load(folder, config=narrow.config)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"u2s_style2idx": None}, "does not give every style a row"),
        ({"u2s_style2idx": {"a": "1"}}, "does not give every style a row"),
        ({"u2s_style2idx": {"a": 1}}, "the default style .* is not among the 1 styles"),
        ({"u2s_num_styles": 10**30}, "does not give every style a row"),
        ({"u2s_num_styles": 2}, "is row [23] of a table of 2 rows"),
        ({"u2s_dim_styles": 256}, "u2s_dim_styles is 256, expected 8; this is another tokenizer"),
        ({"s2u_unit_type": "20ms"}, "s2u_unit_type is '20ms', expected '40ms_multilingual_8888'"),
    ],
)
def test_a_config_of_another_tokenizer_is_refused(values, words, folder, narrow):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    with pytest.raises(CheckpointError, match=rf"config\.json: .*{words}"):
        load(folder, config=narrow.config)


def test_a_folder_that_lacks_something_is_refused(folder, narrow):
    weights, config = folder / "model.safetensors", folder / "config.json"
    text = config.read_text()
    for wrong, words in (("{", "no valid JSON"), ("[]", "expected a JSON object")):
        config.write_text(wrong)
        with pytest.raises(CheckpointError, match=words):
            load(folder, config=narrow.config)
    config.unlink()
    with pytest.raises(CheckpointError, match=r"config\.json: cannot be read"):
        load(folder, config=narrow.config)
    config.write_text(text)
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: damaged"):
        load(folder, config=narrow.config)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"no weights; expected .* one of model\.safetensors"):
        load(folder, config=narrow.config)


def test_pickled_weights_are_refused_with_the_alternative(folder, narrow):
    shutil.move(folder / "model.safetensors", folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pickled .pytorch_model\.bin.*dynin convert"):
        load(folder, config=narrow.config)


def test_weights_that_differ_from_their_checksum_are_refused(folder, narrow):
    (folder / "SHA256SUMS").write_text(f"{'0' * 64}  model.safetensors\n")
    with pytest.raises(CheckpointError, match=r"model\.safetensors: damaged"):
        load(folder, config=narrow.config)


def test_a_folder_that_holds_something_else_is_not_written_to(folder, narrow):
    save(folder, narrow)
    (folder / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"holds model\.safetensors\.index\.json, expected .*empty"):
        save(folder, narrow)


def test_a_place_that_cannot_be_written_is_told(tmp_path, narrow):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="could not be written"):
        save(tmp_path / "file", narrow)


def test_a_folder_of_other_sizes_is_refused(folder):
    with pytest.raises(CheckpointError, match="u2s_dim_styles is 8, expected 256"):
        load(folder)
