"""Codes of known patches are those the tokenizer gives."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynin import testing
from dynin.data.emoji_world.world import EmojiWorld
from dynin.data.patch_memo import PatchMemo
from dynin.tokenizers.small.image import SmallImageTokenizer
from dynin.types import Modality

IMAGE = testing.tiny().tokenizers.image
assert isinstance(IMAGE, SmallImageTokenizer)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**20))
def test_codes_are_those_of_the_tokenizer(index):
    memo, world = PatchMemo(IMAGE), EmojiWorld(0)
    pictures = torch.stack([world.example("t2i", index + place).target[Modality.IMAGE] for place in range(6)])
    expected = IMAGE.encode(pictures)
    assert torch.equal(memo.encode(pictures), expected)
    assert 0 < len(memo.known) <= expected.numel()
    assert torch.equal(memo.encode(pictures.flip(0)), expected.flip(0))


def test_a_picture_between_two_bytes_is_encoded_as_it_is():
    memo, pixels = PatchMemo(IMAGE), torch.full((1, 3, 32, 32), 0.1234)
    assert torch.equal(memo.encode(pixels), IMAGE.encode(pixels))
    assert not memo.known
