"""Questions and answers about videos and pictures: VideoLLaVA-Instruct, LLaVA-Video and ReasonSeg's explanations.

Enters: a JSON of conversations and folders of extracted frames. Leaves: `Conversation` values. Does not know masks.

    video-llava-instruct   train_json/videochatgpt_tune_.json, videochatgpt_tune/VIDEO/*.jpg
    llava-video            0_30_s_academic_v0_1_cap_processed.json, VIDEO/*.jpg (VIDEO as the JSON has it, no suffix)
    reason-seg             explanatory/train.json, train/*.jpg

    [{"id": ..., "video": "a/b.mp4", "conversations": [{"from": "human", "value": ...}, {"from": "gpt", "value": ...}]}]

Source: PKU-YuanGroup/Video-LLaVA, LLaVA-VL/LLaVA-NeXT, dvlab-research/LISA.

Parity:
    Code that trains on these lists frames in the order of the disk and sorts only names that have an underscore, so
    that "00000.jpg" and its like come as they lie; and it takes the first question of a conversation alone. Here frames
    come in the natural order of their names, and every question is given.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from dynin.config import suggest
from dynin.data.referring import annotation, pictures
from dynin.errors import DataError

PLACEHOLDERS = ("<image>", "<video>")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Conversation:
    """What is asked about a video or a picture, and what is answered."""

    video: str
    frame_names: tuple[str, ...]
    """Names of the frames in time order, without extension."""
    height: int
    width: int
    read_frame: Callable[[int], UInt8[np.ndarray, "Y X 3"]]
    """RGB of the frame at an index."""
    pairs: tuple[tuple[str, str], ...]
    """Questions with their answers; what marks the place of the video is taken out."""


class Conversations:
    """Conversations by index; a video's folder is looked at when its conversation is asked for."""

    def __init__(self, path: Path, frames: Path) -> None:
        """Read the JSON; DataError if it is missing or no list."""
        self._path, self._frames = path, frames
        self._entries = annotation.items(annotation.read_json(path), str(path))

    def __len__(self) -> int:
        """Number of conversations."""
        return len(self._entries)

    def conversation(self, index: int) -> Conversation:
        """The conversation at an index.

        Raises:
            DataError: If it is not laid out as published, or its frames are missing; when read, if one is damaged.
            IndexError: If the index is outside the source.
        """
        if not 0 <= index < len(self._entries):
            raise IndexError(f"conversation {index} of {len(self._entries)}; indices start with 0")
        place = f"{self._path}, entry {index}"
        entry = annotation.mapping(self._entries[index], place)
        name = annotation.words(annotation.field(entry, "video", place), f"{place}, video")
        found = pictures.pictures_of(self._frames / Path(name).with_suffix(""), f"video {name!r}")
        if not found:
            raise DataError(
                f"video {name!r}: no frames in {self._frames / Path(name).with_suffix('')}; extract the video's frames "
                "there as JPEG, for example with ffmpeg"
            )
        return _conversation(name, tuple(found.values()), _pairs(entry, place))


class Explanations:
    """ReasonSeg's pictures with answers that say why, by index."""

    def __init__(self, path: Path, images: Path) -> None:
        """Read the JSON; DataError if it is missing or no list."""
        self._path, self._images = path, images
        self._entries = annotation.items(annotation.read_json(path, fallback="cp1252"), str(path))

    def __len__(self) -> int:
        """Number of explanations."""
        return len(self._entries)

    def conversation(self, index: int) -> Conversation:
        """The explanation at an index.

        Raises:
            IndexError: If there is none at that index.
            DataError: As of `Conversations.conversation`.
        """
        if not 0 <= index < len(self._entries):
            raise IndexError(f"explanation {index} of {len(self._entries)}; indices start with 0")
        place = f"{self._path}, entry {index}"
        entry = annotation.mapping(self._entries[index], place)
        image, query, outputs = (
            annotation.words(annotation.field(entry, key, place), f"{place}, {key}")
            for key in ("image", "query", "outputs")
        )
        return _conversation(image, (self._images / image,), ((query, outputs),))


def _conversation(name: str, paths: tuple[Path, ...], pairs: tuple[tuple[str, str], ...]) -> Conversation:
    place = f"video {name!r}"
    size = pictures.picture_size(paths[0], place)
    return Conversation(
        video=name,
        frame_names=tuple(path.stem for path in paths),
        height=size[0],
        width=size[1],
        read_frame=partial(_read, paths, size, place),
        pairs=pairs,
    )


def _read(paths: tuple[Path, ...], size: tuple[int, int], place: str, index: int) -> UInt8[np.ndarray, "Y X 3"]:
    return pictures.read_rgb(paths[index], size, place)


def _pairs(entry: Mapping[str, object], place: str) -> tuple[tuple[str, str], ...]:
    """Questions and answers in turn; DataError where they do not alternate."""
    turns = annotation.items(annotation.field(entry, "conversations", place), f"{place}, conversations")
    spoken = []
    for number, value in enumerate(turns):
        at = f"{place}, turn {number}"
        turn = annotation.mapping(value, at)
        speaker = annotation.field(turn, "from", at)
        if speaker != ("human", "gpt")[number % 2]:
            raise DataError(f"{at}: is from {speaker!r}, expected human and gpt in turn; correct it")
        text = str(annotation.field(turn, "value", at))
        for placeholder in PLACEHOLDERS:
            text = text.replace(placeholder, "")
        spoken.append(annotation.words(text, at))
    if not spoken or len(spoken) % 2:
        raise DataError(f"{place}: {len(spoken)} turns, expected an answer to every question; correct it")
    return tuple(zip(spoken[::2], spoken[1::2], strict=True))


INSTRUCTIONS: dict[str, Callable[[Path], Conversations | Explanations]] = {
    "video-llava-instruct": lambda root: Conversations(
        root / "train_json" / "videochatgpt_tune_.json", root / "videochatgpt_tune"
    ),
    "llava-video": lambda root: Conversations(root / "0_30_s_academic_v0_1_cap_processed.json", root),
    "reason-seg": lambda root: Explanations(root / "explanatory" / "train.json", root / "train"),
}


def open_instructions(name: str, root: Path) -> Conversations | Explanations:
    """Open a set of conversations in its published layout; DataError if it is unknown or its file is missing."""
    if name not in INSTRUCTIONS:
        raise DataError(f"unknown set of conversations {name!r}{suggest(name, INSTRUCTIONS)}")
    return INSTRUCTIONS[name](root)
