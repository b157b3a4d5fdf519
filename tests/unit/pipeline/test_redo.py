import pytest
import torch

from dynin import testing
from dynin.errors import MediaError, RequestError
from dynin.media import audio, image
from dynin.media.audio import Audio
from dynin.pipeline.redo import RedoBox, RedoSeconds, RedoWords, parse_redo


@pytest.mark.parametrize(
    ("text", "redo"),
    [
        ("8,0,32,64", RedoBox(x=8, y=0, width=32, height=64)),
        ("1.2s-2.0s", RedoSeconds(start_s=1.2, stop_s=2.0)),
        ("words:3-5@answer.txt", RedoWords(first=3, last=5, source="answer.txt")),
        (" 1 , 2 , 3 , 4 @a@b.png", RedoBox(x=1, y=2, width=3, height=4, source="a@b.png")),
    ],
)
def test_a_part_is_written_in_one_of_three_ways(text, redo):
    assert parse_redo(text) == redo


@pytest.mark.parametrize("text", ["", "1,2,3", "1s-2", "words:3", "-1,0,2,2", "word:1-2", "nan,0,1,1"])
def test_anything_else_is_refused_with_the_three_ways(text):
    with pytest.raises(RequestError, match=r"x,y,w,h in pixels, 1.2s-2.0s, or words:3-5"):
        parse_redo(text)


def test_only_cells_that_a_box_touches_are_opened(tiny):
    opened = RedoBox(x=16, y=15, width=16, height=2).open(tiny.tokenizers, testing.small_picture())
    assert opened.is_open.nonzero().flatten().tolist() == [1, 5]


def test_only_codes_whose_time_a_stretch_touches_are_opened(tiny):
    opened = RedoSeconds(start_s=0.08, stop_s=0.121).open(tiny.tokenizers, testing.small_sound())
    assert opened.is_open.nonzero().flatten().tolist() == [2, 3]


def test_only_the_ids_of_the_words_are_opened(tiny):
    opened = RedoWords(first=2, last=2).open(tiny.tokenizers, "a dog above")
    text = tiny.tokenizers.text
    assert text.decode(opened.codes.tolist()) == "a dog above"
    assert text.decode(opened.codes[opened.is_open].tolist()) == " dog"


@pytest.mark.parametrize("size", [(64, 64), (100, 100), (90, 150), (64, 131)])
def test_a_redone_picture_of_any_size_equals_the_original_outside_box_and_margin(tiny, size):
    original = testing.small_picture(160)[:, : size[0], : size[1]].contiguous()
    left = (size[1] - min(size)) // 2 + 8
    made = tiny.generate("a dog", image=original, redo=RedoBox(x=left, y=4, width=16, height=20))
    changed = image.to_levels(original) != image.to_levels(image.from_pil(made.image))
    where = changed.any(axis=-1).nonzero()
    assert len(where[0]) > 0
    assert where[0].min() >= 4 - 2
    assert where[0].max() < 4 + 20 + 2
    assert where[1].min() >= left - 2
    assert where[1].max() < left + 16 + 2


@pytest.mark.parametrize("rate_hz", [16000, 22050])
def test_a_redone_sound_of_any_rate_equals_the_original_outside_stretch_and_margin(tiny, rate_hz):
    original = testing.small_sound(1.3, rate_hz)
    made = tiny.generate("a dog", audio=original, redo="0.5s-0.8s").audio
    assert made.rate_hz == rate_hz
    changed = (made.samples != original.samples).nonzero().flatten() / rate_hz
    assert float(changed.min()) >= 0.5 - 0.021
    assert float(changed.max()) <= 0.8 + 0.021
    assert made.samples.numel() == original.samples.numel()


def test_redone_words_leave_all_other_characters(tiny, tmp_path):
    path = tmp_path / "answer.txt"
    path.write_text("a  dog left\tof a red apple", encoding="utf-8")
    made = tiny.generate("what?", image=testing.small_picture(), redo=f"words:3-4@{path}")
    assert made.task == "i2t"
    assert made.text.startswith("a  dog ")
    assert made.text.endswith(" a red apple")


@pytest.mark.parametrize("redo", ["0,0,65,8", "60,0,8,8", "0,0,0,8"])
def test_a_box_outside_the_picture_is_refused(tiny, redo):
    with pytest.raises(RequestError, match="expected one inside the square of 64 pixels"):
        tiny.generate("a dog", image=testing.small_picture(), redo=redo)


def test_a_stretch_outside_the_sound_is_refused(tiny):
    with pytest.raises(RequestError, match=r"1\.00 seconds"):
        tiny.generate("a dog", audio=testing.small_sound(), redo="0.5s-1.5s")


def test_words_that_are_not_there_are_refused(tiny, tmp_path):
    path = tmp_path / "answer.txt"
    path.write_text("a dog", encoding="utf-8")
    with pytest.raises(RequestError, match="some of the text's 2 words"):
        tiny.generate("what?", image=testing.small_picture(), redo=f"words:2-3@{path}")


def test_words_without_a_text_say_how_to_give_one(tiny):
    with pytest.raises(RequestError, match="words:3-5@FILE"):
        tiny.generate("what?", redo="words:1-2")


def test_a_redone_picture_survives_a_png_bit_for_bit(tiny, tmp_path):
    image.write(tmp_path / "in.png", testing.small_picture())
    made = tiny.generate("a dog", image=tmp_path / "in.png", redo="0,0,16,16")
    before, after = (
        image.to_levels(image.read(path)) for path in (tmp_path / "in.png", made.save(tmp_path / "out.png"))
    )
    assert (before[18:] == after[18:]).all()
    assert (before[:, 18:] == after[:, 18:]).all()


def test_a_redone_sound_survives_a_wav_bit_for_bit(tiny, tmp_path):
    audio.write(tmp_path / "in.wav", testing.small_sound())
    made = tiny.generate("a dog", audio=tmp_path / "in.wav", redo="0.2s-0.4s")
    before, after = (audio.read(path).samples for path in (tmp_path / "in.wav", made.save(tmp_path / "out.wav")))
    assert torch.equal(before[: int(0.179 * 16000)], after[: int(0.179 * 16000)])
    assert torch.equal(before[int(0.421 * 16000) :], after[int(0.421 * 16000) :])


def test_a_silent_sound_cannot_be_redone(tiny):
    with pytest.raises(MediaError, match="silent"):
        tiny.generate("a dog", audio=Audio(samples=torch.zeros(16000), rate_hz=16000), redo="0.2s-0.4s")
