import itertools

import pytest

from dynin.errors import RequestError
from dynin.pipeline.route import choose
from dynin.sequence.task import EMBEDDED_TASKS
from dynin.types import Modality

TEXT, IMAGE, VIDEO, SPEECH = Modality


@pytest.mark.parametrize(("given", "made"), list(itertools.product(Modality, Modality)))
def test_all_sixteen_pairs_of_modalities_are_rows_of_the_table(given, made):
    task = EMBEDDED_TASKS[f"{given.letter}2{made.letter}"]
    assert given in task.conditions
    assert task.targets == (made,)
    assert set(task.conditions) <= {given, TEXT}


@pytest.mark.parametrize("task", list(EMBEDDED_TASKS.values()), ids=list(EMBEDDED_TASKS))
def test_every_row_is_found_by_what_it_takes_and_makes(task):
    assert choose(EMBEDDED_TASKS, set(task.conditions), "+".join(task.targets)) is task


@pytest.mark.parametrize(("given", "name"), [({IMAGE, TEXT}, "i2t"), ({VIDEO, TEXT}, "v2t")])
def test_a_question_about_a_picture_or_a_video_is_answered_in_text(given, name):
    assert choose(EMBEDDED_TASKS, given, None).name == name


def test_a_picture_alone_may_be_described_since_a_question_is_at_hand():
    task = choose(EMBEDDED_TASKS, {IMAGE}, "text")
    assert task.question == "What is in the picture?"


def test_words_alone_are_ambiguous_and_the_choices_are_listed():
    with pytest.raises(RequestError, match=r"text \(t2t\), image \(t2i\), video \(t2v\), speech \(t2s\)"):
        choose(EMBEDDED_TASKS, {TEXT}, None)


def test_what_no_row_takes_is_refused_with_the_rows_that_make_it():
    with pytest.raises(RequestError, match=r"speech from text and image; possible: .*image to speech \(i2s\)"):
        choose(EMBEDDED_TASKS, {TEXT, IMAGE}, "speech")


def test_nothing_given_is_refused():
    with pytest.raises(RequestError, match="nothing was given"):
        choose(EMBEDDED_TASKS, set(), None)


def test_an_unknown_target_names_the_nearest():
    with pytest.raises(RequestError, match="did you mean 'video'"):
        choose(EMBEDDED_TASKS, {TEXT}, "vidoe")
