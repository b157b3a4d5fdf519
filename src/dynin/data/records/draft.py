"""From parts to a task: which row of the table they mean, and what its contents are.

Enters: a `Row` and a task table. Leaves: a `Draft`, or a finding that lists the choices. Does not know files or codes.

The order of parts means nothing; a task lays them out in its own. A question that a task asks by itself may be left
out. Where answers may show their reasoning, an answer that begins with <think> makes the prompt end with the switch for
it, as `dynin generate --think` does.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from dynin.config import suggest
from dynin.data.emoji_world.problem import NO_THINK, THINK
from dynin.data.records.fault import Finding
from dynin.data.records.schema import Part, Row
from dynin.sequence.task import Task
from dynin.types import Modality

OPENING, CLOSING = "<think>", "</think>"


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """A task and the parts it is made of, media not yet read."""

    task: Task
    condition: Mapping[Modality, Part]
    """Everything given, in the task's order."""
    target: Mapping[Modality, Part]

    def parts(self) -> Iterable[Part]:
        """All parts, given ones first."""
        return (*self.condition.values(), *self.target.values())


def draft(row: Row, tasks: Mapping[str, Task]) -> Draft | Finding:
    """The task that a row names or its parts mean, with its contents; a finding if there is none."""
    given = {part.modality: part for part in row.given}
    made = {part.modality: part for part in row.made}
    told = f"{_listed(given)} to {_listed(made)}"
    if row.task is not None:
        if row.task not in tasks:
            return Finding(field="task", message=f"is {row.task[:40]!r}, which is unknown{suggest(row.task, tasks)}")
        task = tasks[row.task]
        if not _accepts(task, given, made):
            return Finding(
                field="task",
                message=f"is {task.name} ({_shape(task)}), but the parts are {told}; correct the task or the parts",
            )
    else:
        fitting = [task for task in tasks.values() if _accepts(task, given, made)]
        if len(fitting) != 1:
            choices = ", ".join(f"{task.name} ({_shape(task)})" for task in fitting or _near(tasks, made))
            problem = "several tasks are" if fitting else "no task is"
            field = "task" if fitting else "messages"
            return Finding(field=field, message=f"{problem} {told}; choose among {choices}")
        (task,) = fitting
    return _filled(task, given, made)


def _filled(task: Task, given: Mapping[Modality, Part], made: Mapping[Modality, Part]) -> Draft | Finding:
    """The contents in the task's order, with its question and switch."""
    asked = Part(modality=Modality.TEXT, value=task.question, field="messages[0].content")
    condition = {modality: given.get(modality, asked) for modality in task.conditions}
    target = {modality: made[modality] for modality in task.targets}
    answer = target.get(Modality.TEXT)
    if answer is None:
        return Draft(task=task, condition=condition, target=target)
    is_thinking = answer.value.lstrip().startswith(OPENING)
    if is_thinking and CLOSING not in answer.value:
        return Finding(field=answer.field, message=f"opens {OPENING} and never closes it; end it with {CLOSING}")
    if Modality.TEXT in given and task.shows_reasoning is not None:
        prompt = given[Modality.TEXT]
        if is_thinking and prompt.value.endswith(NO_THINK) or not is_thinking and prompt.value.endswith(THINK):
            return Finding(
                field=prompt.field,
                message=f"ends with {prompt.value.rpartition(' ')[2]}, but the answer "
                f"{'has' if is_thinking else 'lacks'} {OPENING}; correct one of them",
            )
        text = _with_switch(prompt.value, is_thinking, is_default=bool(task.shows_reasoning))
        condition[Modality.TEXT] = replace(prompt, value=text)
    return Draft(task=task, condition=condition, target=target)


def _with_switch(prompt: str, is_thinking: bool, *, is_default: bool) -> str:
    """A prompt that says whether its answer shows the reasoning; models that hide it by default are not told to."""
    if prompt.endswith((THINK, NO_THINK)):
        return prompt
    if is_thinking:
        return prompt + THINK
    return prompt + NO_THINK if is_default else prompt


def _accepts(task: Task, given: Mapping[Modality, Part], made: Mapping[Modality, Part]) -> bool:
    """Whether a task takes and makes exactly these, or would after its question is added."""
    conditions = set(task.conditions)
    is_given = conditions == set(given) or (task.question != "" and conditions == {*given, Modality.TEXT})
    return is_given and set(task.targets) == set(made)


def _near(tasks: Mapping[str, Task], made: Mapping[Modality, Part]) -> list[Task]:
    """The tasks that make the same things, else all."""
    return [task for task in tasks.values() if set(task.targets) == set(made)] or list(tasks.values())


def _shape(task: Task) -> str:
    return f"{' and '.join(task.conditions)} to {' and '.join(task.targets)}"


def _listed(parts: Mapping[Modality, Part]) -> str:
    return " and ".join(modality for modality in Modality if modality in parts)
