"""Sums and counting, told in varied words, with worked reasoning.

Enters: names and a numpy generator. Leaves: `Problem` values and the two forms of an answer. Does not know: splits,
tasks, speech.

    What is 3 + 4 - 2?                  <think>3 + 4 = 7. 7 - 2 = 5.</think>5
    What is 15 + 7?                     <think>5 + 7 = 12. 1 + 0 + 1 = 2. 15 + 7 = 22.</think>22
    how many dogs: dog star             <think>dog. 1 dog dog yes 1. 2 star dog no 1.</think>1

Larger numbers are worked digit by digit, ones first, then tens with what is carried or borrowed; so every line follows
from a few digits in sight. Counting names what is asked for, then sets it beside one thing after another: two equal
names side by side are told from two unlike ones far sooner than names that lie apart.

Operands lie in 0..20; every result on the way lies in 0..40.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dynin.data.emoji_world import wording
from dynin.data.emoji_world.artwork import plural
from dynin.data.emoji_world.scene import draw_names

Form = Literal["sum", "story", "counting"]
Operator = Literal["+", "-", "x"]

GREATEST_OPERAND = 20
GREATEST_RESULT = 40
GREATEST_FACTOR = 10
"""Factors lie in 2..10."""

THINK = " /think"
NO_THINK = " /no_think"


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """A question with its answer."""

    form: Form
    question: str
    reasoning: str
    """The worked steps, without the marks around them."""
    answer: int
    key: str
    """What is computed or counted, without the telling; problems with equal keys are the same problem."""


def prompt(problem: Problem, is_thinking: bool) -> str:
    """The question with the switch that asks for the steps, or for the answer alone."""
    return problem.question + (THINK if is_thinking else NO_THINK)


def solution(problem: Problem, is_thinking: bool) -> str:
    """The expected text: worked steps between marks and the answer, or the answer alone."""
    return f"<think>{problem.reasoning}</think>{problem.answer}" if is_thinking else str(problem.answer)


def final_answer(text: str) -> int | None:
    """The number that a solution gives after its steps, None where it gives none."""
    match = re.fullmatch(r"\s*(\d{1,4})\s*\.?\s*", text.rpartition("</think>")[2])
    return None if match is None else int(match.group(1))


@dataclass(frozen=True, kw_only=True, slots=True)
class Sum:
    """One or two operations, carried out from left to right."""

    first: int
    steps: tuple[tuple[Operator, int], ...]

    @property
    def results(self) -> tuple[int, ...]:
        """The value after each operation."""
        values = [self.first]
        for operator, operand in self.steps:
            values.append(_apply(values[-1], operator, operand))
        return tuple(values[1:])

    @property
    def key(self) -> str:
        """The sum in signs; the operands of a leading + or x are sorted, so that 4 + 3 is 3 + 4."""
        (operator, second), *rest = self.steps
        first = self.first
        if operator in ("+", "x"):
            first, second = sorted((first, second))
        return "".join([f"{first}{operator}{second}", *(f"{sign}{operand}" for sign, operand in rest)])


def _apply(value: int, operator: Operator, operand: int) -> int:
    match operator:
        case "+":
            return value + operand
        case "-":
            return value - operand
        case _:
            return value * operand


def sample_sum(generator: np.random.Generator, num_steps: int) -> Sum:
    """Draw a sum; a multiplication comes first if at all."""
    while True:
        if generator.random() < 0.2:
            first, second = (int(number) for number in generator.integers(2, GREATEST_FACTOR + 1, size=2))
            operator: Operator = "x"
        else:
            first, second = (int(number) for number in generator.integers(0, GREATEST_OPERAND + 1, size=2))
            operator = "+" if generator.random() < 0.5 else "-"
        steps: list[tuple[Operator, int]] = [(operator, second)]
        if num_steps == 2:
            later: Operator = "+" if generator.random() < 0.5 else "-"
            steps.append((later, int(generator.integers(0, GREATEST_OPERAND + 1))))
        drawn = Sum(first=first, steps=tuple(steps))
        if all(0 <= result <= GREATEST_RESULT for result in drawn.results):
            return drawn


def worked(drawn: Sum) -> str:
    """The steps of a sum: "3 + 4 = 7. 7 - 2 = 5."."""
    lines = []
    value = drawn.first
    for (operator, operand), result in zip(drawn.steps, drawn.results, strict=True):
        lines += [*_by_digits(value, operator, operand), f"{value} {operator} {operand} = {result}."]
        value = result
    return " ".join(lines)


def _by_digits(value: int, operator: Operator, operand: int) -> list[str]:
    """Ones, then tens, of a sum or difference with a number above 9; products and single digits need none."""
    if operator == "x" or max(value, operand) < 10:
        return []
    tens, ones = divmod(value, 10)
    more_tens, more_ones = divmod(operand, 10)
    is_borrowed = operator == "-" and ones < more_ones
    ones += 10 * is_borrowed
    result = _apply(ones, operator, more_ones)
    carried = result // 10 if operator == "+" else int(is_borrowed)
    carry = f" {operator} {carried}" if carried else ""
    whole = _apply(_apply(tens, operator, more_tens), operator, carried)
    return [f"{ones} {operator} {more_ones} = {result}.", f"{tens} {operator} {more_tens}{carry} = {whole}."]


SPOKEN_OPERATORS: dict[str, str] = {"+": "plus", "-": "minus", "x": "times"}


def in_words(drawn: Sum) -> str:
    """Such as "three plus four minus two"."""
    spoken = [wording.number_words(drawn.first)]
    for operator, operand in drawn.steps:
        spoken += [SPOKEN_OPERATORS[operator], wording.number_words(operand)]
    return " ".join(spoken)


def spoken_question(drawn: Sum) -> str:
    """Such as "what is two plus three"."""
    return f"what is {in_words(drawn)}"


def spoken_answer(drawn: Sum) -> str:
    """Such as "two plus three is five"."""
    return f"{in_words(drawn)} is {wording.number_words(drawn.results[-1])}"


_PLAIN = ("what is {}?", "What is {}?", "{} = ?", "Calculate {}.", "{}", "How much is {}?", "compute {}")
_PEOPLE = ("Tom", "Ann", "Ben", "Mia", "Sam", "Eva", "Leo", "Zoe")
_HAS = ("{who} has {n} {things}.", "{who} owns {n} {things}.", "There are {n} {things} in {who}'s box.")
_BOXES = ("{who} has {n} boxes with {k} {things} each.", "There are {n} bags with {k} {things} in each.")
_GAINS = ("{k} more come.", "Then {k} more are added.", "{who} gets {k} more.", "{who} finds {k} more.")
_LOSSES = ("{k} go away.", "Then {k} are taken away.", "{who} loses {k}.", "{who} gives away {k}.")
_ENDINGS = ("How many {things} are there now?", "How many {things} are left in the end?", "How many {things} now?")


def sum_problem(drawn: Sum, form: Form, names: Sequence[str], generator: np.random.Generator) -> Problem:
    """Tell a sum plainly or as a story about things."""
    question = _story(drawn, names, generator) if form == "story" else _plain(drawn, generator)
    return Problem(form=form, question=question, reasoning=worked(drawn), answer=drawn.results[-1], key=drawn.key)


def _plain(drawn: Sum, generator: np.random.Generator) -> str:
    signs = " ".join([str(drawn.first), *(f"{operator} {operand}" for operator, operand in drawn.steps)])
    text = in_words(drawn) if generator.random() < 0.2 else signs
    return wording.pick(_PLAIN, generator).format(text)


def _story(drawn: Sum, names: Sequence[str], generator: np.random.Generator) -> str:
    who = wording.pick(_PEOPLE, generator)
    name = names[int(generator.integers(len(names)))]
    things = plural(name)
    steps = list(drawn.steps)
    if steps[0][0] == "x":
        opening = wording.pick(_BOXES, generator).format(who=who, n=drawn.first, k=steps.pop(0)[1], things=things)
    elif drawn.first == 1:
        opening = f"{who} has 1 {name}."
    else:
        opening = wording.pick(_HAS, generator).format(who=who, n=drawn.first, things=things)
    sentences = [opening]
    for operator, operand in steps:
        forms = _GAINS if operator == "+" else _LOSSES
        sentences.append(wording.pick(forms, generator).format(who=who, k=operand))
    sentences.append(wording.pick(_ENDINGS, generator).format(things=things))
    return " ".join(sentences)


_COUNTING = (
    "how many {asked}: {row}", "How many {asked}? {row}", "Count the {asked}: {row}", "{row}. how many {asked}?",
)  # fmt: skip
MOST_COUNTED = 8
"""Longest row of things to count."""


def sample_counting(names: Sequence[str], generator: np.random.Generator) -> Problem:
    """Draw a row of two or three sorts of things, of which one is to be counted."""
    sorts = draw_names(names, int(generator.integers(2, 4)), generator)
    length = int(generator.integers(2, MOST_COUNTED + 1))
    row = [sorts[int(index)] for index in generator.integers(len(sorts), size=length)]
    asked = sorts[0]
    question = wording.pick(_COUNTING, generator).format(asked=plural(asked), row=" ".join(row))
    steps, count = [f"{asked}."], 0
    for place, name in enumerate(row, start=1):
        count += name == asked
        steps.append(f"{place} {name} {asked} {'yes' if name == asked else 'no'} {count}.")
    key = f"{asked}: {', '.join(row)}"  # commas keep two-word names apart
    return Problem(form="counting", question=question, reasoning=" ".join(steps), answer=count, key=key)


COUNTING_SHARE = 0.25
"""How many of all problems count; of the others 7 in 15 are told as stories."""


def sample_problem(
    names: Sequence[str], generator: np.random.Generator, counting_share: float = COUNTING_SHARE
) -> Problem:
    """Draw a problem: plain sums, stories and counting."""
    draw = generator.random()
    if draw < counting_share:
        return sample_counting(names, generator)
    drawn = sample_sum(generator, num_steps=1 if generator.random() < 0.5 else 2)
    is_story = draw < counting_share + (1 - counting_share) * 7 / 15
    return sum_problem(drawn, "story" if is_story else "sum", names, generator)
