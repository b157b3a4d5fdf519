"""Where a row came from, and what is wrong with it.

Enters: names, numbers and words. Leaves: values that print as one line. Does not know what a row holds.
"""

from dataclasses import dataclass

WHOLE = "(row)"
"""The field of a fault that concerns the row as a whole."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a row stands."""

    source: str
    """The file or table."""
    unit: str
    """What is counted there: "line", "sample" or "row"."""
    key: int | str
    """A line from 1, the name of a sample in a tar, or a row of a table from 0."""

    def __str__(self) -> str:
        """As in "rows.jsonl, line 17"."""
        return f"{self.source}, {self.unit} {self.key}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What is wrong with a row, wherever it stands."""

    field: str
    """As in "messages[0].content[1].path"."""
    message: str
    """What was received, what was expected, what to do."""

    def at(self, place: Place) -> "Fault":
        """The finding as a fault of the row at a place."""
        return Fault(place=place, field=self.field, message=self.message)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """What is wrong with which row."""

    place: Place
    field: str
    message: str

    def __str__(self) -> str:
        """As in "rows.jsonl, line 17, field task: ..."."""
        return f"{self.place}, field {self.field}: {self.message}"
