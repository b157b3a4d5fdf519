"""Pictures of a wished size: made, read, made again, and refused where they do not fit."""

import numpy as np
import pytest
import torch

from dynin import testing
from dynin.cli.filmstrip import draw
from dynin.errors import RequestError
from dynin.pipeline.request import Request
from dynin.types import Modality


@pytest.mark.parametrize("size", [16, 64, 128, 160])
def test_a_picture_is_made_at_the_wished_size(tiny, size):
    result = tiny.generate("a dog", to="image", size=size, trace=True)
    assert result.image.size == (size, size)
    assert len(result.trace[-1].codes) == (size // 16) ** 2
    assert result.num_forwards == min(size // 4, (size // 16) ** 2)  # 16 at the usual 64 px, 32 at 128 px


def test_the_usual_size_is_what_is_made_without_a_wish(tiny):
    plain, wished = (np.asarray(tiny.generate("a dog", to="image", size=size).image) for size in (None, 64))
    assert (plain == wished).all()


def test_steps_that_are_wished_stay(tiny):
    assert tiny.generate("a dog", to="image", size=128, steps=3).num_forwards == 3


def test_a_picture_that_is_heard_is_made_at_the_wished_size(tiny):
    made = tiny.generate(audio=testing.small_sound(0.5), to="image", size=96, steps=1)
    assert made.image.size == (96, 96)


def test_a_given_picture_is_read_at_the_wished_size(tiny):
    picture = testing.small_picture(128)
    for size, count in ((None, 16), (64, 16), (128, 64)):
        job = tiny.prepare(Request(image=picture, to="text", size=size))
        span = job.sequence.span(Modality.IMAGE, is_target=False)
        assert span.stop - span.start == count
        codes = tiny.vocabulary.ids_to_codes(Modality.IMAGE, job.sequence.ids[span.slice()])
        assert torch.equal(codes, tiny.tokenizers.encode(Modality.IMAGE, picture, size))


def test_a_picture_that_is_changed_is_read_and_made_at_one_size(tiny):
    result = tiny.generate("make it red", image=testing.small_picture(100), to="image", size=128, steps=1)
    assert result.image.size == (128, 128)


def test_a_part_of_a_large_picture_is_made_again_in_its_own_cells(tiny):
    original = testing.small_picture(128)
    job = tiny.prepare(Request(prompt="a dog", image=original, redo="16,32,32,16", size=128))
    assert int((job.sequence.ids == tiny.vocabulary["mask"]).sum()) == 2
    made = tiny.generate("a dog", image=original, redo="16,32,32,16", size=128)
    assert made.image.size == (128, 128)


def test_requests_of_one_batch_have_one_size(tiny):
    requests = [Request(prompt="a", to="image", size=size) for size in (64, 128)]
    with pytest.raises(RequestError, match="differ"):
        tiny.run_together(requests)
    together = tiny.run_together([Request(prompt=text, to="image", size=128) for text in ("a", "two red apples")])
    alone = tiny.generate("two red apples", to="image", size=128)
    assert (np.asarray(together[1].image) == np.asarray(alone.image)).all()


def test_a_step_of_a_large_picture_is_drawn_with_all_its_cells(tiny):
    result = tiny.generate("a dog", to="image", size=128, trace=True)
    assert draw(result.trace[0], result, tiny.tokenizers, cell_px=8).size == (64, 64)


@pytest.mark.parametrize(
    ("given", "wishes", "message"),
    [
        ("a dog", {"to": "image", "size": 100}, "size is 100.*16 x 16 px; give a multiple of 16, such as 96 or 112"),
        ("a dog", {"to": "image", "size": 5}, "such as 16 or 32"),
        ("a dog", {"to": "image", "size": 0}, "size is 0; give a whole number from 1 to 8192"),
        ("a dog", {"to": "image", "size": True}, "size is True"),
        ("a dog", {"to": "speech", "size": 64}, "t2s neither reads nor makes a picture; leave `size`"),
        ("a dog", {"to": "video", "size": 64}, "t2v neither reads nor makes a picture"),
        (
            "a dog",
            {"to": "image", "size": 512},
            r"1024 more, but the model's length is 512; give a size of at most 352",
        ),
        ("what?", {"to": "text", "image": 600, "size": 592}, "give a size of at most 3[0-9]{2}$"),
        ("go", {"to": "video", "image": 64, "size": 128}, "i2v has a picture of the size of its video's frames"),
    ],
)
def test_a_size_that_does_not_fit_is_refused_with_what_would(tiny, given, wishes, message):
    if "image" in wishes:
        wishes = {**wishes, "image": testing.small_picture(wishes["image"])}
    with pytest.raises(RequestError, match=message):
        tiny.generate(given, **wishes)


def test_the_largest_size_that_is_named_fits(tiny):
    assert tiny.generate("a dog", to="image", size=352, steps=1).image.size == (352, 352)
    with pytest.raises(RequestError, match="at most 352"):
        tiny.generate("a dog", to="image", size=368, steps=1)
