"""The three ablation tables of VIRST as values: settings, what is expected of them, and the rules of reading.

Enters: nothing. Leaves: `TABLES`. Does not know models, files or numbers. `runs.py` fills them, `tables.py` reads them;
docs/virst.md says the same in words, and was written before the first run.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Floor = Literal["all_empty", "all_foreground", "another_object", "truth"]
Change = Literal["none", "sentences", "frames"]
Claim = Literal["over", "not_worse", "saturated"]
Subset = tuple[str, ...]
"""Names of families, or "first_visible" or "first_hidden": whether the target is visible in the first frame."""

MARGIN = 0.01
"""A difference that does not count where "not worse" and "saturated" are claimed: one point of J&F."""
CLEAR_OF_FLOOR = 0.10
"""G1: how far the complete model must lie above another object's true track."""
NEAR_FLOOR = 0.03
"""G2: how near to it the complete model must come when sentences are shuffled."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One row of a table: which weights, asked how, or which floor."""

    name: str
    label: str
    model: str = "both"
    """Name of the trained weights; of a floor, nothing is loaded."""
    anchors: str = "published"
    """Which frames are prompted: the name of a policy of `virst.anchors`."""
    num_anchors: int | None = None
    """How many are prompted; None for as many as the policy takes by itself."""
    num_attended: int | None = 3
    """How many of them a frame attends to at most; None for all."""
    floor: Floor | None = None
    change: Change = "none"
    """Whether sentences or frames are shuffled before the model is asked."""

    def options(self) -> dict[str, object]:
        """What the results of this setting follow from, beside the weights and the data."""
        names = ("model", "anchors", "num_anchors", "num_attended", "floor", "change")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, kw_only=True, slots=True)
class Expectation:
    """One direction that was written down before any run."""

    name: str
    ahead: str
    """Setting that is expected to be ahead; with "saturated", the one that has more of what no longer helps."""
    behind: str
    claim: Claim = "over"
    inside: Subset = ()
    """Where the difference is taken; everywhere if empty."""
    more_than: Subset = ()
    """Where the same difference is expected to be smaller; the claim is then about the difference of both."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """One table: its rows and what is expected of them."""

    name: str
    title: str
    settings: tuple[Setting, ...]
    expectations: tuple[Expectation, ...]
    unclaimed: tuple[tuple[str, str], ...] = ()
    """Differences that are shown without an expectation."""
    has_seconds: bool = False
    """Whether seconds for a frame are a column."""


COMPLETE = Setting(name="both", label="both fusions")
FLOORS: tuple[Setting, ...] = (
    Setting(name="all-empty", label="all empty", model="", floor="all_empty"),
    Setting(name="all-foreground", label="all foreground", model="", floor="all_foreground"),
    Setting(name="another-object", label="another object's true track", model="", floor="another_object"),
    Setting(name="shuffled-sentences", label="both fusions, sentences shuffled", change="sentences"),
    Setting(name="shuffled-frames", label="both fusions, frames shuffled in time", change="frames"),
    Setting(name="oracle", label="both fusions, anchors where the target is largest", anchors="oracle", num_anchors=3),
    Setting(name="truth", label="the truth", model="", floor="truth"),
)
"""Beside every table: what knows nothing of the sentence, what cannot be answered, and ceilings."""

OVER_TIME = ("motion", "relation", "reasoning")
FUSION = Table(
    name="tab_ablation_fusion",
    title="What the two fusions are worth",
    settings=(
        Setting(name="none", label="no fusion", model="none"),
        Setting(name="initial", label="initial only", model="initial"),
        Setting(name="second", label="second only", model="second"),
        COMPLETE,
        Setting(name="mlp", label="initial, and an MLP of the second's size", model="mlp"),
    ),
    expectations=(
        Expectation(name="F1", ahead="both", behind="initial"),
        Expectation(name="F2", ahead="both", behind="mlp"),
        Expectation(name="F3", ahead="both", behind="none"),
        Expectation(name="F4", ahead="both", behind="second"),
        Expectation(name="F5", ahead="both", behind="none", inside=OVER_TIME, more_than=("static",)),
    ),
)
SELECTION = Table(
    name="tab_ablation_selection",
    title="Which frames are prompted",
    settings=(
        Setting(name="first", label="first frame", anchors="first", num_anchors=1),
        Setting(name="text", label="three most like the sentence", anchors="text", num_anchors=3),
        Setting(name="random-3", label="three at random", anchors="random", num_anchors=3),
        Setting(name="uniform-3", label="three evenly spaced", anchors="uniform", num_anchors=3),
        Setting(name="both", label="published: nearest of evenly spaced"),
        Setting(name="dynamic", label="dynamic, causal", anchors="dynamic"),
        Setting(name="dynamic-two-sided", label="dynamic, two-sided", anchors="two-sided"),
        Setting(
            name="first-trained", label="first frame, trained for it", model="first", anchors="first", num_anchors=1
        ),
    ),
    expectations=(
        Expectation(name="S1", ahead="dynamic", behind="first"),
        Expectation(name="S2", ahead="dynamic", behind="text"),
        Expectation(name="S3", ahead="text", behind="first"),
        Expectation(name="S4", ahead="dynamic", behind="first-trained"),
        Expectation(name="S5", ahead="dynamic", behind="uniform-3", claim="not_worse"),
        Expectation(name="S6", ahead="dynamic", behind="first", inside=("first_hidden",), more_than=("first_visible",)),
    ),
    unclaimed=(
        ("both", "first"),
        ("both", "text"),
        ("both", "first-trained"),
        ("both", "uniform-3"),
        ("dynamic", "both"),
        ("dynamic-two-sided", "dynamic"),
        ("dynamic", "random-3"),
    ),
    has_seconds=True,
)


def _numbered(prompted: int, attended: int) -> Setting:
    """Evenly spaced anchors, as many prompted and attended as said."""
    return Setting(
        name=f"prompted-{prompted}-attended-{attended}",
        label=f"{prompted} prompted, {attended} attended",
        anchors="uniform",
        num_anchors=prompted,
        num_attended=attended,
    )


KEYFRAME_NUM = Table(
    name="tab_ablation_keyframe_num",
    title="How many anchors are prompted and attended",
    settings=(
        *(_numbered(count, count) for count in (1, 2, 3, 4, 5, 6, 8)),
        *(_numbered(8, count) for count in (1, 2, 3, 5)),
    ),
    expectations=(
        Expectation(name="K1", ahead="prompted-8-attended-8", behind="prompted-1-attended-1"),
        Expectation(name="K2", ahead="prompted-8-attended-8", behind="prompted-3-attended-3", claim="saturated"),
        Expectation(name="K3", ahead="prompted-8-attended-8", behind="prompted-8-attended-3", claim="saturated"),
    ),
    has_seconds=True,
)
TABLES: Mapping[str, Table] = {table.name: table for table in (FUSION, SELECTION, KEYFRAME_NUM)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Which tables are made."""

    tables: tuple[str, ...] = tuple(TABLES)

    def settings(self, table: str) -> tuple[Setting, ...]:
        """Every run that a table needs, floors first; settings of one name are one run, in whatever table."""
        return (COMPLETE, *FLOORS, *(setting for setting in TABLES[table].settings if setting != COMPLETE))
