"""Ten thousand rows of all tasks, two hundred of which are faulty in known ways: what `dynin data check` must find."""

import json
import random
import struct
import wave
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from dynin.media import audio, image, video
from dynin.sequence.task import EMBEDDED_TASKS
from dynin.testing import small_picture, small_sound, small_video
from dynin.types import Modality

TEXT, IMAGE, VIDEO, SPEECH = Modality.TEXT, Modality.IMAGE, Modality.VIDEO, Modality.SPEECH
TYPES = {TEXT: "text", IMAGE: "image", VIDEO: "video", SPEECH: "audio"}
NUM_EACH = 6
"""Different media of each kind; rows share them."""
WHOLE = "(row)"


@dataclass
class FaultyFile:
    path: Path
    faults: dict[int, str] = field(default_factory=dict)
    """Line to field."""
    kinds: dict[int, str] = field(default_factory=dict)
    """Line to the name of what was done."""


def write_media(folder: Path) -> None:
    """Good media of every kind, and every kind of bad ones."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(NUM_EACH):
        image.write(folder / f"picture-{index}.png", small_picture(40 + 8 * index))
        video.write(folder / f"video-{index}.gif", small_video(3 + index, 32))
        audio.write(folder / f"sound-{index}.wav", small_sound(0.4 + 0.1 * index))
    good = (folder / "picture-0.png").read_bytes()
    (folder / "cut.png").write_bytes(good[: len(good) // 2])
    (folder / "noise.png").write_bytes(bytes(range(256)) * 8)
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("no picture")
    image.write(folder / "tiny.png", small_picture(4))
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", 60_000, 60_000, 8, 2, 0, 0, 0)
    (folder / "bomb.png").write_bytes(bomb)
    for name, samples in {
        "silent.wav": torch.zeros(16000),
        "short.wav": torch.ones(100) * 0.1,
    }.items():
        audio.write(folder / name, audio.Audio(samples=samples, rate_hz=16000))
    with wave.open(str(folder / "nothing.wav"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16000)
    whole = (folder / "sound-0.wav").read_bytes()
    (folder / "cut.wav").write_bytes(whole[: len(whole) // 2])
    samples = np.full(8000, np.nan, dtype="<f4").tobytes()
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 3, 1, 16000, 64000, 4, 32)
    head = (
        struct.pack("<4sI4s", b"RIFF", 36 + len(samples), b"WAVE") + form + struct.pack("<4sI", b"data", len(samples))
    )
    (folder / "nan.wav").write_bytes(head + samples)
    moving = (folder / "video-0.gif").read_bytes()
    (folder / "cut.gif").write_bytes(moving[: len(moving) * 2 // 3])


def good_row(index: int, draw: random.Random) -> dict:
    """A row of any task."""
    task = EMBEDDED_TASKS[list(EMBEDDED_TASKS)[index % len(EMBEDDED_TASKS)]]
    row: dict = {
        "messages": [
            {"role": "user", "content": [_part(modality, draw) for modality in task.conditions]},
            {"role": "assistant", "content": [_part(modality, draw) for modality in task.targets]},
        ]
    }
    for message in row["messages"]:
        draw.shuffle(message["content"])
    if draw.random() < 0.5:
        row["task"] = task.name
    if draw.random() < 0.5:
        row["id"] = draw.choice([f"row-{index}", index])
    return row


def _part(modality: Modality, draw: random.Random) -> dict:
    if modality == TEXT:
        return {"type": "text", "text": draw.choice(["a dog", "was ist das?\n", "\u4e2d\u6587 \U0001f600", "3 + 4"])}
    stem, suffix = {IMAGE: ("picture", "png"), VIDEO: ("video", "gif"), SPEECH: ("sound", "wav")}[modality]
    return {"type": TYPES[modality], "path": f"media/{stem}-{draw.randrange(NUM_EACH)}.{suffix}"}


# --- what can be wrong: each takes a good row and gives bytes and the field -------------------------------------------


def _dumped(row: object) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode()


def _first(row: dict, kind: str) -> tuple[str, dict]:
    """The field and the part of the first part of a type."""
    for at, message in enumerate(row["messages"]):
        for index, part in enumerate(message["content"]):
            if part["type"] == kind:
                return f"messages[{at}].content[{index}]", part
    raise LookupError(kind)


def _with_path(kind: str, name: str) -> Callable[[dict], tuple[bytes, str]]:
    def break_it(row: dict) -> tuple[bytes, str]:
        field, part = _first(row, kind)
        part["path"] = f"media/{name}"
        return _dumped(row), f"{field}.path"

    return break_it


def _with_part(kind: str, field: str, **changes: object) -> Callable[[dict], tuple[bytes, str]]:
    """Change keys of the first part of a type; None removes one."""

    def break_it(row: dict) -> tuple[bytes, str]:
        place, part = _first(row, kind)
        for key, value in changes.items():
            part[key] = value
            if value is None:
                del part[key]
        return _dumped(row), f"{place}.{field}" if field else place

    return break_it


def _changed(change: Callable[[dict], object], field: str) -> Callable[[dict], tuple[bytes, str]]:
    def break_it(row: dict) -> tuple[bytes, str]:
        change(row)
        return _dumped(row), field

    return break_it


def _bytes(change: Callable[[bytes], bytes]) -> Callable[[dict], tuple[bytes, str]]:
    return lambda row: (change(_dumped(row)), WHOLE)


def _second(row: dict) -> tuple[bytes, str]:
    content = row["messages"][0]["content"]
    content.append(dict(content[0]))
    return _dumped(row), f"messages[0].content[{len(content) - 1}]"


def _other_task(row: dict) -> tuple[bytes, str]:
    sides = [{part["type"] for part in message["content"]} for message in row["messages"]]
    row["task"] = "s2s" if sides != [{"audio"}, {"audio"}] else "v2v"
    return _dumped(row), "task"


def _nan(row: dict) -> tuple[bytes, str]:
    return _dumped({**row, "id": 0}).replace(b'"id": 0', b'"id": NaN'), WHOLE


FAULTS: dict[str, Callable[[dict], tuple[bytes, str]]] = {
    "half a line": _bytes(lambda line: line[: len(line) // 2]),
    "a missing comma": _bytes(lambda line: line.replace(b', "', b' "', 1)),
    "two rows in a line": _bytes(lambda line: line + line),
    "a byte order mark": _bytes(lambda line: b"\xef\xbb\xbf" + line),
    "no UTF-8": _bytes(lambda line: line.replace(b"{", b"{\xe9", 1)),
    "UTF-16": _bytes(lambda line: line.decode().replace("\n", " ").encode("utf-16").replace(b"\n", b"?")),
    "NaN": _nan,
    "infinity": lambda row: (_dumped({**row, "id": 0}).replace(b'"id": 0', b'"id": -Infinity'), WHOLE),
    "a key twice": _bytes(lambda line: b'{"messages": [], ' + line[1:]),
    "a deep nest": _bytes(lambda line: b"[" * 100_000),
    "a list": _bytes(lambda line: b"[" + line + b"]"),
    "null": _bytes(lambda line: b"null"),
    "an unknown key": _changed(lambda row: row.update(mesages=1), "mesages"),
    "a float as id": _changed(lambda row: row.update(id=1.5), "id"),
    "an empty id": _changed(lambda row: row.update(id=""), "id"),
    "a number as task": _changed(lambda row: row.update(task=3), "task"),
    "an unknown task": _changed(lambda row: row.update(task="t2x"), "task"),
    "another task": _other_task,
    "no messages": _changed(lambda row: row.pop("messages"), "messages"),
    "messages as text": _changed(lambda row: row.update(messages="hello"), "messages"),
    "one message": _changed(lambda row: row["messages"].pop(), "messages"),
    "two exchanges": _changed(lambda row: row["messages"].extend(row["messages"][:]), "messages"),
    "a system message": _changed(lambda row: row["messages"].insert(0, {"role": "system", "content": []}), "messages"),
    "a message that is text": _changed(lambda row: row["messages"].__setitem__(0, "hello"), "messages[0]"),
    "an unknown role": _changed(lambda row: row["messages"][1].update(role="model"), "messages[1].role"),
    "no role": _changed(lambda row: row["messages"][0].pop("role"), "messages[0].role"),
    "an unknown key of a message": _changed(lambda row: row["messages"][1].update(name="x"), "messages[1].name"),
    "content as text": _changed(lambda row: row["messages"][0].update(content="hello"), "messages[0].content"),
    "no content": _changed(lambda row: row["messages"][1].update(content=[]), "messages[1].content"),
    "a part that is text": _changed(
        lambda row: row["messages"][1]["content"].__setitem__(0, "hello"), "messages[1].content[0]"
    ),
    "an unknown part": _with_part("text", "type", type="txt"),
    "no type": _with_part("text", "type", type=None),
    "no text": _with_part("text", "text", text=None),
    "a number as text": _with_part("text", "text", text=7),
    "an empty text": _with_part("text", "text", text=" \n"),
    "half a character": lambda row: (
        _dumped(_first(row, "text")[1].update(text="HALF") or row).replace(b"HALF", b"a \\ud83d"),
        f"{_first(row, 'text')[0]}.text",
    ),
    "too long for the model": _with_part("text", "text", text="x y z " * 2000),
    "a text too large": _with_part("text", "text", text="x" * (1 << 20) + "x"),
    "thinking without an end": _changed(
        lambda row: row.update(
            messages=[
                {"role": "user", "content": [{"type": "text", "text": "1 + 1"}]},
                {"role": "assistant", "content": [{"type": "text", "text": "<think>hm"}]},
            ],
            task="t2t",
        ),
        "messages[1].content[0].text",
    ),
    "no path": _with_part("image", "path", path=None),
    "text in a picture": _with_part("image", "text", text="hello"),
    "a second part": _second,
    "no such picture": _with_path("image", "none.png"),
    "a folder": _with_path("image", "."),
    "a NUL in a path": _with_path("image", "a\0b.png"),
    "a URL": _with_part("image", "path", path="https://example.org/a.png"),
    "a picture that is noise": _with_path("image", "noise.png"),
    "a picture cut short": _with_path("image", "cut.png"),
    "an empty picture": _with_path("image", "empty.png"),
    "a text file": _with_path("image", "text.png"),
    "a picture of four pixels": _with_path("image", "tiny.png"),
    "a picture that claims to be huge": _with_path("image", "bomb.png"),
    "a sound as picture": _with_path("image", "sound-0.wav"),
    "a data URL that is none": _with_part("image", "path", path="data:image/png;base64,%%%"),
    "a silent sound": _with_path("audio", "silent.wav"),
    "a sound without samples": _with_path("audio", "nothing.wav"),
    "a sound too short": _with_path("audio", "short.wav"),
    "a sound cut short": _with_path("audio", "cut.wav"),
    "a sound of no numbers": _with_path("audio", "nan.wav"),
    "a picture as sound": _with_path("audio", "picture-0.png"),
    "no such sound": _with_path("audio", "none.wav"),
    "a video cut short": _with_path("video", "cut.gif"),
    "a sound as video": _with_path("video", "sound-1.wav"),
    "no such video": _with_path("video", "none.gif"),
}
REPEATED = "an id twice"


def write_rows(folder: Path, count: int, num_faults: int, seed: int = 0) -> FaultyFile:
    """A file of rows in which some lines are faulty, each in one way, and which ones; blank lines count as lines."""
    write_media(folder / "media")
    draw = random.Random(seed)
    names = [REPEATED, *FAULTS]
    chosen = sorted(draw.sample(range(10, count), num_faults))
    told = {at: names[index % len(names)] for index, at in enumerate(chosen)}
    file = FaultyFile(path=folder / "rows.jsonl")
    lines: list[bytes] = []
    ids: list[object] = []
    for index in range(count):
        row = good_row(index, draw)
        if draw.random() < 0.01:
            lines.append(b"  ")
        name = told.get(index)
        if name is None:
            if "id" in row:
                ids.append(row["id"])
            lines.append(_dumped(row))
            continue
        line, place = _broken(name, row, ids, index, draw)
        lines.append(line)
        file.faults[len(lines)] = place
        file.kinds[len(lines)] = name
    file.path.write_bytes(b"\n".join(lines) + b"\n")
    return file


def _broken(name: str, row: dict, ids: list[object], index: int, draw: random.Random) -> tuple[bytes, str]:
    """A row that is wrong in one way; a row of another task where it has not what is to be broken."""
    if name == REPEATED:
        return _dumped({**row, "id": draw.choice(ids)}), "id"
    while True:
        row.pop("id", None)
        try:
            return FAULTS[name](row)
        except LookupError:
            index += 1
            row = good_row(index, draw)
