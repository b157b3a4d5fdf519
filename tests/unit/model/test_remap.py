import pytest
import torch

from dynin.errors import VocabularyError
from dynin.model.remap import remap, row_order
from dynin.vocabulary import EMBEDDED, PUBLISHED, published


def test_every_code_keeps_its_row():
    before, after = published(126_349), published(126_464)
    table = torch.arange(before.size).float()[:, None]
    moved = remap({"embed.weight": table, "output.weight": -table, "norm.weight": table[:3]}, before, after)
    for old, new in ((before.text, after.text), (before.image, after.image), (before.speech, after.speech)):
        assert torch.equal(moved["embed.weight"][new.start : new.stop], table[old.start : old.stop])
    assert torch.equal(moved["output.weight"], -moved["embed.weight"])
    assert torch.equal(moved["norm.weight"], table[:3])
    for token_id in before.special.values():
        assert moved["embed.weight"][token_id] == token_id


@pytest.mark.parametrize("text_len", [126_349, 126_372, 126_464])
def test_a_move_is_undone_by_the_move_back(text_len):
    there, back = row_order(PUBLISHED, published(text_len)), row_order(published(text_len), PUBLISHED)
    assert torch.equal(there[back], torch.arange(PUBLISHED.size))
    assert torch.equal(there.sort().values, torch.arange(PUBLISHED.size))


def test_layouts_of_different_kinds_are_refused():
    with pytest.raises(VocabularyError, match="same rows"):
        row_order(PUBLISHED, EMBEDDED)
