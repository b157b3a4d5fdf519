"""What a check says about media and lengths; the many kinds of faults are met in tests/e2e/test_own_data.py."""

import json
from pathlib import Path

import pytest
import torch

from dynin.data.records import encoder as encoders
from dynin.data.records.check import check
from dynin.data.records.encoder import RowEncoder
from dynin.data.records.reader import open_reader
from dynin.media import audio, image, video
from dynin.sequence.task import PUBLISHED_TASKS
from dynin.testing import small_picture, small_sound, small_video, tiny
from dynin.types import Modality
from dynin.vocabulary import PUBLISHED


def write(folder: Path, *rows: tuple[list, list]) -> str:
    lines = [
        json.dumps({"messages": [{"role": "user", "content": given}, {"role": "assistant", "content": made}]})
        for given, made in rows
    ]
    (folder / "rows.jsonl").write_text("\n".join(lines))
    return str(folder / "rows.jsonl")


def text(words: str) -> dict:
    return {"type": "text", "text": words}


def test_a_medium_that_many_rows_name_is_decoded_once(tmp_path, encoder, monkeypatch):
    image.write(tmp_path / "a.png", small_picture(48))
    decoded = []
    real = encoders.image.decode
    monkeypatch.setattr(encoders.image, "decode", lambda data, name: decoded.append(name) or real(data, name))
    picture = {"type": "image", "path": "a.png"}
    found = check(open_reader(write(tmp_path, *[([text("hi")], [picture])] * 5)), encoder)
    assert (found.num_rows, found.good, len(decoded)) == (5, (0, 1, 2, 3, 4), 1)


def test_the_length_of_a_row_counts_media_and_the_longest_part_is_named(tmp_path, encoder):
    audio.write(tmp_path / "long.wav", small_sound(25.0))
    sound = {"type": "audio", "path": "long.wav"}
    found = check(open_reader(write(tmp_path, ([sound], [text("hm")]))), encoder)
    (fault,) = found.faults
    assert fault.field == "messages[0].content[0].path"
    assert "this speech alone takes 625" in fault.message
    assert "the model's length, 512" in fault.message


def test_counted_codes_are_those_that_are_made(tmp_path, encoder):
    image.write(tmp_path / "a.png", small_picture(80))
    video.write(tmp_path / "a.gif", small_video(3))
    for seconds in (0.4, 1.0, 1.03):
        audio.write(tmp_path / f"{seconds}.wav", small_sound(seconds, 22050))
    for name, modality in [("a.png", Modality.IMAGE), ("a.gif", Modality.VIDEO)] + [
        (f"{seconds}.wav", Modality.SPEECH) for seconds in (0.4, 1.0, 1.03)
    ]:
        value = encoder.prepare(modality, (tmp_path / name).read_bytes(), name, 64)
        codes = encoder.encode(modality, value, 64)
        assert encoder.num_codes(modality, value, 64) == len(codes), name


def test_a_prepared_value_gives_the_codes_that_a_request_would_give(tmp_path, encoder):
    image.write(tmp_path / "a.png", small_picture(80)[:, :60])
    video.write(tmp_path / "a.webp", small_video(7, 48))
    audio.write(tmp_path / "a.wav", small_sound(0.7, 22050))
    for name, modality, read in [
        ("a.png", Modality.IMAGE, image.read),
        ("a.webp", Modality.VIDEO, lambda path: video.read(path, encoder.tokenizers.video.num_frames)),
        ("a.wav", Modality.SPEECH, audio.read),
    ]:
        value = encoder.prepare(modality, (tmp_path / name).read_bytes(), name, 64)
        expected = encoder.tokenizers.encode(modality, read(tmp_path / name))
        assert torch.equal(encoder.encode(modality, value, 64), expected), name


@pytest.fixture(scope="module")
def published() -> RowEncoder:
    return RowEncoder(tasks=PUBLISHED_TASKS, vocabulary=PUBLISHED, tokenizers=tiny().tokenizers, max_len=4096)


def test_a_prompt_that_the_layout_would_cut_is_a_fault(tmp_path, published):
    image.write(tmp_path / "a.png", small_picture(48))
    picture = {"type": "image", "path": "a.png"}
    rows = [([text("\u00e9" * count)], [picture]) for count in (60, 63, 64, 2000)]
    found = check(open_reader(write(tmp_path, *rows)), published)
    assert [(fault.place.key, fault.field) for fault in found.faults] == [
        (3, "messages[0].content[0].text"), (4, "messages[0].content[0].text")
    ]  # fmt: skip
    assert "has 4000 tokens, expected at most" in found.faults[1].message


def test_pictures_are_cut_to_what_their_place_in_the_task_takes(published):
    i2i, t2i = PUBLISHED_TASKS["i2i"], PUBLISHED_TASKS["t2i"]
    assert published.size_px(i2i, Modality.IMAGE, is_target=False) == 336
    assert published.size_px(i2i, Modality.IMAGE, is_target=True) == 336
    assert published.size_px(t2i, Modality.IMAGE, is_target=True) == 512


def test_codes_depend_on_the_tokenizers_of_what_occurs(encoder):
    assert set(encoder.made_by([])) == {"layout"}
    assert set(encoder.made_by([Modality.TEXT, Modality.IMAGE])) == {"layout", "text", "image"}
    assert set(encoder.made_by(Modality)) == {"layout", "text", "image", "speech", "frames"}
