"""Weights in fewer bits: which, how close, how small, and what is refused."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import dynin
from dynin import testing
from dynin.errors import CheckpointError, ConfigError, RequestError
from dynin.model import memory, published, quantize, room
from dynin.model.config import EMBEDDED
from dynin.pipeline.folder import save
from dynin.pipeline.parts import MediaSources, held_bytes

pytest.importorskip("torchao")
ROOT = Path(__file__).resolve().parents[3]
MAPS = Path("/proc/self/maps")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return testing.tiny_model(tmp_path_factory.mktemp("bits") / "tiny")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return testing.tiny_published(tmp_path_factory.mktemp("bits") / "published")


def stored_bytes(model):
    """Bytes of everything that a model's tensors are made of."""
    total = 0
    for parameter in model.parameters():
        names = (*getattr(parameter, "tensor_data_names", ()), *getattr(parameter, "optional_tensor_data_names", ()))
        inner = [getattr(parameter, name) for name in names] or [parameter]
        total += sum(value.nbytes for value in inner if value is not None)
    return total


def ids_of(model):
    return torch.randint(model.config.num_rows, (2, 12), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
@pytest.mark.parametrize(
    ("form", "dtype", "tolerance"), [("int8", "float32", 0.02), ("int8", "bfloat16", 0.02), ("int4", "bfloat16", 0.2)]
)
def test_logits_stay_close(home, form, tolerance, dtype):
    whole = dynin.load(home, dtype=dtype).model
    short = dynin.load(home, dtype=dtype, weights=form).model
    expected, made = (model.hidden(ids_of(model)).float() for model in (whole, short))
    error = float((made - expected).norm() / expected.norm())
    assert 0 < error < tolerance


@pytest.mark.parametrize("form", quantize.FORMS)
def test_the_matrices_of_the_blocks_alone_change(home, form):
    whole, short = (dynin.load(home, dtype="bfloat16", weights=weights).model for weights in ("", form))
    assert quantize.is_reformed(short)
    assert not quantize.is_reformed(whole)
    for (name, before), after in zip(whole.named_parameters(), short.parameters(), strict=True):
        is_matrix = before.ndim == 2 and name.startswith("blocks.")
        assert (type(after.data) is not torch.Tensor) == is_matrix
        assert is_matrix or torch.equal(before, after)


@pytest.mark.parametrize(
    ("form", "dtype", "size"),
    [("", "float32", 4), ("int8", "float32", 4), ("", "bfloat16", 2), ("int8", "bfloat16", 2), ("int4", "bfloat16", 2)],
)
def test_bytes_are_those_that_are_planned(dtype, size, form):
    model = dynin.load(dtype=dtype, weights=form).model
    assert stored_bytes(model) == sum(memory.weight_bytes(EMBEDDED, size, form).values())


def test_a_published_model_takes_its_form_as_it_is_read(monkeypatch, folder):
    whole = published.load_network(published.read(folder))
    seen = []
    real = quantize.reform_of("int8")
    monkeypatch.setattr(published, "reform_of", lambda form, device: lambda *each: seen.append(each[0]) or real(*each))
    short = published.load_network(published.read(folder), weights="int8")
    assert sorted(seen) == sorted(whole.state_dict())
    assert stored_bytes(short) < stored_bytes(whole)
    expected, made = (model.hidden(ids_of(model)).float() for model in (whole, short))
    assert float((made - expected).norm() / expected.norm()) < 0.02


@pytest.mark.skipif(not MAPS.exists(), reason="only Linux tells which files a process has mapped")
def test_what_stays_as_it_is_does_not_keep_the_files_in_memory(folder, home):
    models = [
        published.load_network(published.read(folder), weights="int8"),
        dynin.load(home, dtype="float32", weights="int8").model,
    ]
    gc.collect()
    assert str(folder) not in MAPS.read_text()
    assert str(home) not in MAPS.read_text()
    models.append(published.load_network(published.read(folder)))
    assert str(folder) in MAPS.read_text()


def test_fewer_bits_need_less_room(monkeypatch, home):
    sizes = [sum(memory.weight_bytes(testing.tiny().model.config, 4, form).values()) for form in ("", "int8")]
    media = sum(held_bytes(home, testing.tiny().vocabulary, MediaSources()).values())
    monkeypatch.setattr(room, "available_bytes", lambda device=None: media + sum(sizes) // 2)
    assert dynin.load(home, weights="int8").model is not None
    with pytest.raises(CheckpointError, match="needs .* for its weights"):
        dynin.load(home)


@pytest.mark.parametrize("form", quantize.FORMS)
def test_requests_are_fulfilled_and_repeat_themselves(home, form):
    model = dynin.load(home, dtype="bfloat16", weights=form)
    pictures = [model.generate("a dog", to="image", seed=1, steps=2).image for _ in range(2)]
    assert pictures[0].tobytes() == pictures[1].tobytes()
    assert model.generate("a dog", to="text", steps=1).text is not None


def test_a_toml_file_says_so(home, tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(f'backbone = "{home}"\nweights = "int8"\n')
    assert quantize.is_reformed(dynin.load(path).model)
    path.write_text(f'backbone = "{home}"\nweights = 8\n')
    with pytest.raises(ConfigError, match="'weights' is 8"):
        dynin.load(path)


def test_the_shipped_toml_file_is_the_embedded_model_in_8_bits():
    model = dynin.load(ROOT / "configs" / "models" / "embedded-int8.toml")
    assert quantize.is_reformed(model.model)
    assert model.model.config == EMBEDDED


def test_weights_in_fewer_bits_are_not_written(home, tmp_path):
    with pytest.raises(CheckpointError, match="held in fewer bits and are not written; load them without"):
        save(tmp_path / "again", dynin.load(home, weights="int8"))
    assert not (tmp_path / "again").exists()


# --- what is refused -------------------------------------------------------------------------------------------------


def test_an_unknown_form_is_refused(home, folder):
    for place in (home, folder):
        with pytest.raises(RequestError, match="unknown weights 'int3'; did you mean 'int"):
            dynin.load(place, weights="int3")


def test_int4_is_refused_where_it_cannot_be_had(folder):
    with pytest.raises(RequestError, match="int4 are to be had on cpu alone, not on cuda:0; take int8 there"):
        quantize.reform_of("int4", "cuda:0")
    with pytest.raises(RequestError, match="multiply in bfloat16, not in float32; take dtype bfloat16, or int8"):
        dynin.load(weights="int4")
    with pytest.raises(
        RequestError, match=r"blocks\.0\.attention\.\w+\.weight is \(16, 16\); int4 needs .* multiples of 32; take int8"
    ):
        dynin.load(folder, weights="int4")


def test_without_torchao_the_error_names_the_extra(monkeypatch, home):
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(
        RequestError, match=r"need the package torchao, which is missing; run: pip install 'dynin\[quan"
    ):
        dynin.load(home, weights="int8")
    assert dynin.load(home).model is not None


def test_a_torchao_without_int4_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao.prototype.quantization.int4", None)
    with pytest.raises(RequestError, match="int4 need torchao 0.18, in which they are a prototype"):
        quantize.reform_of("int4")


def test_the_package_is_imported_when_it_is_asked_for_and_says_nothing(home, tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(f'backbone = "{home}"\nweights = "int4"\ndtype = "bfloat16"\n')
    script = (
        "import sys, dynin\n"
        "dynin.load(sys.argv[1])\n"
        "assert 'torchao' not in sys.modules\n"
        "dynin.load(sys.argv[2])\n"
        "assert 'torchao' in sys.modules"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script, str(home), str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
