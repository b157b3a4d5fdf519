"""What the page about Emoji World says is held out is what the code holds out."""

import re
from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import pytest

from dynin.data.emoji_world.artwork import NAMES
from dynin.data.emoji_world.clip import MOTIONS
from dynin.data.emoji_world.scene import BACKGROUNDS
from dynin.data.emoji_world.splits import is_background_held_out, is_motion_held_out, is_triple_held_out

PAGE = (Path(__file__).parents[4] / "docs" / "emoji-world.md").read_text(encoding="utf-8")


def held_out(kind: str) -> list[tuple[str, ...]]:
    """Everything of a kind that is held out."""
    match kind:
        case "triple":
            pairs = [(one, held, other) for one, other in permutations(NAMES, 2) for held in ("left of", "above")]
            return [triple for triple in pairs if is_triple_held_out(*triple)]
        case "background":
            return [(name, colour) for name in NAMES for colour in BACKGROUNDS if is_background_held_out(name, colour)]
        case _:
            return [(name, motion) for name in NAMES for motion in MOTIONS if is_motion_held_out(name, motion)]


@pytest.mark.parametrize(("kind", "total"), [("triple", 2 * 100 * 99), ("background", 100 * 8), ("motion", 100 * 7)])
def test_the_page_counts_what_is_held_out(kind: str, total: int) -> None:
    row = re.search(rf"^\| `{kind}` .* \| ([\d,]+) of ([\d,]+) \|$", PAGE, re.MULTILINE)
    assert row is not None
    assert [int(number.replace(",", "")) for number in row.groups()] == [len(held_out(kind)), total]


@pytest.mark.parametrize(
    ("keys", "is_held_out"), [(tuple(BACKGROUNDS), is_background_held_out), (MOTIONS, is_motion_held_out)]
)
def test_the_page_lists_every_pair(keys: tuple[str, ...], is_held_out: Callable[[str, str], bool]) -> None:
    for key in keys:
        listed = ", ".join(name for name in NAMES if is_held_out(name, key))
        assert f"| {key} | {listed} |" in PAGE


def test_the_page_names_every_object() -> None:
    assert ", ".join(NAMES) in " ".join(PAGE.split())
