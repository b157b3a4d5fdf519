"""The id space: ranges, specials, and layouts that must agree."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dynin.errors import VocabularyError
from dynin.types import Modality
from dynin.vocabulary import EMBEDDED, PUBLISHED, Range, Vocabulary, published


@given(st.sampled_from([EMBEDDED, PUBLISHED]), st.sampled_from(list(Modality)), st.data())
def test_codes_to_ids_and_back_is_the_identity(vocabulary, modality, data):
    size = len(vocabulary.range_of(modality))
    codes = torch.tensor(data.draw(st.lists(st.integers(0, size - 1))), dtype=torch.long)
    assert torch.equal(vocabulary.ids_to_codes(modality, vocabulary.codes_to_ids(modality, codes)), codes)


def test_the_published_layout_is_the_published_one():
    assert PUBLISHED.size == 138_752
    assert (PUBLISHED.image, PUBLISHED.speech) == (
        Range(start=126_349, stop=134_541),
        Range(start=134_541, stop=138_637),
    )
    names = {"mask": 126_336, "eos": 126_081, "soi": 126_084, "ipad": 126_093, "eoa": 126_098, "end_think": 126_106}
    assert {name: PUBLISHED[name] for name in names} == names


@pytest.mark.parametrize("vocabulary", [EMBEDDED, PUBLISHED])
def test_a_layout_survives_being_stored(vocabulary):
    assert Vocabulary.from_dict(vocabulary.to_dict()) == vocabulary


def test_layouts_with_other_offsets_do_not_pass_for_equal():
    with pytest.raises(VocabularyError, match="differ in 'image'"):
        PUBLISHED.require_equal(published(126_372))


def test_overlapping_ranges_are_refused():
    with pytest.raises(VocabularyError, match="overlap at id 1088"):
        dataclasses.replace(EMBEDDED, text=Range(start=0, stop=1100))


def test_a_special_inside_a_range_is_refused():
    with pytest.raises(VocabularyError, match="'mask'"):
        dataclasses.replace(EMBEDDED, special={"mask": 5})


def test_too_few_rows_are_refused():
    with pytest.raises(VocabularyError, match="needs 3136 rows, but has 3000"):
        dataclasses.replace(EMBEDDED, size=3000)


def test_an_incomplete_layout_says_what_is_needed():
    with pytest.raises(VocabularyError, match="it needs name, size, text"):
        Vocabulary.from_dict({"name": "x"})


def test_an_unknown_special_lists_the_known():
    with pytest.raises(VocabularyError, match="no special token 'moi'"):
        EMBEDDED["moi"]


@pytest.mark.parametrize("code", [-1, 1024])
def test_a_code_outside_the_codebook_is_named(code):
    with pytest.raises(VocabularyError, match=f"speech code {code} is outside"):
        EMBEDDED.codes_to_ids(Modality.SPEECH, torch.tensor([3, code]))
