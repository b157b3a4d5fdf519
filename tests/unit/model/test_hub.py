"""The network as a model of transformers: registered names, bit-equal logits, folders that both sides read."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import dynin
from dynin import testing
from dynin.errors import CheckpointError, RequestError
from dynin.model import announce, published
from dynin.model.convert import published_names

transformers = pytest.importorskip("transformers")
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return testing.tiny_published(tmp_path_factory.mktemp("hub") / "model")


@pytest.fixture
def model(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


@pytest.fixture(scope="module")
def network(folder):
    return published.load_network(published.read(folder), dtype=torch.float32)


@pytest.fixture(scope="module")
def ids():
    return torch.randint(138_752, (2, 9), generator=torch.Generator().manual_seed(0))


def padding(side):
    mask = torch.ones(2, 9, dtype=torch.int64)
    mask[0, slice(0, 3) if side == "left" else slice(6, 9)] = 0
    return mask


@torch.no_grad()
def test_logits_are_those_of_our_network_bit_for_bit(model, network, ids):
    assert torch.equal(model(ids).logits, network(ids))


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_logits_with_padding_are_those_of_our_network_bit_for_bit(model, network, ids, side):
    mask = padding(side)
    padded = model(ids, attention_mask=mask).logits
    assert torch.equal(padded, network(ids, mask.bool()))
    assert not torch.equal(padded, network(ids))


@torch.no_grad()
def test_padding_stays_bidirectional(model, ids):
    changed = ids.clone()
    changed[:, -1] = (changed[:, -1] + 1) % 1000
    mask = padding("left")
    before, after = (model(row, attention_mask=mask).logits for row in (ids, changed))
    assert not torch.allclose(before[:, 3], after[:, 3], atol=1e-7)


def test_where_gradients_are_recorded_logits_are_those_of_our_network_too(model, network, ids):
    network.requires_grad_(True)
    assert torch.equal(model(ids).logits, network(ids))
    network.requires_grad_(False)


def test_names_and_shapes_are_the_published_ones(folder, model):
    found = published.read(folder)
    assert model.state_dict().keys() == found.repository.tensors.keys() == published_names(found.config).keys()
    assert {name: tuple(value.shape) for name, value in model.state_dict().items()} == found.repository.shapes
    assert dict(model.named_parameters()).keys() == model.state_dict().keys()


def test_a_loaded_model_keeps_the_stored_dtype_where_none_is_asked_for(folder):
    assert transformers.AutoModel.from_pretrained(folder).dtype == torch.bfloat16


def test_a_saved_model_is_read_by_both_sides(model, folder, network, ids, tmp_path):
    saved = tmp_path / "saved"
    model.save_pretrained(saved)
    found = published.read(saved)
    assert found.layout == published.read(folder).layout
    assert found.repository.tensors.keys() == model.state_dict().keys()
    with torch.no_grad():
        assert torch.equal(dynin.load(saved).model(ids), network(ids))
        again = transformers.AutoModelForCausalLM.from_pretrained(saved)
        assert torch.equal(again(ids).logits, network(ids))


@pytest.mark.parametrize("max_shard_size", ["4MB", "5GB"])
def test_a_model_may_be_saved_over_the_folder_it_came_from(model, ids, tmp_path, max_shard_size):
    place = testing.tiny_published(tmp_path / "model")
    assert (place / "SHA256SUMS").is_file()
    with torch.no_grad():
        before = model(ids).logits
        model.save_pretrained(place, max_shard_size=max_shard_size)
        assert torch.equal(dynin.load(place).model(ids), before)


@pytest.mark.parametrize("step", ["writing", "moving"])
def test_a_save_that_fails_leaves_what_was_there(model, tmp_path, monkeypatch, step):
    place = testing.tiny_published(tmp_path / "model")
    before = {path.name: path.read_bytes() for path in place.iterdir()}

    def full(*given, **more):
        raise OSError(28, "No space left on device")

    if step == "writing":
        monkeypatch.setattr(transformers.modeling_utils, "safe_save_file", full)
    else:
        monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(CheckpointError, match=r"could not be written \(No space left on device\); check permissions"):
        model.save_pretrained(place, max_shard_size="4MB")
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_first_save_that_fails_leaves_no_folder(model, tmp_path, monkeypatch):
    from safetensors import SafetensorError

    def full(*given, **more):
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr(transformers.modeling_utils, "safe_save_file", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        model.save_pretrained(tmp_path / "new" / "model")
    assert [*(tmp_path / "new").iterdir()] == []


def test_a_save_removes_weights_of_an_earlier_one_and_nothing_else(model, tmp_path):
    place = testing.tiny_published(tmp_path / "model")
    (place / "training.txt").write_text("kept")
    (place / "model-00001-of-00009.safetensors").write_bytes(b"stale")
    model.save_pretrained(place)
    names = {path.name for path in place.iterdir()}
    assert names == {"README.md", "config.json", "model.safetensors", "tokenizer.json", "training.txt"}
    assert dynin.load(place).model.config.d_model == 16


def test_a_file_in_the_place_of_the_folder_is_named(model, tmp_path):
    (tmp_path / "model").write_text("a file")
    with pytest.raises(CheckpointError, match=r"model: could not be written \(File exists\)"):
        model.save_pretrained(tmp_path / "model")


def test_a_config_keeps_every_published_key(folder, model, tmp_path):
    model.config.save_pretrained(tmp_path)
    before, after = (json.loads((place / "config.json").read_text()) for place in (folder, tmp_path))
    assert {key: after.get(key) for key in before} == before


def test_a_config_without_keys_is_the_8b_model():
    from dynin.model import hub

    values = hub.DyninOmniConfig().to_dict()
    assert published.config_of(values, Path("config.json")) == hub.PUBLISHED_8B
    assert (values["use_cache"], values["eos_token_id"]) == (False, 126_081)
    assert hub.DyninOmniConfig().hidden_size == 4096
    assert published.LAYOUT_KEY not in values


def test_tensors_of_the_video_merger_are_passed_over(folder, ids, network, tmp_path):
    from safetensors.torch import load_file, save_file

    tensors = {
        name: value for shard in sorted(folder.glob("*.safetensors")) for name, value in load_file(shard).items()
    }
    save_file(
        {**tensors, "video_token_merger.fc1.bias": torch.zeros(3)}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    with torch.no_grad():
        assert torch.equal(model(ids).logits, network(ids))


def test_the_loss_is_about_the_id_at_the_same_position(model, ids):
    labels = torch.full_like(ids, -100)
    labels[0, 4] = 17
    made = model(ids, labels=labels)
    expected = -made.logits[0, 4].log_softmax(dim=0)[17]
    assert torch.allclose(made.loss, expected)
    made.loss.backward()
    assert model.get_input_embeddings().weight.grad.abs().sum() > 0
    as_tuple = model(ids, labels=labels, return_dict=False)
    assert torch.equal(as_tuple[0], made.loss)
    assert torch.equal(as_tuple[1], made.logits)


def test_what_the_network_does_not_have_is_refused(model, ids):
    with pytest.raises(RequestError, match="was given inputs_embeds, output_attentions"):
        model(ids, inputs_embeds=torch.zeros(1), output_attentions=True, use_cache=False)


@torch.no_grad()
def test_a_module_that_takes_a_published_place_is_what_runs(model, ids):
    class Nothing(nn.Module):
        def forward(self, x):
            return x.new_zeros(*x.shape[:-1], 16)

    before = model(ids).logits
    for block in model.model.transformer.blocks:
        block.attn_out = Nothing()
        block.ff_out = Nothing()
    table, output = model.get_input_embeddings(), model.get_output_embeddings()
    changed = model(ids).logits
    assert not torch.equal(changed, before)
    assert torch.equal(changed, output(model.network.norm(table(ids))))
    output = nn.Linear(16, 5, bias=False)
    model.set_output_embeddings(output)
    assert model(ids).logits.shape == (2, 9, 5)
    assert model.get_output_embeddings() is output


@torch.no_grad()
def test_a_table_that_grows_keeps_its_rows(model, ids):
    before = model(ids).logits
    model.resize_token_embeddings(138_800, mean_resizing=False)
    assert model.config.vocab_size == 138_800
    assert torch.equal(model(ids).logits[..., :138_752], before)


@torch.no_grad()
def test_a_copy_is_independent(model, ids):
    import copy

    other = copy.deepcopy(model)
    before = model(ids).logits
    other.get_input_embeddings().weight.zero_()
    assert torch.equal(model(ids).logits, before)
    assert not torch.equal(other(ids).logits, before)


def test_a_new_model_is_drawn_from_its_config():
    from dynin.model import hub

    config = hub.DyninOmniConfig(d_model=16, n_heads=2, n_kv_heads=2, n_layers=1, mlp_hidden_size=32)
    with torch.random.fork_rng():
        model = transformers.AutoModelForCausalLM.from_config(config)
    weight = model.get_output_embeddings().weight
    assert weight.shape == (138_752, 16)
    assert 0.019 < float(weight.detach().std()) < 0.021


# --- `import dynin` is enough ----------------------------------------------------------------------------------------

_LIGHT = "assert not {'torch', 'transformers'} & sys.modules.keys()\n"
_LOAD = "print(type(AutoModelForCausalLM.from_pretrained(sys.argv[1])).__name__)"


@pytest.mark.parametrize(
    "script",
    [
        f"import sys, dynin\n{_LIGHT}from transformers import AutoModelForCausalLM\n{_LOAD}",
        f"import sys\nfrom transformers import AutoModelForCausalLM\nimport dynin\n{_LOAD}",
    ],
    ids=["dynin first", "transformers first"],
)
def test_importing_dynin_is_enough_in_either_order(folder, script):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "DyninOmniModelLM", done.stderr


def test_a_version_that_is_too_old_is_told_and_does_no_harm(monkeypatch, caplog):
    def too_old(name):
        raise RequestError("older than 5.17")

    monkeypatch.setattr(announce.importlib, "import_module", too_old)
    announce.register()
    assert "transformers will not know dynin_omni: older than 5.17" in caplog.text


def test_the_announcer_finds_only_what_it_awaits(monkeypatch):
    finder = announce.Announcer()
    assert finder.find_spec("transformers.models.auto.configuration_auto") is None
    monkeypatch.setattr(sys, "meta_path", [finder])
    assert finder.find_spec(announce.AWAITED) is None


def test_without_transformers_the_error_names_the_extra(monkeypatch):
    monkeypatch.delitem(sys.modules, "dynin.model.hub", raising=False)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(RequestError, match=r"missing or older than 5.17.*pip install 'dynin\[published\]'"):
        __import__("dynin.model.hub")
