"""Which task a request means: a row of the table, found by what is given and what is wanted.

Enters: the table, the modalities given, the wanted ones. Leaves: one `Task`, or an error that lists the choices. Does
not know any task by name.
"""

from collections.abc import Iterable, Mapping, Set
from types import MappingProxyType

from dynin.config import suggest
from dynin.errors import RequestError
from dynin.sequence.task import Task
from dynin.types import Modality

TEXT, IMAGE, VIDEO, SPEECH = Modality.TEXT, Modality.IMAGE, Modality.VIDEO, Modality.SPEECH

DEFAULT_TARGETS: Mapping[frozenset[Modality], Modality] = MappingProxyType(
    {frozenset({TEXT, IMAGE}): TEXT, frozenset({TEXT, VIDEO}): TEXT}
)
"""What is made where nothing says so: a question about a picture or a video is answered in text."""

WANTED: Mapping[str, tuple[Modality, ...]] = MappingProxyType(
    {**{str(modality): (modality,) for modality in Modality}, "image+text": (IMAGE, TEXT)}
)
"""The values of `to`."""


def wanted(to: str) -> tuple[Modality, ...]:
    """The modalities that a value of `to` names; RequestError with the nearest valid one."""
    if to not in WANTED:
        raise RequestError(f"unknown target {to!r}{suggest(to, WANTED)}")
    return WANTED[to]


def choose(tasks: Mapping[str, Task], given: Set[Modality], to: str | None) -> Task:
    """The row of the table that a request means.

    Raises:
        RequestError: If no row fits, or several do; the message lists what could be asked for.
    """
    fitting = [task for task in tasks.values() if _accepts(task, given)]
    if to is not None:
        targets = wanted(to)
        matching = [task for task in fitting if task.targets == targets]
        if not matching:
            raise RequestError(_impossible(tasks, given, targets))
        return matching[0]
    default = DEFAULT_TARGETS.get(frozenset(given))
    matching = [task for task in fitting if default is None or task.targets == (default,)]
    if len(matching) == 1:
        return matching[0]
    if not given:
        raise RequestError("nothing was given; give a prompt, an image, an audio or a video")
    if not fitting:
        raise RequestError(f"no task takes {_listed(given)} together; {_rows(tasks.values())}")
    choices = ", ".join(f"{_to(task)} ({task.name})" for task in fitting)
    raise RequestError(f"from {_listed(given)} several things can be made; say which with to: {choices}")


def _accepts(task: Task, given: Set[Modality]) -> bool:
    """Whether a task takes exactly these modalities, or would after its default question is added."""
    conditions = set(task.conditions)
    return conditions == given or (task.question != "" and conditions == {*given, TEXT})


def _impossible(tasks: Mapping[str, Task], given: Set[Modality], targets: tuple[Modality, ...]) -> str:
    makers = [task for task in tasks.values() if task.targets == targets]
    received = f"no task makes {' and '.join(targets)} from {_listed(given)}" if given else "nothing was given"
    return f"{received}; {_rows(makers)}"


def _rows(tasks: Iterable[Task]) -> str:
    rows = [f"{' and '.join(task.conditions)} to {' and '.join(task.targets)} ({task.name})" for task in tasks]
    return f"possible: {', '.join(rows)}" if rows else "this model has no such task"


def _to(task: Task) -> str:
    return "+".join(task.targets)


def _listed(given: Set[Modality]) -> str:
    return " and ".join(modality for modality in Modality if modality in given)
