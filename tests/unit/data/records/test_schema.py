"""The form of a row: what is right gives parts, what is wrong is named by its field."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynin.data.records import schema
from dynin.data.records.fault import WHOLE, Finding, Place
from dynin.types import Modality


def text(words: str = "a dog") -> dict:
    return {"type": "text", "text": words}


def row(given: list, made: list, **more: object) -> dict:
    return {**more, "messages": [{"role": "user", "content": given}, {"role": "assistant", "content": made}]}


def test_a_row_becomes_its_parts():
    made, findings = schema.parse(row([{"type": "image", "path": "7.png"}, text()], [text("yes")], id=7, task="i2t"))
    assert findings == []
    assert (made.id, made.task) == ("7", "i2t")
    assert [(part.modality, part.value, part.field) for part in (*made.given, *made.made)] == [
        (Modality.IMAGE, "7.png", "messages[0].content[0].path"),
        (Modality.TEXT, "a dog", "messages[0].content[1].text"),
        (Modality.TEXT, "yes", "messages[1].content[0].text"),
    ]


@pytest.mark.parametrize(
    ("value", "field", "words"),
    [
        ({"messages": [row([], [])["messages"][0]] * 4}, "messages", "write one row for each answer"),
        ({"messages": [{"role": "system"}, {}, {}]}, "messages", "into the user's text"),
        (row([text()], []), "messages[1].content", "an empty list"),
        (row(["a dog"], [text()]), "messages[0].content[0]", "a string"),
        (row([text()], [{"type": "img", "path": "a"}]), "messages[1].content[0].type", "did you mean 'image'"),
        (row([text()], [{"type": "image", "text": "a"}]), "messages[1].content[0].text", "has 'type' and 'path'"),
        (row([text()], [text()], lable=1), "lable", "is unknown"),
        (row([text()], [text()], id=True), "id", "true or false"),
        (row([text(), text()], [text()]), "messages[0].content[1]", "second text"),
    ],
)
def test_what_is_wrong_is_named(value, field, words):
    made, findings = schema.parse(value)
    assert made is None
    assert any(finding.field == field and words in finding.message for finding in findings)


def test_all_that_is_wrong_is_found_at_once():
    broken = row([{"type": "image"}, text("")], [text()], id=1.5)
    broken["messages"][1]["role"] = "bot"
    _, findings = schema.parse(broken)
    assert [finding.field for finding in findings] == [
        "id", "messages[0].content[0].path", "messages[0].content[1].text", "messages[1].role"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"{", "is no JSON"),
        (b'{"a": NaN}', "NaN is no number"),
        (b'{"a": 1, "a": 2}', "'a' stands twice"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b'{"a": "\xff"}', "byte 8 is not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b"1" * 10_000, "a number too long"),
    ],
)
def test_what_is_no_json_is_told(data, words):
    found = schema.from_json(data)
    assert isinstance(found, Finding)
    assert found.field == WHOLE
    assert words in found.message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["id", "task", "messages", "role", "content", "type", "text", "path"]), inner)
    ),
    max_leaves=20,
)


@given(JSON)
def test_any_value_gives_a_row_or_findings_that_print_as_one_line(value):
    made, findings = schema.parse(value)
    assert (made is None) == bool(findings)
    for finding in findings:
        assert "\n" not in str(finding.at(Place(source="a.jsonl", unit="line", key=1)))


@given(st.text(min_size=1).filter(str.strip))
def test_any_text_survives(words):
    made, findings = schema.parse(schema.from_json(json.dumps(row([text(words)], [text(words)])).encode()))
    is_whole = words.isprintable() or not any(0xD800 <= ord(sign) < 0xE000 for sign in words)
    assert (made is not None) == is_whole == (not findings)
    assert made is None or made.given[0].value == words
