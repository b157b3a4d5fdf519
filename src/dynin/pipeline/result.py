"""What came out of a request.

Enters: made values and how they were made. Leaves: `Result`, with pictures for Pillow, sounds and videos with their
rates, and files. Does not know how it was made.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jaxtyping import Bool, Int
from PIL.Image import Image
from torch import Tensor

from dynin.errors import MediaError, RequestError
from dynin.media import audio as sounds
from dynin.media import files
from dynin.media import image as pictures
from dynin.media import video as videos
from dynin.media.audio import Audio
from dynin.media.video import Video
from dynin.types import Modality

HIDDEN, ENDED = -1, -2
"""What stands in `Snapshot.codes` where nothing is decided yet, and at and after the end."""

SUFFIXES = {
    Modality.TEXT: (".txt", ".md"),
    Modality.IMAGE: tuple(pictures.WRITE_SUFFIXES),
    Modality.VIDEO: tuple(videos.WRITE_SUFFIXES),
    Modality.SPEECH: tuple(sounds.WRITE_SUFFIXES),
}
"""The suffixes a result may be written with; the first is the usual one."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Snapshot:
    """A target after one denoiser call."""

    modality: Modality
    num_forwards: int
    """Denoiser calls so far, this one included."""
    num_planned: int
    """Denoiser calls until the current block, and all before it, are complete."""
    codes: Int[Tensor, " N"]
    """Text ids or codes; `HIDDEN` where nothing is decided, `ENDED` at and after the end."""
    is_new: Bool[Tensor, " N"]
    """Decided by this call."""
    is_remasked: Bool[Tensor, " N"]
    """Hidden again by this call."""
    text: str | None = None
    """For text: what is decided so far, each hidden place as one middle dot."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Result:
    """Everything a request made. What was not asked for is None."""

    task: str
    text: str | None = None
    """The text made, without the reasoning before it."""
    thinking: str | None = None
    """The reasoning, where the model wrote any."""
    image: Image | None = None
    audio: Audio | None = None
    video: Video | None = None
    finish_reason: Literal["stop", "length"]
    """"length" where text or speech was filled to its limit without an end token."""
    seed: int
    num_forwards: int
    """Calls of the network that the request took part in; with guidance a call runs both branches at once."""
    num_tokens: int = 0
    """Ids made, the one that ended the target included."""
    num_columns: int = 0
    """Columns of its sequence, in both branches where guided, that the network computed over all calls."""
    seconds: float
    """Wall time, encoding and decoding included."""
    trace: tuple[Snapshot, ...] | None = None
    """Every step, where the request asked for it."""

    @property
    def modality(self) -> Modality:
        """What was made; the first of several."""
        made = {Modality.IMAGE: self.image, Modality.VIDEO: self.video, Modality.SPEECH: self.audio}
        return next((modality for modality, value in made.items() if value is not None), Modality.TEXT)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write what was made, whole or not at all; the suffix says the format.

        Raises:
            RequestError: If the suffix is not one of what was made.
            MediaError: If the file cannot be written, or there is nothing in it.
        """
        place = Path(path)
        require_suffix(place, self.modality)
        if self.image is not None:
            pictures.write(place, pictures.from_pil(self.image))
        elif self.video is not None:
            videos.write(place, self.video)
        elif self.audio is not None:
            if self.audio.samples.numel() == 0:
                raise MediaError(f"{place}: the model said nothing, so there is no sound to write; try another seed")
            sounds.write(place, self.audio)
        else:
            with files.replace_whole(place) as temporary:
                temporary.write_text(f"{self.text}\n", encoding="utf-8")
        return place


def require_suffix(path: Path, modality: Modality) -> None:
    """RequestError unless a file of this name can hold what is made."""
    suffixes = SUFFIXES[modality]
    if path.suffix.lower() not in suffixes:
        received = f"{path.suffix!r}" if path.suffix else "no suffix"
        raise RequestError(f"{path} has {received}, but {modality} is made; choose one of {' '.join(suffixes)}")
