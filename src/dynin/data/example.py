"""One example of a task: what is given, what is to be made, and what a judge needs to know.

Enters: values of the four modalities. Leaves: `Example`. Does not know tokenizers, codes or ids.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from dynin.types import Modality


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """A task and its media, not yet tokenized.

    Values are `str` for text, a float32 tensor (3, Y, X) in [-1, 1] for a picture, `media.video.Video` and
    `media.audio.Audio` for the other two.
    """

    task: str
    """Name of a row of `sequence.task`, such as "t2i"."""
    condition: Mapping[Modality, object]
    """What is given, at most one value per modality."""
    target: Mapping[Modality, object]
    """What is to be produced, at most one value per modality."""
    name: str = ""
    """Where the example comes from, for messages: "t2i 12345", "pets.jsonl:7"."""
    truth: object = field(default=None)
    """What the example was made from (a scene, a clip, an answer); only judges read it."""
