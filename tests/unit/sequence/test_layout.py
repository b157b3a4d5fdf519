"""Rows of the embedded layout, their parts and their inverse."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynin.errors import RequestError, VocabularyError
from dynin.sequence.batch import MODALITIES, stack
from dynin.sequence.layout import Assembler
from dynin.sequence.parse import parse
from dynin.sequence.task import EMBEDDED_TASKS
from dynin.types import Modality
from dynin.vocabulary import EMBEDDED

TEXT, IMAGE, VIDEO, SPEECH = Modality.TEXT, Modality.IMAGE, Modality.VIDEO, Modality.SPEECH
ASSEMBLER = Assembler(vocabulary=EMBEDDED, encode_text=lambda text: list(text.encode()))


def content(modality: Modality, draw) -> object:
    if modality == TEXT:
        return draw(st.text(max_size=20))
    count = {IMAGE: 16, VIDEO: 64}.get(modality) or draw(st.integers(0, 40))
    size = len(EMBEDDED.range_of(modality))
    return torch.tensor(draw(st.lists(st.integers(0, size - 1), min_size=count, max_size=count)), dtype=torch.long)


@settings(max_examples=100, deadline=None)
@given(st.data(), st.sampled_from(sorted(EMBEDDED_TASKS)))
def test_parsing_an_assembled_row_gives_its_targets_back(data, name):
    task = EMBEDDED_TASKS[name]
    given_values = {modality: content(modality, data.draw) for modality in task.conditions}
    made_values = {modality: content(modality, data.draw) for modality in task.targets}
    lengths = {TEXT: 100, SPEECH: 50}
    row = ASSEMBLER.assemble(task, given_values, made_values, lengths)
    for modality, made in parse(EMBEDDED, row, row.ids).items():
        value = made_values[modality]
        expected = list(value.encode()) if isinstance(value, str) else value.tolist()
        assert made.values.tolist() == expected
        assert made.is_ended


def test_every_pair_of_modalities_is_a_row():
    pairs = {f"{one.letter}2{other.letter}" for one, other in itertools.product(Modality, repeat=2)}
    assert len(pairs) == 16
    assert pairs <= set(EMBEDDED_TASKS)


def test_a_made_content_becomes_masks_and_everything_else_stays():
    row = ASSEMBLER.assemble(EMBEDDED_TASKS["t2i"], {TEXT: "hi"})
    mask = EMBEDDED["mask"]
    assert row.ids.tolist() == [
        EMBEDDED["t2i"], EMBEDDED["start_header"], ord("h"), ord("i"), EMBEDDED["end_header"], EMBEDDED["soi"],
        *[mask] * 16, EMBEDDED["eoi"],
    ]  # fmt: skip
    assert torch.equal(row.is_target, row.ids == mask)


def test_a_missing_condition_names_what_is_needed():
    with pytest.raises(RequestError, match="i2i needs image and text, but was given text"):
        ASSEMBLER.assemble(EMBEDDED_TASKS["i2i"], {TEXT: "hi"})


def test_a_code_outside_its_codebook_is_refused():
    with pytest.raises(VocabularyError, match="image code 1024 is outside"):
        ASSEMBLER.assemble(EMBEDDED_TASKS["i2i"], {TEXT: "hi", IMAGE: torch.full((16,), 1024)})


def test_a_mask_left_in_a_target_is_refused():
    row = ASSEMBLER.assemble(EMBEDDED_TASKS["t2i"], {TEXT: "hi"})
    with pytest.raises(VocabularyError, match="image id"):
        parse(EMBEDDED, row, row.ids)


def test_the_unconditional_row_empties_the_prompt_alone():
    row = ASSEMBLER.assemble(EMBEDDED_TASKS["i2i"], {TEXT: "hi", IMAGE: torch.arange(16)})
    emptied = ASSEMBLER.unconditional(row)
    prompt = row.span(TEXT, is_target=False)
    changed = (emptied != row.ids).nonzero().flatten().tolist()
    assert changed == list(range(prompt.start, prompt.stop))


def test_stacked_rows_are_padded_out_of_attention():
    rows = [ASSEMBLER.assemble(EMBEDDED_TASKS["t2i"], {TEXT: text}) for text in ("a", "abc")]
    batch = stack(rows, pad_id=EMBEDDED["pad"])
    assert batch.ids.shape == (2, 24)
    assert batch.attend.sum(dim=1).tolist() == [22, 24]
    assert batch.ids[0, 22:].tolist() == [EMBEDDED["pad"]] * 2
    assert batch.is_target.sum(dim=1).tolist() == [16, 16]
    assert (batch.kind == MODALITIES.index(IMAGE)).sum().item() == 32
