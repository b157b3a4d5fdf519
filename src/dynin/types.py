"""The words shared by every module: modalities and dimension letters.

Enters: nothing. Leaves: `Modality` and the meaning of the letters used in shape annotations.

Dimension letters, wherever a shape is written:
    B batch, S sequence, V vocabulary, D model width, H heads, E head width, N codes,
    T frames or samples in time, C channels, Y rows, X columns.
"""

from enum import StrEnum


class Modality(StrEnum):
    """What a segment of a sequence carries."""

    TEXT = "text"
    IMAGE = "image"
    VIDEO = "video"
    SPEECH = "speech"

    @property
    def letter(self) -> str:
        """The letter used in task names: t, i, v or s."""
        return self.value[0]

    @classmethod
    def from_letter(cls, letter: str) -> "Modality":
        """The modality of a task name's letter."""
        return next(modality for modality in cls if modality.letter == letter)
