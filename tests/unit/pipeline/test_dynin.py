import numpy as np
import pytest
import torch
from PIL import Image

from dynin import testing
from dynin.errors import MediaError, RequestError
from dynin.pipeline.dynin import _prompt, _split_thinking
from dynin.pipeline.request import Request
from dynin.pipeline.result import ENDED, HIDDEN
from dynin.sequence.task import EMBEDDED_TASKS
from dynin.types import Modality

TEXT, IMAGE, VIDEO, SPEECH = Modality


@pytest.fixture(scope="module")
def media():
    return {
        TEXT: "a dog",
        IMAGE: testing.small_picture(),
        VIDEO: testing.small_video(),
        SPEECH: testing.small_sound(0.5),
    }


@pytest.mark.parametrize("task", list(EMBEDDED_TASKS.values()), ids=list(EMBEDDED_TASKS))
def test_every_row_of_the_table_runs_from_values_to_values(tiny, media, task):
    given = {modality: media[modality] for modality in task.conditions}
    result = tiny.run(Request.to_fulfil(given, "+".join(task.targets), steps=1))
    assert result.task == task.name
    assert (result.text is not None) == (TEXT in task.targets)
    assert (result.image is not None) == (IMAGE in task.targets)
    assert (result.video is not None) == (VIDEO in task.targets)
    assert (result.audio is not None) == (SPEECH in task.targets)


def test_the_same_seed_gives_the_same_picture_and_another_seed_another(tiny):
    first, again, other = (np.asarray(tiny.generate("a dog", to="image", seed=seed).image) for seed in (3, 3, 4))
    assert (first == again).all()
    assert (first != other).any()


@pytest.fixture
def one_thread():
    """Several threads cut a product by its size, so that a batch may round otherwise than its rows alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_requests_of_one_batch_get_what_they_get_alone(tiny, one_thread):
    requests = [
        Request(prompt=prompt, to="image", seed=seed, preset="exact")  # drawn weights tell places apart by rounding
        for seed, prompt in enumerate(["a dog", "two red apples"])
    ]
    together = tiny.run_together(requests)
    for request, result in zip(requests, together, strict=True):
        assert (np.asarray(tiny.run(request).image) == np.asarray(result.image)).all()


def test_requests_of_different_tasks_do_not_run_together(tiny):
    with pytest.raises(RequestError, match="differ"):
        tiny.run_together([Request(prompt="a", to="image"), Request(prompt="a", to="video")])


def test_steps_are_network_calls(tiny):
    assert tiny.generate("a dog", to="image", steps=5).num_forwards == 5


def test_a_guided_request_runs(tiny):
    assert tiny.generate("a dog", to="image", steps=3, guidance=2.0).num_forwards == 3


def test_a_trace_ends_with_nothing_hidden_and_starts_with_much(tiny):
    trace = tiny.generate("a dog", to="image", trace=True).trace
    assert (trace[0].codes == HIDDEN).sum() > 8
    assert not (trace[-1].codes == HIDDEN).any()
    assert [snapshot.num_forwards for snapshot in trace] == list(range(1, 17))


def test_text_is_seen_while_it_appears(tiny):
    seen = []
    tiny.generate("a dog", to="text", steps=4, on_step=seen.append)
    assert "\u00b7" in seen[0].text
    assert "\u00b7" not in seen[-1].text


def test_nothing_is_kept_where_no_trace_is_asked_for(tiny):
    assert tiny.generate("a dog", to="image").trace is None


def test_pictures_of_pillow_files_and_tensors_are_the_same(tiny, tmp_path):
    levels = (np.random.default_rng(0).random((64, 64, 3)) * 255).astype(np.uint8)
    picture = Image.fromarray(levels)
    picture.save(tmp_path / "a.png")
    tensor = torch.from_numpy(levels).permute(2, 0, 1).float() / 127.5 - 1
    texts = {tiny.generate("what?", image=value, steps=1).text for value in (picture, tmp_path / "a.png", tensor)}
    assert len(texts) == 1


@pytest.mark.parametrize("name", ["<|eos|>", "<|mask|>", "<mask>", "<eos>", "[MASK]", "<think>", "<t2i>"])
def test_strings_that_look_like_control_tokens_stay_text(tiny, name):
    ids = tiny.tokenizers.text.encode(f"a {name} b")
    assert max(ids) < tiny.vocabulary.text.stop
    assert tiny.tokenizers.text.decode(ids) == f"a {name} b"


def test_a_prompt_longer_than_the_model_is_refused_with_numbers(tiny):
    with pytest.raises(
        RequestError, match=r"takes \d+ positions and what is made 16 more, but the model's length is 512"
    ):
        tiny.generate("dog " * 600, to="image")


def test_a_canvas_grows_only_as_far_as_the_model_reaches(tiny):
    prompt = "z" * 450
    result = tiny.generate(prompt, to="text", trace=True, thinking=False)
    assert result.finish_reason == "length"
    assert len(result.trace[-1].codes) + 450 < 512


def test_what_follows_the_end_is_not_shown_as_hidden(tiny):
    trace = tiny.generate("a dog", to="speech", steps=3, trace=True).trace
    for snapshot in trace:
        ended = snapshot.codes == ENDED
        if ended.any():
            assert ended[int(ended.nonzero()[0]) :].all()


def test_a_picture_of_one_pixel_is_refused(tiny):
    with pytest.raises(MediaError, match="1 x 1 pixels, expected at least 16"):
        tiny.generate("what?", image=testing.small_picture(1))


def test_an_unknown_wish_names_the_nearest(tiny):
    with pytest.raises(RequestError, match="did you mean 'guidance'"):
        tiny.generate("a dog", to="image", guidence=2.0)


@pytest.mark.parametrize(
    ("wish", "value"),
    [("seed", -1), ("seed", 2**63), ("steps", 0), ("steps", True), ("guidance", float("nan"))],
)
def test_wishes_outside_their_range_are_refused(tiny, wish, value):
    with pytest.raises(RequestError, match=wish):
        Request(prompt="a dog", to="image", **{wish: value})


def test_an_empty_prompt_is_refused(tiny):
    with pytest.raises(RequestError, match="the prompt is empty"):
        tiny.generate("  ", to="image")


@pytest.mark.parametrize(
    ("text", "thinking", "answer"),
    [
        ("<think>3 + 4 = 7.</think>7", "3 + 4 = 7.", "7"),
        ("7", None, "7"),
        ("<think>3 + 4", "3 + 4", ""),
        ("a <think> b", None, "a <think> b"),
    ],
)
def test_reasoning_is_told_from_the_answer(text, thinking, answer):
    assert _split_thinking(text) == (thinking, answer)


@pytest.mark.parametrize(
    ("text", "thinking", "prompt"),
    [
        ("2 + 2", None, "2 + 2 /think"),
        ("2 + 2", False, "2 + 2 /no_think"),
        ("2 + 2 /no_think", True, "2 + 2 /no_think"),
        ("2 + 2 /think", False, "2 + 2 /think"),
    ],
)
def test_the_switch_for_thinking_is_added_once(text, thinking, prompt):
    assert _prompt(EMBEDDED_TASKS["t2t"], text, thinking) == prompt


def test_the_switch_is_refused_where_nothing_is_reasoned(tiny):
    with pytest.raises(RequestError, match="t2i has no reasoning"):
        tiny.generate("a dog", to="image", thinking=False)


def test_only_text_answers_to_text_have_the_switch():
    assert _prompt(EMBEDDED_TASKS["t2i"], "a dog", True) == "a dog"
    assert _prompt(EMBEDDED_TASKS["i2t"], None, True) == "What is in the picture?"
