"""What a device has free, and the refusal before weights are read."""

import pytest
import torch
from safetensors.torch import save_file

import dynin
from dynin import checkpoint, repository, testing
from dynin.errors import CheckpointError
from dynin.model import published, room


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return testing.tiny_published(tmp_path_factory.mktemp("room") / "model")


def set_free(monkeypatch, num_bytes):
    monkeypatch.setattr(room, "available_bytes", lambda device=None: num_bytes)


def test_the_memory_of_the_processor_is_told():
    free = room.available_bytes("cpu")
    assert free is not None
    assert 2**20 < free < 2**50


def test_a_device_that_cannot_be_asked_refuses_nothing():
    assert room.available_bytes("meta") is None
    room.require_memory("a model", 10**18, "meta")


def test_the_line_of_the_system_is_read_in_kib(monkeypatch, tmp_path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       24105 kB\nMemAvailable:     100 kB\n")
    monkeypatch.setattr(room, "_MEMINFO", meminfo)
    assert room.available_bytes("cpu") == 102_400
    assert room.available_bytes() == 102_400


def test_without_that_line_the_free_pages_count(monkeypatch, tmp_path):
    monkeypatch.setattr(room, "_MEMINFO", tmp_path / "none")
    monkeypatch.setattr(room.os, "sysconf_names", {"SC_AVPHYS_PAGES": 1})
    monkeypatch.setattr(room.os, "sysconf", {"SC_AVPHYS_PAGES": 10, "SC_PAGE_SIZE": 4096}.__getitem__)
    assert room.available_bytes("cpu") == 40_960
    monkeypatch.setattr(room.os, "sysconf_names", {})
    assert room.available_bytes("cpu") is None


def test_of_a_cuda_device_what_this_process_does_not_use_counts(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 5000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 300)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 100)
    assert room.available_bytes("cuda:0") == 1200


def test_weights_that_do_not_fit_are_refused_with_both_numbers(monkeypatch, folder):
    set_free(monkeypatch, 3_000_000)
    needs = (
        r"model: needs 8\.9 MB for its weights, 3\.0 MB are free on cpu; take a shorter dtype .*DYNIN_IGNORE_MEMORY=1"
    )
    with pytest.raises(CheckpointError, match=needs):
        published.load_network(published.read(folder))
    with pytest.raises(CheckpointError, match=r"needs 17\.8 MB"):
        dynin.load(folder, dtype="float32")


def test_the_refusal_comes_before_a_weight_is_read(monkeypatch, folder):
    found = published.read(folder)
    set_free(monkeypatch, 0)
    for name in ("stream", "shapes"):
        assert hasattr(type(found.repository), name)
    monkeypatch.setattr(type(found.repository), "stream", lambda self: pytest.fail("read"))
    monkeypatch.setattr(published.repository, "verify", lambda *paths: pytest.fail("hashed"))
    with pytest.raises(CheckpointError, match=r"0\.0 MB are free"):
        published.load_network(found)


def with_media(place):
    """A model in the published layout with tokenizers of 10 and 5 MB once they are held in float32."""
    testing.tiny_published(place)
    for name, numbers in (("image", 2_500_000), ("speech", 1_250_000)):
        (place / name).mkdir()
        tensors = {"weight": torch.zeros(numbers, dtype=torch.bfloat16)}
        save_file(tensors, place / name / "model.safetensors", {"format": "pt"})
    return place


def test_the_tokenizers_of_media_count_before_anything_is_read(monkeypatch, tmp_path):
    place = with_media(tmp_path / "model")
    set_free(monkeypatch, 20_000_000)

    def verify(_, paths):
        assert [path.name for path in paths] == ["tokenizer.json"], "weights were hashed"

    monkeypatch.setattr(repository, "verify", verify)
    needs = r"model: needs 8\.9 MB for its weights and 15\.0 MB for its tokenizers of pictures and speech, 20\.0 MB are"
    with pytest.raises(CheckpointError, match=needs):
        dynin.load(place)


def test_the_tokenizers_of_media_are_as_large_as_the_published_ones_where_none_is_here(monkeypatch, folder):
    set_free(monkeypatch, 100_000_000)
    with pytest.raises(CheckpointError, match=r"and 928\.5 MB for its tokenizers"):
        dynin.load(folder)
    set_free(monkeypatch, 940_000_000)
    assert dynin.load(folder).model.config.d_model == 16


def test_a_model_without_media_needs_no_tokenizers_of_them(monkeypatch, tmp_path):
    place = testing.tiny_published(tmp_path / "model", "llada", text_len=126_349)
    set_free(monkeypatch, 100_000_000)
    assert dynin.load(place).model.config.d_model == 16


@pytest.mark.parametrize(("name", "to", "needs"), [("image", "image", r"10\.0 MB"), ("speech", "speech", r"5\.0 MB")])
def test_a_tokenizer_is_refused_before_it_is_read_if_the_memory_has_gone(monkeypatch, tmp_path, name, to, needs):
    model = dynin.load(with_media(tmp_path / "model"))
    set_free(monkeypatch, 1_000_000)
    with pytest.raises(CheckpointError, match=rf"{name}: needs {needs} for its weights, 1\.0 MB are free"):
        model.generate("a dog", to=to)


def test_a_model_of_ours_is_refused_before_it_is_hashed(monkeypatch, tmp_path):
    place = testing.tiny_model(tmp_path / "model")
    set_free(monkeypatch, 100_000)
    monkeypatch.setattr(checkpoint, "load_model", lambda *given: pytest.fail("read"))
    needs = r"model: needs 0\.\d MB for its weights and 0\.\d MB for its tokenizers.*0\.1 MB are free"
    with pytest.raises(CheckpointError, match=needs):
        dynin.load(place)


def test_a_damaged_config_of_ours_is_told_as_damage_however_little_is_free(monkeypatch, tmp_path):
    place = testing.tiny_model(tmp_path / "model")
    config = place / "backbone" / "config.json"
    config.write_text(config.read_text().replace('"d_model": 32', '"d_model": 9999999'))
    set_free(monkeypatch, 0)
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        dynin.load(place)


@pytest.mark.parametrize("free", [None, 8_900_000])
def test_weights_that_fit_or_cannot_be_compared_are_read(monkeypatch, folder, free):
    set_free(monkeypatch, free)
    assert published.load_network(published.read(folder)).config.d_model == 16


def test_an_environment_variable_goes_on_all_the_same(monkeypatch, folder):
    set_free(monkeypatch, 0)
    monkeypatch.setenv(room.IGNORE, "0")
    with pytest.raises(CheckpointError, match="0.0 MB are free"):
        published.load_network(published.read(folder))
    monkeypatch.setenv(room.IGNORE, "1")
    assert published.load_network(published.read(folder)).config.d_model == 16


def test_numbers_are_read_by_people():
    assert [room.gigabytes(value) for value in (16_232_488_960, 999_000_000, 0)] == ["16.2 GB", "999.0 MB", "0.0 MB"]
