"""The text tokenizer's file: what is counted of it, and every way in which it can be damaged."""

import json

import pytest

from dynin import testing
from dynin.errors import CheckpointError, RequestError
from dynin.tokenizers.text import ByteLevelText


@pytest.fixture(scope="module")
def text():
    return ByteLevelText.train(testing.WORDS * 4, size=300).to_json()


def changed(text, **values):
    """The file with other values in its model."""
    whole = json.loads(text)
    whole["model"] |= values
    return json.dumps(whole)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_a_file_that_is_no_tokenizer_is_named(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is not a tokenizer file; fetch"):
        ByteLevelText.load(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"cannot read the text tokenizer .*tokenizer\.json"):
        ByteLevelText.load(tmp_path / "tokenizer.json")


def test_a_file_at_which_the_library_panics_is_named(text, capfd):
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is not a tokenizer file; fetch"):
        ByteLevelText.from_json(changed(text, continuing_subword_prefix="#" * 20))
    assert "panicked" in capfd.readouterr().err


def test_names_that_stand_among_the_pieces_too_are_not_counted(text):
    names = {"<|mdm_mask|>": 336, "<|eot_id|>": 348}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    whole = json.loads(changed(text, vocab={**json.loads(text)["model"]["vocab"], **names}))
    whole["added_tokens"] = [{"id": number, "content": name, **flags} for name, number in names.items()]
    tokenizer = ByteLevelText.from_json(json.dumps(whole))
    assert (tokenizer.size, tokenizer.added) == (300, names)
    assert max(tokenizer.encode("a <|mdm_mask|> dog")) < 300


def test_half_a_character_is_refused_and_placed(text):
    tokenizer = ByteLevelText.from_json(text)
    with pytest.raises(RequestError, match="half a character at place 3"):
        tokenizer.encode("a \udcff dog")
