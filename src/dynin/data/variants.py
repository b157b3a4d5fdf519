"""What training can draw by name: every task of Emoji World, and parts of a task that a stage asks for alone.

Enters: nothing. Leaves: one table. Does not know worlds, shards or rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from dynin.sequence.task import EMBEDDED_TASKS

LARGE_CELLS = 8
"""Cells along a side of a large picture, twice those of the others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """What is drawn under one name."""

    task: str
    world: Mapping[str, Any] = field(default_factory=dict)
    """Settings of `EmojiWorld` that differ."""
    is_long: bool = False
    """Whether sounds come from the shard of long ones."""


def _part(task: str, **world: object) -> Variant:
    return Variant(task=task, world=world)


DRAWN: Mapping[str, Variant] = MappingProxyType(
    {
        **{task: Variant(task=task) for task in EMBEDDED_TASKS},
        "t2t_direct": _part("t2t", think_share=0.0),
        "t2t_thinking": _part("t2t", think_share=1.0),
        "i2t_captions": _part("i2t", describe_share=1.0),
        "i2t_questions": _part("i2t", describe_share=0.0),
        "v2t_captions": _part("v2t", describe_share=1.0),
        "v2t_questions": _part("v2t", describe_share=0.0),
        "t2i_large": _part("t2i", num_cells=LARGE_CELLS),
        "i2t_large": _part("i2t", num_cells=LARGE_CELLS),
        "s2t_long": Variant(task="s2t", is_long=True),
        "t2s_long": Variant(task="t2s", is_long=True),
    }
)
