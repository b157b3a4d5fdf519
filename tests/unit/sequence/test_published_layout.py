"""The published prompts, position by position (facts: the published prompt builder run on short prompts)."""

import pytest
import torch

from dynin.sequence.layout import Assembler
from dynin.sequence.task import PUBLISHED_ALTERNATIVES, PUBLISHED_TASKS
from dynin.types import Modality
from dynin.vocabulary import PUBLISHED

TEXT, IMAGE, VIDEO, SPEECH = Modality.TEXT, Modality.IMAGE, Modality.VIDEO, Modality.SPEECH
IPAD, BOS, EOS, MASK = 126_093, 126_080, 126_081, 126_336
SOI, EOI, SOA, EOA = 126_084, 126_085, 126_097, 126_098
USER, HEADER_END = [126_346, 117, 126_347], 126_347


def encode(text: str) -> list[int]:
    """A stand-in tokenizer whose ids show what was tokenized together: 117 for the roles, one id per other word."""
    roles = {"user": 117, "assistant": 118, "\n": 119}
    if text in roles:
        return [roles[text]]
    return [1000 + len(word) for word in text.split()]


@pytest.fixture
def assembler() -> Assembler:
    return Assembler(vocabulary=PUBLISHED, encode_text=encode)


def codes(count: int) -> torch.Tensor:
    return torch.arange(count) % 100


def test_a_picture_is_drawn_from_a_left_padded_prompt(assembler):
    row = assembler.assemble(PUBLISHED_TASKS["t2i"], {TEXT: "one two six"})
    assert len(row.ids) == 1155
    assert row.ids[:123].tolist() == [IPAD] * 123
    assert row.ids[123:130].tolist() == [126_088, BOS, 1003, 1003, 1003, EOS, SOI]
    assert row.ids[130:1154].tolist() == [MASK] * 1024
    assert row.ids[1154].item() == EOI
    assert int(row.attend.sum()) == 1032
    assert row.is_target.nonzero().flatten().tolist() == list(range(130, 1154))


def test_an_empty_prompt_keeps_the_task_marker_at_126(assembler):
    row = assembler.assemble(PUBLISHED_TASKS["t2i"], {TEXT: ""})
    assert row.ids[126:130].tolist() == [126_088, BOS, EOS, SOI]


def test_an_overlong_prompt_is_cut_and_ends_with_eos(assembler):
    row = assembler.assemble(PUBLISHED_TASKS["t2i"], {TEXT: "word " * 300})
    assert len(row.ids) == 1155
    assert row.ids[:2].tolist() == [126_088, BOS]
    assert row.ids[128].item() == EOS
    assert bool(row.attend.all())


def test_an_edit_has_its_padding_between_source_and_prompt(assembler):
    row = assembler.assemble(PUBLISHED_TASKS["i2i"], {IMAGE: codes(441), TEXT: "one two six"})
    assert len(row.ids) == 1016
    assert row.ids[:2].tolist() == [126_095, SOI]
    assert row.ids[2:443].tolist() == (126_349 + codes(441)).tolist()
    assert row.ids[443].item() == EOI
    assert row.ids[444].item() == IPAD
    assert row.ids[568:574].tolist() == [BOS, 1003, 1003, 1003, EOS, SOI]
    assert row.ids[574:1015].tolist() == [MASK] * 441
    assert row.ids[1015].item() == EOI
    assert int(row.attend.sum()) == 892


def test_the_alternative_edit_prompt_doubles_bos_and_eos(assembler):
    row = assembler.assemble(PUBLISHED_ALTERNATIVES["i2i_gen"], {IMAGE: codes(441), TEXT: "one two six"})
    assert len(row.ids) == 1018
    assert row.ids[0].item() == 126_088
    assert row.ids[444].item() == BOS
    assert row.ids[573:576].tolist() == [EOS, EOS, SOI]


def test_a_picture_is_described_after_its_codes(assembler):
    row = assembler.assemble(PUBLISHED_TASKS["i2t"], {IMAGE: codes(441), TEXT: "what now"})
    assert row.ids[:2].tolist() == [126_089, SOI]
    assert row.ids[443:445].tolist() == [EOI, BOS]
    assert row.ids[445:448].tolist() == USER
    assert row.ids[448:450].tolist() == [1004, 1003]
    assert row.ids[450:455].tolist() == [126_348, 126_346, 118, HEADER_END, 119]
    assert row.ids[455:].tolist() == [MASK] * 1024


def test_the_question_is_tokenized_together_with_the_newline_before_it():
    seen = []

    def spy(text: str) -> list[int]:
        seen.append(text)
        return [1]

    Assembler(vocabulary=PUBLISHED, encode_text=spy).assemble(PUBLISHED_TASKS["t2t"], {TEXT: "why {x}?"})
    assert seen == ["user", "\nwhy {x}?", "assistant", "\n"]


def test_all_frames_lie_in_one_span(assembler):
    row = assembler.assemble(PUBLISHED_TASKS["v2t"], {VIDEO: codes(2205), TEXT: "what now"})
    assert row.ids[:2].tolist() == [126_100, SOI]
    assert row.ids[2207:2209].tolist() == [EOI, BOS]
    assert row.ids[-128:].tolist() == [MASK] * 128


def test_a_transcript_follows_the_sound_without_bos(assembler):
    row = assembler.assemble(PUBLISHED_TASKS["s2t"], {SPEECH: codes(7), TEXT: "write it"})
    assert row.ids[:2].tolist() == [126_096, SOA]
    assert row.ids[2:9].tolist() == (126_349 + 8192 + codes(7)).tolist()
    assert row.ids[9:13].tolist() == [EOA, *USER]


def test_speech_is_made_after_a_left_padded_prompt(assembler):
    row = assembler.assemble(PUBLISHED_TASKS["t2s"], {TEXT: "hello you"})
    start = 1025 - (1 + 1 + 3 + 7 + 5 + 1)  # "Read the given sentence aloud." comes before the text
    assert len(row.ids) == 1409
    assert row.ids[start - 1].item() == IPAD
    assert row.ids[start : start + 2].tolist() == [126_099, BOS]
    assert row.ids[1024:1026].tolist() == [EOS, SOA]
    assert row.ids[1026:].tolist() == [MASK] * 383
    assert not bool(row.attend[:start].any())
    assert bool(row.attend[start:].all())


def test_the_fixed_length_speech_prompt_ends_with_the_end_of_audio(assembler):
    row = assembler.assemble(PUBLISHED_ALTERNATIVES["t2s_fixed_gen"], {TEXT: "hello"})
    assert row.ids[-1].item() == EOA
    assert int(row.is_target.sum()) == 256


def test_a_video_is_narrated_after_a_right_padded_prompt(assembler):
    row = assembler.assemble(PUBLISHED_TASKS["v2s"], {VIDEO: codes(980), TEXT: "narrate it"})
    assert len(row.ids) == 2263
    assert row.ids[0].item() == 126_102
    assert row.ids[983:987].tolist() == [BOS, 1007, 1002, EOS]
    assert row.ids[987:2007].tolist() == [EOS] * 1020
    assert row.ids[2007].item() == SOA
    assert bool(row.attend.all())
    assert int(row.is_target.sum()) == 255


def test_a_spoken_question_is_answered_by_speech(assembler):
    row = assembler.assemble(PUBLISHED_TASKS["s2s"], {SPEECH: codes(3)})
    base = 126_349 + 8192
    assert row.ids[:11].tolist() == [126_101, *USER, 119, SOA, base, base + 1, base + 2, EOA, 126_348]
    assert row.ids[11:16].tolist() == [126_346, 118, HEADER_END, 119, SOA]
    assert row.ids[16:].tolist() == [MASK] * 512


def test_text_and_picture_are_made_together_after_the_prompt_block(assembler):
    row = assembler.assemble(PUBLISHED_TASKS["ti2ti"], {IMAGE: codes(441), TEXT: "one"})
    assert row.ids[:2].tolist() == [126_103, SOI]
    assert row.ids[444].item() == IPAD
    assert row.ids[570:574].tolist() == [BOS, 1003, EOS, SOI]
    assert row.ids[1015].item() == EOI
    assert row.ids[1016:].tolist() == [MASK] * 129
