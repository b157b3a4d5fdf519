"""The layout of ids, told three ways: by config, text tokenizer and rows; every disagreement is named."""

from pathlib import Path

import pytest

from dynin.errors import CheckpointError
from dynin.model.family import FAMILIES, LAYOUT_KEY, TextLengths, choose_layout, require_keys, stored_layout
from dynin.vocabulary import EMBEDDED, PUBLISHED, published

PLACE = Path("model/config.json")
BARE = {"model_type": "dynin_omni"}
STORED = {**BARE, LAYOUT_KEY: PUBLISHED.to_dict()}


def text(num_ids, num_pieces=126_080):
    return TextLengths(num_ids=num_ids, num_pieces=num_pieces)


def changed(**values):
    """A stored layout with other values."""
    return {**BARE, LAYOUT_KEY: {**PUBLISHED.to_dict(), **values}}


@pytest.mark.parametrize("num_ids", [126_349, 126_372, 126_464])
def test_a_known_tokenizer_tells_where_codes_begin(num_ids):
    layout = choose_layout(BARE, 138_752, text(num_ids), PLACE)
    assert (layout.image.start, layout.speech.start, layout.size) == (num_ids, num_ids + 8192, 138_752)


def test_the_config_tells_before_the_tokenizer_does():
    assert choose_layout({**BARE, "text_len": 126_464}, 138_752, text(126_349), PLACE).image.start == 126_464
    stored = {**BARE, LAYOUT_KEY: published(126_372).to_dict()}
    assert choose_layout(stored, 138_752, text(126_349), PLACE).image.start == 126_372


def test_the_user_tells_before_a_config_without_a_layout_does():
    assert choose_layout({**BARE, "text_len": 126_464}, 138_752, text(126_372), PLACE, 126_349).image.start == 126_349


@pytest.mark.parametrize(
    ("values", "num_rows", "lengths", "text_len", "message"),
    [
        (BARE, 138_752, text(126_400), None, "126,400 ids, expected one of 126,349, .*text_len in a TOML file"),
        (BARE, 138_752, text(32_000, 32_000), None, "32,000 ids, expected one of"),
        (BARE, 138_752, text(50_257, 50_257), 126_349, "50,257 ids, expected at least 126,349, control ids included"),
        (BARE, 138_752, text(126_349, 126_200), None, "expected at most 126,080 pieces of text, not 126,200"),
        (BARE, 138_752, text(126_349), 138_000, "with 138,000 text ids the layout does not fit"),
        (BARE, 138_752, text(126_349), 100, "with 100 text ids the layout does not fit"),
        (STORED, 138_752, text(126_372), None, "126,372 ids, expected at most 126,349, since media codes begin there"),
        (STORED, 138_752, text(300, 300), None, "300 ids, expected at least 126,349"),
        (STORED, 138_880, text(126_349), None, "has 138,752 rows, the weights have 138,880"),
        (STORED, 138_752, text(126_349), 126_464, "begin at 126,349, but text_len is 126,464; .*dynin convert"),
        ({**BARE, "text_len": 126_349}, 138_752, text(126_372), None, "expected at most 126,349"),
        ({**BARE, "text_len": "many"}, 138_752, text(126_349), None, "text_len is 'many', expected a whole number"),
        ({**BARE, LAYOUT_KEY: EMBEDDED.to_dict()}, EMBEDDED.size, text(900, 900), None, "900 ids, expected 1,024"),
    ],
)
def test_what_disagrees_is_named(values, num_rows, lengths, text_len, message):
    with pytest.raises(CheckpointError, match=message):
        choose_layout(values, num_rows, lengths, PLACE, text_len)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({**BARE, LAYOUT_KEY: 3}, "dynin_vocabulary is no layout of ids"),
        (changed(image={}), "dynin_vocabulary is no layout of ids"),
        (changed(image={"start": "a", "stop": "b"}), "dynin_vocabulary is no layout of ids"),
        (changed(size="many"), "dynin_vocabulary is no layout of ids"),
        (changed(size=float("inf")), "dynin_vocabulary is no layout of ids"),
        (changed(image={"start": 134_541, "stop": 126_349}), "no (published layout|layout of ids)"),
        (changed(image={"start": 126_349.5, "stop": 134_541.5}), "no (published layout|layout of ids)"),
        (changed(name="publishd"), "no publishd layout .*did you mean 'published'"),
        (changed(name="embedded"), "no embedded layout"),
        (changed(special={**PUBLISHED.special, "mask": 126_335}), "no published layout .*'special mask'"),
        ({**STORED, "model_type": "llada"}, "model_type is 'llada', but dynin_vocabulary is of a published model"),
    ],
)
def test_a_stored_layout_that_nobody_wrote_is_refused(values, message):
    with pytest.raises(CheckpointError, match=rf"model/config\.json: .*{message}"):
        stored_layout(values, PLACE)


@pytest.mark.parametrize("values", [BARE, STORED])
@pytest.mark.parametrize(("key", "wrong"), [("mask_token_id", 5), ("eos_token_id", 2), ("codebook_size", 16_384)])
def test_keys_that_contradict_the_layout_are_named(values, key, wrong):
    with pytest.raises(CheckpointError, match=rf"model/config\.json: {key} is {wrong}, expected \d+; fetch"):
        require_keys({**values, key: wrong}, PLACE)


def test_a_text_length_beside_another_layout_is_named():
    with pytest.raises(CheckpointError, match="text_len is 126464, expected 126349"):
        require_keys({**STORED, "text_len": 126_464}, PLACE)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_layout_of_a_family_comes_back_from_its_config(name):
    family = FAMILIES[name]
    values = {"model_type": family.model_types[0], LAYOUT_KEY: family.layout(126_464).to_dict()}
    assert stored_layout(values, PLACE) == family.layout(126_464)
    require_keys(values, PLACE)
