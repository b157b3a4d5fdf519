"""Checksums of several files at once: which are known, which damage is named, and that many are hashed together."""

import threading

import pytest

from dynin import repository
from dynin.errors import CheckpointError


@pytest.fixture
def folder(tmp_path):
    for name in "abcd":
        (tmp_path / f"{name}.safetensors").write_bytes(name.encode() * 100)
    sums = {path.name: repository.sha256(path) for path in sorted(tmp_path.iterdir()) if path.stem != "d"}
    (tmp_path / "SHA256SUMS").write_text("".join(f"{digest}  {name}\n" for name, digest in sums.items()))
    return tmp_path


def files(folder):
    return sorted(folder.glob("*.safetensors"))


def test_files_with_a_checksum_are_told_in_their_order(folder):
    assert [path.stem for path in repository.verify(folder, files(folder)[::-1])] == ["c", "b", "a"]
    assert repository.verify(folder, []) == []


def test_of_several_damaged_files_the_first_is_named(folder):
    for name in "bc":
        (folder / f"{name}.safetensors").write_bytes(b"x")
    for check in (repository.verify, repository.checked_sums):
        with pytest.raises(CheckpointError, match=r"b\.safetensors: damaged \(1 bytes"):
            check(folder, files(folder))


def test_every_file_has_a_sum_whether_the_folder_knows_it_or_not(folder):
    found = repository.checked_sums(folder, files(folder))
    assert found == {path: repository.sha256(path) for path in files(folder)}


def test_files_are_hashed_at_the_same_time(folder, monkeypatch):
    monkeypatch.setattr(repository.os, "cpu_count", lambda: 3)
    together = threading.Barrier(3, timeout=20)
    sha256 = repository.sha256

    def waiting(path):
        together.wait()  # breaks unless three are under way
        return sha256(path)

    monkeypatch.setattr(repository, "sha256", waiting)
    assert len(repository.verify(folder, files(folder))) == 3
