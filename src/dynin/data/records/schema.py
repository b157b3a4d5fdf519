"""The one schema of a row: what is given by the user, what is to be made by the assistant, as typed parts.

Enters: bytes or values as JSON gives them. Leaves: a `Row`, or every finding about it. Does not know tasks, files or
codes.

    {"id": "7", "task": "i2t", "messages": [
        {"role": "user", "content": [{"type": "image", "path": "7.png"}, {"type": "text", "text": "What is here?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "a dog"}]}]}

`id` and `task` may be left out.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from dynin.config import suggest
from dynin.data.records.fault import WHOLE, Finding
from dynin.types import Modality

ROW_KEYS = ("id", "task", "messages")
MESSAGE_KEYS = ("role", "content")
ROLES = ("user", "assistant")
"""In this order: one message each."""
KINDS: Mapping[str, Modality] = MappingProxyType(
    {"text": Modality.TEXT, "image": Modality.IMAGE, "video": Modality.VIDEO, "audio": Modality.SPEECH}
)
"""The types of parts."""
MAX_TEXT_BYTES = 1 << 20
MAX_ROW_BYTES = 32 << 20
"""Longest row of JSON; media belong into files beside it."""
MAX_ID_LENGTH = 200
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One text, or the path of one picture, video or sound."""

    modality: Modality
    value: str
    """The text, or the path as it was written."""
    field: str
    """Where the value stands in the row."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A row whose form is right."""

    given: tuple[Part, ...]
    made: tuple[Part, ...]
    task: str | None = None
    id: str | None = None


class _NotJsonError(ValueError):
    """Something that the JSON parser would let pass."""


def from_json(data: bytes) -> Any | Finding:
    """The value in UTF-8 JSON, or what is wrong with it; NaN, infinities and repeated keys are no JSON here."""
    if len(data) > MAX_ROW_BYTES:
        return _whole(f"has {len(data)} bytes, expected at most {MAX_ROW_BYTES}; put media into files and name them")
    if data.startswith(_BYTE_ORDER_MARK):
        return _whole("begins with a byte order mark, expected plain UTF-8; save the file without it")
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        return _whole(f"byte {error.start + 1} is not UTF-8; save the file in UTF-8")
    except json.JSONDecodeError as error:
        return _whole(f"is no JSON: {error.msg} at character {error.pos + 1}; correct it")
    except _NotJsonError as error:
        return _whole(f"is no JSON: {error}; correct it")
    except (ValueError, RecursionError):
        return _whole("is no JSON: a number too long or brackets nested too deeply; correct it")


def _refuse_constant(name: str) -> None:
    raise _NotJsonError(f"{name} is no number of JSON")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) < len(pairs):
        seen: set[str] = set()
        repeated = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _NotJsonError(f"the key {repeated[:40]!r} stands twice in one object")
    return values


def parse(value: object) -> tuple[Row | None, list[Finding]]:
    """A row, or all that is wrong with its form."""
    if not isinstance(value, Mapping):
        return None, [_whole(f"is {_kind(value)}, expected an object with 'messages'")]
    findings = [
        Finding(field=str(key), message=f"is unknown{suggest(str(key), ROW_KEYS)}")
        for key in value
        if key not in ROW_KEYS
    ]
    name = _id(value.get("id"), findings)
    task = value.get("task")
    if task is not None and not isinstance(task, str):
        findings.append(Finding(field="task", message=f"is {_kind(task)}, expected a task's name such as 't2i'"))
        task = None
    sides = _messages(value.get("messages"), findings)
    if findings or sides is None:
        return None, findings
    return Row(given=sides[0], made=sides[1], task=task, id=name), []


def _id(value: object, findings: list[Finding]) -> str | None:
    """The name of a row; a whole number counts as its digits."""
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and 0 < len(value) <= MAX_ID_LENGTH:
        return value
    told = f"has {len(value)} characters" if isinstance(value, str) else f"is {_kind(value)}"
    findings.append(Finding(field="id", message=f"{told}, expected 1 to {MAX_ID_LENGTH} characters or a whole number"))
    return None


def _messages(value: object, findings: list[Finding]) -> tuple[tuple[Part, ...], tuple[Part, ...]] | None:
    """The parts that are given and those to be made."""
    if not isinstance(value, list):
        told = "is missing" if value is None else f"is {_kind(value)}"
        findings.append(Finding(field="messages", message=f"{told}, expected a message of the user and its answer"))
        return None
    if len(value) != len(ROLES):
        findings.append(Finding(field="messages", message=_wrong_number(value)))
        return None
    given, made = (
        _message(message, role, at, findings) for at, (message, role) in enumerate(zip(value, ROLES, strict=True))
    )
    return given, made


def _wrong_number(messages: list[object]) -> str:
    if len(messages) < len(ROLES):
        return f"are {len(messages)}, expected 2: what is given (user) and what is to be made (assistant)"
    roles = [message.get("role") for message in messages if isinstance(message, Mapping)]
    if "system" in roles:
        return "hold a system message, which no task has; put its words into the user's text"
    return (
        f"are {len(messages)}, but a task has one exchange: a user's message and its answer; write one row for each "
        "answer, with what it needs of the earlier turns in the user's text"
    )


def _message(value: object, role: str, at: int, findings: list[Finding]) -> tuple[Part, ...]:
    """The parts of one message."""
    field = f"messages[{at}]"
    if not isinstance(value, Mapping):
        findings.append(Finding(field=field, message=f"is {_kind(value)}, expected an object with role and content"))
        return ()
    for key in value:
        if key not in MESSAGE_KEYS:
            message = f"is unknown{suggest(str(key), MESSAGE_KEYS)}"
            findings.append(Finding(field=f"{field}.{key}", message=message))
    if value.get("role") != role:
        told = repr(value["role"])[:40] if "role" in value else "missing"
        message = f"is {told}, expected {role!r}: the user's message comes first, then the assistant's"
        findings.append(Finding(field=f"{field}.role", message=message))
    content = value.get("content")
    if not isinstance(content, list) or not content:
        told = "is an empty list" if content == [] else f"is {_kind(content)}"
        hint = '; write [{"type": "text", "text": ...}]' if isinstance(content, str) else ""
        findings.append(Finding(field=f"{field}.content", message=f"{told}, expected a list of parts{hint}"))
        return ()
    parts = [_part(part, f"{field}.content[{index}]", findings) for index, part in enumerate(content)]
    return _single([part for part in parts if part is not None], findings)


def _single(parts: list[Part], findings: list[Finding]) -> tuple[Part, ...]:
    """The parts, of which there may be one of each type."""
    seen: dict[Modality, Part] = {}
    for part in parts:
        if part.modality in seen:
            message = f"is the second {part.modality} of its message, expected one at most; join or split them"
            findings.append(Finding(field=part.field.rpartition(".")[0], message=message))
        seen.setdefault(part.modality, part)
    return tuple(seen.values())


def _part(value: object, field: str, findings: list[Finding]) -> Part | None:
    """One typed part."""
    if not isinstance(value, Mapping):
        findings.append(Finding(field=field, message=f"is {_kind(value)}, expected an object with a type"))
        return None
    kind = value.get("type")
    if not isinstance(kind, str) or kind not in KINDS:
        told = "is missing" if kind is None else f"is {str(kind)[:40]!r}"
        findings.append(Finding(field=f"{field}.type", message=f"{told}{suggest(str(kind), KINDS)}"))
        return None
    key = "text" if kind == "text" else "path"
    for other in value:
        if other not in ("type", key):
            message = f"is unknown in a part of type {kind}, which has 'type' and {key!r}"
            findings.append(Finding(field=f"{field}.{other}", message=message))
    content = value.get(key)
    problem = _problem(content)
    if problem is not None or not isinstance(content, str):
        findings.append(Finding(field=f"{field}.{key}", message=problem or ""))
        return None
    return Part(modality=KINDS[kind], value=content, field=f"{field}.{key}")


def _problem(text: object) -> str | None:
    """What is wrong with a text or path, if anything is."""
    if text is None:
        return "is missing"
    if not isinstance(text, str):
        return f"is {_kind(text)}, expected a string"
    if not text.strip():
        return "is empty, expected something to read; fill it in or drop the row"
    try:
        num_bytes = len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        return f"holds half a character at place {error.start + 1}, expected whole ones; write it anew"
    if num_bytes > MAX_TEXT_BYTES and not text.startswith("data:"):
        return f"has {num_bytes} bytes, expected at most {MAX_TEXT_BYTES}; split it"
    return None


def _whole(message: str) -> Finding:
    return Finding(field=WHOLE, message=message)


def _kind(value: object) -> str:
    """What a JSON value is, in words."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return f"the number {str(value)[:20]}"
        case str():
            return "a string"
        case list():
            return "a list"
        case Mapping():
            return "an object"
    return type(value).__name__
