"""The token cache: what is in it, when it is refused, and that it survives what can happen to it."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import faulty_rows
import pytest
import torch

from dynin.data.records import pretokenize as pretokenizing
from dynin.data.records.cache import TokenCache
from dynin.data.records.pretokenize import pretokenize
from dynin.data.records.reader import open_reader
from dynin.data.records.sources import SourceConfig, open_source
from dynin.errors import DataError
from dynin.media import image
from dynin.testing import small_picture, tiny, tiny_model

COUNT, FAULTS = 120, 12


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> faulty_rows.FaultyFile:
    return faulty_rows.write_rows(tmp_path_factory.mktemp("rows"), COUNT, FAULTS, seed=3)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(pretokenizing, "PART_RECORDS", 16)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_cache_holds_the_good_rows_with_the_codes_of_their_files(source, encoder, tmp_path):
    made = pretokenize(open_reader(str(source.path)), encoder, tmp_path / "cache", on_bad="skip")
    assert made.is_complete
    assert (made.num_records, sum(made.rows), len(made.parts)) == (COUNT, COUNT - FAULTS, 8)
    assert len(made.faults) == FAULTS
    cache = TokenCache.open(tmp_path / "cache", encoder)
    direct = open_source(SourceConfig(path=str(source.path), on_bad="skip"), encoder, seed=0).examples
    assert len(cache) == len(direct) == COUNT - FAULTS
    for position in range(len(cache)):
        one, other = cache.example(position), direct.example(position)
        assert (one.task, one.truth, one.name) == (other.task, other.truth, other.name)
        assert one.name == str(one.truth)
        assert one.truth.key not in source.faults
        for side in ("condition", "target"):
            ours, theirs = getattr(one, side), getattr(other, side)
            assert list(ours) == list(theirs)
            for modality, value in ours.items():
                is_same = value == theirs[modality] if isinstance(value, str) else torch.equal(value, theirs[modality])
                assert is_same, (position, modality)


def test_the_first_faulty_row_stops_it_with_line_and_field(source, encoder, tmp_path):
    line = min(source.faults)
    with pytest.raises(DataError) as caught:
        pretokenize(open_reader(str(source.path)), encoder, tmp_path / "cache")
    assert f"line {line}, field {source.faults[line]}: " in str(caught.value)
    with pytest.raises(DataError, match="is not finished"):
        TokenCache.open(tmp_path / "cache", encoder)


def test_what_is_there_is_not_made_again_and_what_changed_is(source, encoder, tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    first = pretokenize(open_reader(str(source.path)), encoder, folder, on_bad="skip")
    before = contents(folder)
    made = []
    real = pretokenizing.part.write
    monkeypatch.setattr(pretokenizing.part, "write", lambda *arguments: made.append(1) or real(*arguments))
    assert pretokenize(open_reader(str(source.path)), encoder, folder, on_bad="skip") == first
    assert contents(folder) == before
    assert made == []
    lines = source.path.read_bytes().splitlines(keepends=True)
    changed = source.path.with_name("changed.jsonl")
    changed.write_bytes(b"".join([*lines, *lines[:1]]).replace(b'"a dog"', b'"a cow"', 1))
    again = pretokenize(open_reader(str(changed)), encoder, folder, on_bad="skip")
    assert again.num_records == COUNT + 1
    assert 0 < len(made) < 4
    assert {path.name for path in (folder / "parts").iterdir()} == set(again.parts)


def test_a_picture_that_changed_changes_its_codes(encoder, tmp_path):
    rows = [{"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]},
                          {"role": "assistant", "content": [{"type": "image", "path": "a.png"}]}]}]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    seen = []
    for pixels in (small_picture(64), -small_picture(64)):
        image.write(tmp_path / "a.png", pixels)
        pretokenize(open_reader(str(tmp_path / "rows.jsonl")), encoder, tmp_path / "cache")
        seen.append(TokenCache.open(tmp_path / "cache", encoder).example(0).target["image"])
    assert not torch.equal(*seen)


def test_a_cache_of_other_tokenizers_is_refused(source, encoder, tmp_path):
    folder = tmp_path / "cache"
    pretokenize(open_reader(str(source.path)), encoder, folder, on_bad="skip")
    other = replace(encoder, tokenizers=replace(encoder.tokenizers, speech=tiny(seed=1).tokenizers.speech))
    for use in (
        lambda: TokenCache.open(folder, other),
        lambda: pretokenize(open_reader(str(source.path)), other, folder, on_bad="skip"),
    ):
        with pytest.raises(DataError, match="another speech tokenizer"):
            use()
    fewer = replace(
        encoder, tokenizers=replace(encoder.tokenizers, video=replace(encoder.tokenizers.video, num_frames=3))
    )
    with pytest.raises(DataError, match="another number of frames"):
        TokenCache.open(folder, fewer)
    with pytest.raises(DataError, match="its longest row has"):
        TokenCache.open(folder, replace(encoder, max_len=40))


def test_an_unfinished_cache_is_not_gone_on_with_by_other_tokenizers(source, encoder, tmp_path):
    with pytest.raises(DataError, match="field"):
        pretokenize(open_reader(str(source.path)), encoder, tmp_path / "cache")
    other = replace(encoder, tokenizers=replace(encoder.tokenizers, image=tiny(seed=1).tokenizers.image))
    with pytest.raises(DataError, match="another image tokenizer"):
        pretokenize(open_reader(str(source.path)), other, tmp_path / "cache", on_bad="skip")


@pytest.mark.parametrize("damage", ["cut", "flip", "delete", "swap", "empty"])
def test_a_damaged_part_is_found_named_and_made_anew(source, encoder, tmp_path, damage):
    folder = tmp_path / "cache"
    made = pretokenize(open_reader(str(source.path)), encoder, folder, on_bad="skip")
    before = contents(folder)
    path = folder / "parts" / made.parts[2]
    data = bytearray(path.read_bytes())
    match damage:
        case "cut":
            path.write_bytes(data[: len(data) // 2])
        case "flip":
            data[len(data) - 40] ^= 1
            path.write_bytes(data)
        case "delete":
            path.unlink()
        case "swap":
            path.write_bytes((folder / "parts" / made.parts[3]).read_bytes())
        case "empty":
            path.write_bytes(b"")
    with pytest.raises(DataError, match=made.parts[2]):
        [TokenCache.open(folder, encoder).example(position) for position in range(COUNT - FAULTS)]
    pretokenize(open_reader(str(source.path)), encoder, folder, on_bad="skip")
    assert contents(folder) == before


def test_rows_of_which_none_is_good_and_no_rows_at_all_are_errors(encoder, tmp_path):
    (tmp_path / "bad.jsonl").write_text("1\n2\n")
    (tmp_path / "none.jsonl").write_text("\n")
    with pytest.raises(DataError, match="none of its 2 rows is good"):
        pretokenize(open_reader(str(tmp_path / "bad.jsonl")), encoder, tmp_path / "a", on_bad="skip")
    with pytest.raises(DataError, match="holds no row"):
        pretokenize(open_reader(str(tmp_path / "none.jsonl")), encoder, tmp_path / "b")


def test_a_folder_that_holds_something_else_is_left_alone(source, encoder, tmp_path):
    (tmp_path / "letter.txt").write_text("hello")
    with pytest.raises(DataError, match="holds something else"):
        pretokenize(open_reader(str(source.path)), encoder, tmp_path)
    assert contents(tmp_path) == {"letter.txt": b"hello"}


def test_so_many_rows_only(source, encoder, tmp_path):
    made = pretokenize(open_reader(str(source.path)), encoder, tmp_path / "cache", on_bad="skip", limit=10)
    assert (made.num_records, sum(made.rows)) == (10, 10)


KILLED = """
import sys
from pathlib import Path
from dynin.data.records import pretokenize as pretokenizing
from dynin.data.records.encoder import RowEncoder
from dynin.data.records.reader import open_reader
from dynin.pipeline import encoding

pretokenizing.PART_RECORDS = 4
read = encoding.read(sys.argv[3])
encoder = RowEncoder(
    tasks=read.tasks, vocabulary=read.vocabulary, tokenizers=read.tokenizers, max_len=read.max_len
)
print("begins", flush=True)
pretokenizing.pretokenize(open_reader(sys.argv[1]), encoder, Path(sys.argv[2]), on_bad="skip")
"""


def test_a_run_that_is_killed_again_and_again_ends_with_the_cache_of_an_unbroken_one(source, tmp_path):
    draw = random.Random(0)
    model = tiny_model(tmp_path / "model")

    def start(folder: Path) -> subprocess.Popen:
        command = [sys.executable, "-c", KILLED, str(source.path), str(folder), str(model)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})
        with process.stdout as told:
            assert told.readline() == b"begins\n"
        return process

    unbroken = start(tmp_path / "a")
    begun = time.monotonic()
    assert unbroken.wait() == 0
    seconds = time.monotonic() - begun
    num_parts = []
    for _ in range(3):
        process = start(tmp_path / "b")
        time.sleep(draw.uniform(0, 0.6 * seconds))
        process.send_signal(signal.SIGKILL)
        process.wait()
        num_parts.append(len(list((tmp_path / "b" / "parts").glob("part-*"))))
    assert num_parts == sorted(num_parts)
    assert start(tmp_path / "b").wait() == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
