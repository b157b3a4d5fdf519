"""What a user asks for, checked, with its media read.

Enters: a prompt, media as files or values, and wishes. Leaves: `Request`, and values by modality. Does not know tasks,
codes or networks.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypedDict

from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor

from dynin.config import suggest
from dynin.errors import MediaError, RequestError
from dynin.media import audio as sounds
from dynin.media import files
from dynin.media import image as pictures
from dynin.media import video as videos
from dynin.media.audio import Audio
from dynin.media.video import Video
from dynin.pipeline.presets import PRESET_NAMES
from dynin.pipeline.redo import Redo
from dynin.pipeline.route import wanted
from dynin.tokenizers.bundle import Value
from dynin.types import Modality

MAX_SEED = 2**63 - 1
MAX_STEPS = 1000
MAX_GUIDANCE = 100.0
MAX_SIZE_PX = 8192
MAX_TEXT_BYTES = 1 << 20

GivenImage = str | os.PathLike[str] | Image | Tensor
GivenAudio = str | os.PathLike[str] | Audio
GivenVideo = str | os.PathLike[str] | Video


class Wishes(TypedDict, total=False):
    """The keyword arguments of `Dynin.generate`; each is a field of `Request` and explained there."""

    image: GivenImage | None
    audio: GivenAudio | None
    video: GivenVideo | None
    to: str | None
    seed: int
    steps: int | None
    guidance: float | None
    preset: str | None
    thinking: bool | None
    redo: Redo | str | None
    style: str | None
    size: int | None
    trace: bool


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Request:
    """One thing to be made."""

    prompt: str | None = None
    image: GivenImage | None = None
    """A file, a picture of Pillow, or a tensor (3, Y, X) in [-1, 1]."""
    audio: GivenAudio | None = None
    """A file or a sound."""
    video: GivenVideo | None = None
    """A file or a video."""
    to: str | None = None
    """What to make: text, image, video, speech, or image+text. None where only one thing can follow."""
    seed: int = 0
    """Of everything random; the same request with the same seed gives the same result."""
    steps: int | None = None
    """Network calls for a picture or video, or for each block of text or speech; None takes the model's policy."""
    guidance: float | None = None
    """Weight of classifier-free guidance; 0 for none, None for the model's policy."""
    preset: str | None = None
    """How much is risked for speed: exact, balanced or fast. None takes the quickest that was measured to be as good
    for what is made, and exact where steps are given."""
    thinking: bool | None = None
    """Whether a text answer to a text shows its reasoning first; None means yes."""
    redo: Redo | str | None = None
    """A part to make again of the picture, sound or text that is given; see `redo.parse_redo`."""
    style: str | None = None
    """Of the voice that is heard; the speech tokenizer lists its styles. None takes its own choice."""
    size: int | None = None
    """Side in pixels of the square at which pictures are read and made, a multiple of the pixels of one code. None
    takes the model's; others are worth asking for where the model has learned them."""
    trace: bool = False
    """Whether the result keeps every step."""

    def __post_init__(self) -> None:
        """Check every wish."""
        if self.prompt is not None and not (isinstance(self.prompt, str) and self.prompt.strip()):
            raise RequestError("the prompt is empty; write what you want, or leave it out")
        if self.to is not None:
            wanted(self.to)
        if self.preset is not None and self.preset not in PRESET_NAMES:
            raise RequestError(
                f"unknown preset {self.preset!r}{suggest(str(self.preset), PRESET_NAMES)}; "
                f"expected one of {', '.join(PRESET_NAMES)}"
            )
        _check_whole("seed", self.seed, 0, MAX_SEED)
        if self.steps is not None:
            _check_whole("steps", self.steps, 1, MAX_STEPS)
        if self.size is not None:
            _check_whole("size", self.size, 1, MAX_SIZE_PX)
        if self.guidance is not None:
            is_number = isinstance(self.guidance, int | float) and not isinstance(self.guidance, bool)
            if not is_number or not math.isfinite(self.guidance) or not 0 <= self.guidance <= MAX_GUIDANCE:
                raise RequestError(f"guidance is {self.guidance}; give a number from 0 to {MAX_GUIDANCE:.0f}")

    @classmethod
    def of(cls, prompt: str | None, wishes: Mapping[str, Any]) -> "Request":
        """A request from keyword arguments; RequestError with the nearest name for an unknown one."""
        known = [field.name for field in fields(cls)]
        for name in wishes:
            if name not in known:
                raise RequestError(f"unknown wish {name!r}{suggest(name, known)}")
        return cls(prompt=prompt, **wishes)

    @classmethod
    def to_fulfil(cls, condition: Mapping[Modality, object], to: str, **wishes: Any) -> "Request":
        """A request from values by modality, such as an `Example`'s condition."""
        names = {Modality.TEXT: "prompt", Modality.IMAGE: "image", Modality.VIDEO: "video", Modality.SPEECH: "audio"}
        return cls(**{names[modality]: value for modality, value in condition.items()}, to=to, **wishes)  # type: ignore[arg-type]

    def values(self, num_frames: int) -> dict[Modality, Value]:
        """Everything given, by modality, files read.

        Args:
            num_frames: Frames that the model looks at in a video.
        Raises:
            MediaError: If a file cannot be read or is outside the limits.
            RequestError: If a value is of no known kind.
        """
        given: dict[Modality, Value] = {}
        if self.prompt is not None:
            given[Modality.TEXT] = self.prompt
        if self.image is not None:
            given[Modality.IMAGE] = read_image(self.image)
        if self.video is not None:
            given[Modality.VIDEO] = read_video(self.video, num_frames)
        if self.audio is not None:
            given[Modality.SPEECH] = read_audio(self.audio)
        return given


def check_correctable(redo: Redo, request: Request) -> None:
    """MediaError if reading a picture or sound would change what is to stay bit for bit beside a corrected part."""
    given = {Modality.IMAGE: request.image, Modality.SPEECH: request.audio}.get(redo.modality)
    source = given if redo.source is None else redo.source
    if redo.modality == Modality.IMAGE and isinstance(source, str | os.PathLike):
        pictures.check_plain_file(source)
    elif redo.modality == Modality.IMAGE and isinstance(source, Image):
        pictures.check_plain(source, "the picture")
    elif redo.modality == Modality.SPEECH and isinstance(source, str | os.PathLike):
        sounds.check_exact(source)


def read_value(modality: Modality, source: object) -> Value:
    """A file or value that is to be corrected, as a value."""
    if source is None:
        raise RequestError(f"no {modality} to be corrected was given; write the part with its file, as words:3-5@FILE")
    match modality:
        case Modality.IMAGE:
            return read_image(source)
        case Modality.SPEECH:
            return read_audio(source)
        case _:
            return read_text(source)


def read_image(source: object) -> Float[Tensor, "3 Y X"]:
    """A file, picture of Pillow or tensor as pixels."""
    if isinstance(source, str | os.PathLike):
        return pictures.read(source)
    if isinstance(source, Image):
        pictures.check_size(*source.size, "the picture")
        return pictures.from_pil(source)
    if isinstance(source, Tensor) and source.ndim == 3 and source.shape[0] == 3 and source.is_floating_point():
        pictures.check_size(source.shape[2], source.shape[1], "the picture")
        return source.detach().float().cpu()
    raise RequestError(
        f"{_kind(source)} is no picture; give a file, a picture of Pillow, or a tensor (3, rows, columns)"
    )


def read_audio(source: object) -> Audio:
    """A file or sound as a sound in which there is something to hear."""
    if isinstance(source, str | os.PathLike):
        return sounds.require_sound(sounds.read(source), str(source))
    if isinstance(source, Audio):
        return sounds.require_sound(source)
    raise RequestError(f"{_kind(source)} is no sound; give a file or a dynin.Audio")


def read_video(source: object, num_frames: int) -> Video:
    """A file or video as a video."""
    if isinstance(source, str | os.PathLike):
        return videos.read(source, num_frames)
    if isinstance(source, Video):
        return source
    raise RequestError(f"{_kind(source)} is no video; give a file or a dynin.Video")


def read_text(source: object) -> str:
    """A text file, as text without space around it."""
    if not isinstance(source, str | os.PathLike):
        raise RequestError(f"{_kind(source)} is no text file; give its path")
    try:
        return files.read_bytes(source, MAX_TEXT_BYTES).decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise MediaError(f"{source}: is no text in UTF-8; save it so, or give another file") from error


def _check_whole(name: str, value: object, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise RequestError(f"{name} is {value!r}; give a whole number from {least} to {most}")


def _kind(source: object) -> str:
    shape = f" of shape {tuple(source.shape)}" if isinstance(source, Tensor) else ""
    return f"a {type(source).__name__}{shape}"
