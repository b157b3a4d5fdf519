"""From parts to tasks: each row of each table follows from its parts alone."""

import pytest

from dynin.data.records.draft import draft
from dynin.data.records.fault import Finding
from dynin.data.records.schema import Part, Row
from dynin.pipeline.dynin import _prompt
from dynin.sequence.task import TABLES, Task
from dynin.types import Modality

TEXT, IMAGE, SPEECH = Modality.TEXT, Modality.IMAGE, Modality.SPEECH


def part(modality: Modality, value: str = "x") -> Part:
    return Part(modality=modality, value=value, field=f"the {modality}")


def row(given: dict[Modality, str], made: dict[Modality, str], task: str | None = None) -> Row:
    sides = (tuple(part(*item) for item in side.items()) for side in (given, made))
    return Row(**dict(zip(("given", "made"), sides, strict=True)), task=task)


ROWS = [(table, task) for table, tasks in TABLES.items() for task in tasks.values()]


@pytest.mark.parametrize(("table", "task"), ROWS, ids=lambda value: getattr(value, "name", value))
def test_every_task_follows_from_its_parts_in_any_order(table, task: Task):
    given = {modality: "x" for modality in reversed(task.conditions)}
    made = {modality: "y" for modality in reversed(task.targets)}
    for name in (None, task.name):
        found = draft(row(given, made, name), TABLES[table])
        assert found.task is TABLES[table][task.name]
        assert (tuple(found.condition), tuple(found.target)) == (task.conditions, task.targets)


def test_a_question_that_a_task_asks_by_itself_may_be_left_out():
    tasks = TABLES["embedded"]
    found = draft(row({IMAGE: "a.png"}, {TEXT: "a dog"}), tasks)
    assert (found.task.name, found.condition[TEXT].value) == ("i2t", "What is in the picture?")


@pytest.mark.parametrize("table", ["embedded", "published", "llada"])
@pytest.mark.parametrize("answer", ["7", "<think>3 + 4 = 7</think>7"])
def test_a_prompt_ends_with_the_switch_that_a_request_would_give_it(table, answer):
    task = TABLES[table]["t2t"]
    is_thinking = answer.startswith("<think>")
    found = draft(row({TEXT: "3 + 4"}, {TEXT: answer}), TABLES[table])
    asked = None if not is_thinking and not task.shows_reasoning else is_thinking
    assert found.condition[TEXT].value == _prompt(task, "3 + 4", asked)


@pytest.mark.parametrize(
    ("given", "made", "task", "field", "words"),
    [
        ({TEXT: "x"}, {IMAGE: "x"}, "t2s", "task", "is t2s (text to speech), but the parts are text to image"),
        ({TEXT: "x"}, {IMAGE: "x"}, "t2j", "task", "did you mean"),
        ({SPEECH: "x", TEXT: "x"}, {IMAGE: "x"}, None, "messages", "no task is text and speech to image; choose among"),
        ({TEXT: "x"}, {TEXT: "<think>hm"}, None, "the text", "never closes"),
        ({TEXT: "x /no_think"}, {TEXT: "<think>hm</think>"}, None, "the text", "the answer has <think>"),
        ({TEXT: "x /think"}, {TEXT: "7"}, None, "the text", "the answer lacks <think>"),
    ],
)
def test_parts_that_mean_no_task_are_refused_with_the_choices(given, made, task, field, words):
    found = draft(row(given, made, task), TABLES["embedded"])
    assert isinstance(found, Finding)
    assert found.field == field
    assert words in found.message
