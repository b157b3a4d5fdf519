"""Readers: the same rows in every pass, from any position, with the place they came from; templates for other forms."""

import base64
import importlib
import io
import itertools
import json
import tarfile
from pathlib import Path

import pytest

from dynin.data.records.check import check
from dynin.data.records.fault import Finding
from dynin.data.records.reader import IndexedReader, RecordReader, open_reader
from dynin.data.records.template import Template
from dynin.errors import DataError, MediaError
from dynin.media import image
from dynin.testing import small_picture

TO_IMAGE = {
    "task": "t2i",
    "messages": [
        {"role": "user", "content": [{"type": "text", "column": "caption;txt"}]},
        {"role": "assistant", "content": [{"type": "image", "column": "image;png;jpg"}]},
    ],
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """The package `datasets` keeps copies of what it reads; here they go with the test."""
    try:
        config = importlib.import_module("datasets").config
    except ImportError:
        return
    monkeypatch.setattr(config, "HF_DATASETS_CACHE", tmp_path / "copies")


def row(words: str, path: str) -> dict:
    given, made = [{"type": "text", "text": words}], [{"type": "image", "path": path}]
    return {"messages": [{"role": "user", "content": given}, {"role": "assistant", "content": made}]}


@pytest.fixture(scope="module")
def picture(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("picture") / "a.png"
    image.write(path, small_picture(48))
    return path.read_bytes()


def pack(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def template(tmp_path: Path, value: dict = TO_IMAGE) -> Template:
    path = tmp_path / "template.json"
    path.write_text(json.dumps(value))
    return Template.read(path)


def jsonl(tmp_path: Path, picture: bytes) -> RecordReader:
    (tmp_path / "a.png").write_bytes(picture)
    lines = [json.dumps(row(f"picture {index}", "a.png")) for index in range(5)]
    (tmp_path / "rows.jsonl").write_text("\n\n".join(lines))
    return open_reader(str(tmp_path / "rows.jsonl"))


def shards(tmp_path: Path, picture: bytes) -> RecordReader:
    for number, keys in enumerate((("a/x", "a/y"), ("b", "c", "d"))):
        members = {}
        for key in keys:
            members[f"./{key}.json"] = json.dumps(row(f"picture {key}", f"{key[-1]}.in.png")).encode()
            members[f"./{key}.in.png"] = picture
        pack(tmp_path / f"part-{number:03d}.tar", members)
    return open_reader(str(tmp_path / "part-{000..001}.tar"))


def columns(tmp_path: Path, picture: bytes) -> RecordReader:
    members = {}
    for index in range(5):
        members |= {f"{index:04d}.txt": f"picture {index}".encode(), f"{index:04d}.png": picture}
    pack(tmp_path / "part.tar", members)
    return open_reader(str(tmp_path / "*.tar"), template(tmp_path))


def table(tmp_path: Path, picture: bytes, name: str = "hf:{}?split=train") -> RecordReader:
    datasets = pytest.importorskip("datasets")
    rows = {"caption": [f"picture {index}" for index in range(5)], "image": [{"bytes": picture, "path": "a.png"}] * 5}
    made = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    made.to_parquet(tmp_path / "table" / "train.parquet")
    return open_reader(name.format(tmp_path / "table"), template(tmp_path))


def stream(tmp_path: Path, picture: bytes) -> RecordReader:
    return table(tmp_path, picture, "hf:{}?streaming=1")


def parquet(tmp_path: Path, picture: bytes) -> RecordReader:
    return table(tmp_path, picture, "{}/train.parquet")


def messages(tmp_path: Path, picture: bytes) -> RecordReader:
    datasets = pytest.importorskip("datasets")
    url = "data:image/png;base64," + base64.b64encode(picture).decode()
    made = datasets.Dataset.from_list([row(f"picture {index}", url) for index in range(5)])
    made.to_parquet(tmp_path / "table" / "train.parquet")
    return open_reader(f"hf:{tmp_path / 'table'}")


@pytest.mark.parametrize("make", [jsonl, shards, columns, table, stream, parquet, messages])
def test_every_reader_gives_the_same_rows_from_any_position(make, tmp_path, picture, encoder):
    reader = make(tmp_path, picture)
    whole = list(reader.records())
    assert len(whole) == 5
    assert len({str(record.place) for record in whole}) == 5
    for start in range(6):
        rest = list(reader.records(start))
        assert [(record.place, record.value) for record in rest] == [
            (record.place, record.value) for record in whole[start:]
        ]
    assert isinstance(reader, IndexedReader) == (make is not stream)
    if isinstance(reader, IndexedReader):
        assert len(reader) == 5
        assert reader.record(3).value == whole[3].value
    found = check(reader, encoder)
    assert (found.faults, found.tasks) == ((), {"t2i": 5})
    path = whole[0].value["messages"][1]["content"][0]["path"]
    assert whole[0].medium(path).read() == picture


def test_blank_lines_are_no_rows_but_count(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b"\n1\n  \r\n2\r\n\n3")
    records = list(open_reader(str(tmp_path / "rows.jsonl")).records())
    assert [(record.place.key, record.value) for record in records] == [(2, 1), (4, 2), (6, 3)]
    (tmp_path / "rows.jsonl").write_bytes(b"")
    assert list(open_reader(str(tmp_path / "rows.jsonl")).records()) == []


def test_a_column_that_is_not_there_is_named_and_faults_are_told_by_column(tmp_path, encoder):
    lines = [{"txt": "hello", "jpg": "none.jpg"}, {"txt": "hello"}, {"txt": 3, "jpg": "none.jpg"}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = check(open_reader(str(tmp_path / "rows.jsonl"), template(tmp_path)), encoder)
    assert [(fault.place.key, fault.field) for fault in found.faults] == [
        (1, "column jpg"), (2, "(row)"), (3, "column txt")
    ]  # fmt: skip
    assert "has no column 'image;png;jpg'" in found.faults[1].message


def test_a_template_that_can_make_no_row_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"template\.json, field mesages: is unknown; did you mean 'messages'"):
        template(tmp_path, {"mesages": []})


def test_a_tar_of_samples_without_rows_says_so(tmp_path, encoder):
    pack(tmp_path / "a.tar", {"x.png": b"1", "x.txt": b"2"})
    (record,) = open_reader(str(tmp_path / "a.tar")).records()
    assert isinstance(record.value, Finding)
    assert "has png, txt, but no row (x.json)" in record.value.message


def test_a_damaged_tar_is_named(tmp_path, picture):
    path = pack(tmp_path / "a.tar", {"x.json": b"{}", "x.png": picture * 40})
    data = path.read_bytes()
    for cut in (data[:700], data[: len(data) // 2], b"no tar at all", b"\x1f\x8b" + data):
        path.write_bytes(cut)
        with pytest.raises(DataError, match=r"a\.tar: (damaged|ends within)"):
            open_reader(str(path))


def test_a_member_of_a_tar_is_never_outside_of_it(tmp_path):
    path = pack(tmp_path / "a.tar", {"x.json": b"1"})
    (record,) = open_reader(str(path)).records()
    for name in ("../template.json", "/etc/hostname", "y.png"):
        with pytest.raises(MediaError, match="has no member"):
            record.medium(name).read()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none.jsonl", "none.jsonl: cannot be read"),
        ("none-*.tar", "no such tar"),
        ("a.tar.gz", "is compressed"),
        (".", "is a folder"),
        ("none.parquet", "no such file"),
        ("hf:none?spilt=train", "did you mean 'split'"),
    ],
)
def test_a_source_that_is_not_there_is_named(tmp_path, monkeypatch, name, words):
    monkeypatch.chdir(tmp_path)
    if name.endswith("parquet") or name.startswith("hf:"):
        pytest.importorskip("datasets")
    with pytest.raises(DataError) as caught:
        open_reader(name)
    assert words in str(caught.value)


def test_tars_are_read_in_the_order_of_their_names(tmp_path):
    for name in ("b", "a", "c"):
        pack(tmp_path / f"{name}.tar", {f"{name}{index}.json": b"1" for index in (2, 1)})
    keys = [record.place.key for record in open_reader(str(tmp_path / "*.tar")).records()]
    assert keys == [f"{name}{index}" for name, index in itertools.product("abc", (2, 1))]
