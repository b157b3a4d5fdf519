import io

import pytest
import torch
from rich.console import Console

from dynin.cli import show
from dynin.cli.show import Watcher
from dynin.pipeline.result import Snapshot
from dynin.types import Modality


def step(index: int, text: str | None = None) -> Snapshot:
    nothing = torch.zeros(4, dtype=torch.bool)
    return Snapshot(
        modality=Modality.IMAGE if text is None else Modality.TEXT,
        num_forwards=index,
        num_planned=4,
        codes=torch.zeros(4, dtype=torch.long),
        is_new=nothing,
        is_remasked=nothing,
        text=text,
    )


def console(*, is_terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=is_terminal, width=80, color_system=None)


def shown(place: Console) -> str:
    assert isinstance(place.file, io.StringIO)
    return place.file.getvalue()


def test_on_a_terminal_text_appears_word_by_word():
    place = console(is_terminal=True)
    with Watcher("making text", place) as watcher:
        for index, text in enumerate(("a \u00b7\u00b7", "a \u00b7 above", "a dog above"), start=1):
            before = shown(place)
            watcher(step(index, text))
            assert text in shown(place).removeprefix(before)
    assert "steps" not in shown(place)


def test_on_a_terminal_text_vanishes_at_the_end():
    place = console(is_terminal=True)
    with Watcher("making text", place) as watcher:
        watcher(step(1, "a dog"))
        before = shown(place)
    erase_line = "\x1b[2K"
    assert erase_line in shown(place).removeprefix(before)
    assert "a dog" not in shown(place).rpartition(erase_line)[2]


def test_on_a_terminal_a_bar_counts_the_steps_of_a_picture():
    place = console(is_terminal=True)
    with Watcher("making image", place) as watcher:
        watcher(step(1))
        watcher(step(3))
    assert "making image" in shown(place)
    assert "3/4" in shown(place)


@pytest.mark.parametrize("text", [None, "a dog"])
def test_elsewhere_long_work_says_plain_lines(monkeypatch, text):
    monkeypatch.setattr(show, "PLAIN_EVERY_S", 0.0)
    place = console(is_terminal=False)
    with Watcher("making image", place) as watcher:
        watcher(step(1, text))
        watcher(step(4, text))
    lines = shown(place).splitlines()
    assert [line.partition(",")[0] for line in lines] == ["making image: 1 of 4 steps", "making image: 4 of 4 steps"]
    assert lines[1].endswith("about 0 s left")
    assert "\x1b" not in shown(place)


def test_elsewhere_short_work_says_nothing():
    place = console(is_terminal=False)
    with Watcher("making text", place) as watcher:
        watcher(step(1, "a dog"))
    assert shown(place) == ""
