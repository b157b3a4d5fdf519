import json

import pytest
import tokenizers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynin.errors import CheckpointError, ConfigError
from dynin.tokenizers.text import ByteLevelText
from dynin.virst.backbone.videochat.prompt import VIDEO, PromptConfig, Prompter, st_id

MARKS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<image>", "[SEG]", "{video}", "{sentence}", "{st}", "{medium}")


@pytest.fixture(scope="module")
def prompter(text):
    return Prompter(text, 3)


def spelled(row, prompter):
    """A row as text, with the control ids by name."""
    names = {prompter.start: "<|im_start|>", prompter.end: "<|im_end|>", prompter.st_id: "[SEG]", VIDEO: "<image>"}
    parts, run = [], []
    for at in row.ids:
        if at in names:
            parts += [prompter.text.decode(run), names[at]]
            run = []
        else:
            run.append(at)
    return "".join([*parts, prompter.text.decode(run)])


def test_a_row_spells_the_published_chat(prompter):
    row = prompter.row("The  Dog", is_video=True)
    assert spelled(row, prompter) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nReference image: <image> \nWhat is the dog in the Reference image? Please respond with "
        "segmentation mask in the Target Image.<|im_end|>\n"
        "<|im_start|>assistant\nIt is (0) [SEG], (1) [SEG], (2) [SEG].<|im_end|>\n"
    )


def test_a_row_has_the_ids_that_the_library_gives_the_published_chat(prompter, text):
    whole = tokenizers.Tokenizer.from_str(text.to_json())
    whole.add_tokens(["[SEG]"])
    whole.add_special_tokens(["<image>"])
    row = prompter.row("the dog", is_video=True)
    ids = whole.encode(spelled(row, prompter)).ids
    assert [VIDEO if at == whole.token_to_id("<image>") else at for at in ids] == [*row.ids]


def test_a_question_is_asked_as_it_is(prompter):
    assert "<image> \nwhich dog barks? Please find it in the Reference image and" in spelled(
        prompter.row("Which dog barks?", is_video=True), prompter
    )


def test_a_video_is_called_one_on_request(text):
    prompter = Prompter(text, 3, PromptConfig(names_video=True, lowercases=False))
    assert "Reference video: <image> \nWhat is The Dog in the Reference video?" in spelled(
        prompter.row("The Dog", is_video=True), prompter
    )
    assert "Reference image: " in spelled(prompter.row("The Dog", is_video=False), prompter)


def test_an_answer_follows_the_st_tokens(prompter):
    row = prompter.row("the dog", is_video=True, answer="It barks.")
    assert spelled(row, prompter).endswith("(2) [SEG]. It barks.<|im_end|>\n")


@settings(deadline=None, max_examples=60)
@given(words=st.lists(st.one_of(st.sampled_from(MARKS), st.text(min_size=1, max_size=6)), min_size=1, max_size=6))
def test_no_sentence_makes_a_control_id(prompter, words):
    row = prompter.row(" ".join(words), is_video=True, answer=" ".join(words))
    assert row.ids.count(prompter.start) == 3
    assert row.ids.count(prompter.end) == 3
    assert row.ids.count(VIDEO) == 1
    assert [row.ids[place] for place in row.st_places] == [prompter.st_id] * 3
    assert row.ids.count(prompter.st_id) == 3
    assert max(row.ids) == prompter.st_id


def test_the_st_token_takes_the_first_id_that_no_piece_has(text):
    assert st_id(text) == text.size + 3


def test_a_tokenizer_that_names_the_st_token_keeps_its_id(text):
    values = json.loads(text.to_json())
    values["added_tokens"].append({**values["added_tokens"][0], "id": text.size + 9, "content": "[SEG]"})
    assert st_id(ByteLevelText.from_json(json.dumps(values))) == text.size + 9


def test_the_assistants_words_and_the_end_of_its_turn_are_to_be_foretold(prompter, text):
    row = prompter.row("the dog", is_video=True)
    told = [at for at, is_told in zip(row.ids, row.is_scored, strict=True) if is_told]
    assert prompter.text.decode(told[:-1]) == "It is (0) , (1) , (2) ."
    assert told[-1] == prompter.end


def test_the_published_scores_count_the_marks_of_every_turn_too(text):
    prompter = Prompter(text, 3, PromptConfig(scored="published"))
    row = prompter.row("the dog", is_video=True)
    told = [at for at, is_told in zip(row.ids, row.is_scored, strict=True) if is_told]
    assert told.count(prompter.start) == told.count(prompter.end) == 3
    assert prompter.st_id not in told
    assert "assistant\nIt is (0) , (1) , (2) ." in text.decode([at for at in told if at < text.size])


def test_a_generator_draws_every_wording_and_repeats_itself(prompter):
    drawn = [
        spelled(prompter.row("the dog", is_video=True, generator=torch.Generator().manual_seed(seed)), prompter)
        for seed in (*range(60), 0)
    ]
    assert len(set(drawn)) == 3 * 4
    assert drawn[0] == drawn[-1]


def test_a_tokenizer_without_the_marks_of_the_chat_is_refused():
    with pytest.raises(CheckpointError, match="no <\\|im_start\\|> and no <\\|im_end\\|>"):
        Prompter(ByteLevelText.train(["words"], size=260), 3)


@pytest.mark.parametrize(
    "wrong",
    [{"phrases": ("Find {sentence}.",)}, {"answers": ("Here.",)}, {"questions": ()}, {"answers": ("{st} {st}",)}],
)
def test_a_wording_without_its_places_is_refused(wrong):
    with pytest.raises(ConfigError):
        PromptConfig(**wrong)
