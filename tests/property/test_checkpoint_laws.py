"""Laws of folders with models: whatever happens to a file, a reader gets the same model or one clear error."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import dynin
from dynin import testing
from dynin.errors import DyninError
from dynin.model import publish

SUMS = "SHA256SUMS"


def written(folder: Path, layout: str) -> Path:
    """A model of a few hundred kilobytes in one of the two layouts."""
    if layout == "dynin":
        return testing.tiny_model(folder)
    model = testing.tiny()
    publish.save(folder, model.model, model.vocabulary, model.tokenizers.text.to_json())
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {layout: written(tmp_path_factory.mktemp("laws") / layout, layout) for layout in ("published", "dynin")}


@pytest.fixture(scope="module")
def weights():
    return testing.tiny().model.state_dict()


def loaded(folder: Path) -> dict[str, torch.Tensor] | None:
    """The weights in a folder; None after an error that says where and what to do."""
    try:
        return dynin.load(folder).model.state_dict()
    except DyninError as refused:
        message = str(refused)
    assert str(folder) in message
    assert "\n" not in message
    return None


def is_same(found: dict[str, torch.Tensor] | None, weights: dict[str, torch.Tensor]) -> bool:
    return found is None or all(torch.equal(found[name], value) for name, value in weights.items())


@pytest.mark.parametrize("layout", ["published", "dynin"])
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_one_flipped_bit_or_a_cut_changes_nothing_or_is_told(folders, weights, layout, data):
    folder = folders[layout]
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = data.draw(st.sampled_from(files), label="file")
    content = path.read_bytes()
    at = data.draw(st.integers(0, len(content) - 1), label="byte")
    bit = data.draw(st.integers(-1, 7), label="bit, or -1 for a cut")
    flipped = bytearray(content)
    flipped[at] ^= 1 << max(bit, 0)
    try:
        path.write_bytes(content[:at] if bit < 0 else flipped)
        assert is_same(loaded(folder), weights)
    finally:
        path.write_bytes(content)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_without_checksums_there_is_a_model_or_one_clear_error(folders, data):
    folder = folders["published"]
    path = data.draw(st.sampled_from(sorted(folder.glob("*.json"))), label="file")
    content, sums = path.read_bytes(), (folder / SUMS).read_bytes()
    at = data.draw(st.integers(0, len(content) - 1), label="byte")
    wrong = data.draw(st.binary(max_size=2), label="instead")
    try:
        (folder / SUMS).unlink()
        path.write_bytes(content[:at] + wrong + content[at + 1 :])
        loaded(folder)
    finally:
        path.write_bytes(content)
        (folder / SUMS).write_bytes(sums)
