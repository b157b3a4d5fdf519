"""What a video-language model must do for VIRST: read the [ST] tokens of sentences about videos.

Enters: frames, sentences, and the embeddings with which the [ST] tokens enter. Leaves: the states in which they come
out, and what the model says of text that it is to learn. Does not know masks, fusions or files.

    st_embeddings()  N D  --[ the initial fusion may change them, sentence by sentence ]-->  R N D
    prepare(clips)              -->  what the frames alone give, for each video; `read` does it where nobody has
    read(clips, sentences, st)  -->  Reading: R N D, and scores of text

A batch holds V videos of up to T frames and R sentences; each sentence is about one of the videos, several may share
one. What comes out for a sentence is what comes out for it alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dynin.errors import RequestError


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Clips:
    """The frames of a batch that the backbone sees."""

    frames: Float[Tensor, "V T 3 Y X"]
    """RGB in [-1, 1], squares of the backbone's `frame_px`; anything finite where there is no frame."""
    is_frame: Bool[Tensor, "V T"]
    """Which frames there are; those of a video come first, in time order, and each video has at least one."""
    prepared: tuple[Tensor, ...] | None = None
    """What the backbone's `prepare` gave for each video of these very frames; None where nobody asked for it ahead."""

    def __post_init__(self) -> None:
        """RequestError for a video without frames, with frames behind a gap, or prepared values of other videos."""
        counts = self.is_frame.sum(dim=1, keepdim=True)
        is_first = torch.arange(self.is_frame.shape[1], device=self.is_frame.device) < counts
        if self.is_frame.shape != self.frames.shape[:2] or not bool(
            (counts > 0).all() & (is_first == self.is_frame).all()
        ):
            raise RequestError(
                f"a batch of frames {tuple(self.frames.shape)} marks {self.is_frame.sum(dim=1).tolist()} of them; "
                "expected at least one frame of every video, all of them before the first missing one"
            )

        if self.prepared is not None and len(self.prepared) != len(self.frames):
            raise RequestError(
                f"{len(self.prepared)} prepared videos were given with {len(self.frames)}; prepare these very clips"
            )

    @property
    def num_frames(self) -> list[int]:
        """Frames of each video."""
        return self.is_frame.sum(dim=1).tolist()

    def to(self, device: torch.device | str) -> "Clips":
        """The same on another device."""
        prepared = None if self.prepared is None else tuple(each.to(device) for each in self.prepared)
        return Clips(frames=self.frames.to(device), is_frame=self.is_frame.to(device), prepared=prepared)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sentences:
    """What is asked about the videos of a batch."""

    texts: tuple[str, ...]
    """One sentence a row, such as "the dog that turns back"."""
    videos: tuple[int, ...]
    """Which video of the batch each row is about."""
    answers: tuple[str | None, ...] = ()
    """Text that a row's model is to learn to answer with, beside the masks; None, or an empty tuple, for none."""

    def __post_init__(self) -> None:
        """RequestError for rows that do not fit together, or a sentence without words."""
        if not len(self.texts) == len(self.videos) == len(self.answers or self.texts):
            raise RequestError(
                f"{len(self.texts)} sentences, {len(self.videos)} numbers of videos and {len(self.answers)} answers "
                "were given; expected one of each for every row"
            )
        for row, text in enumerate(self.texts):
            if not text.strip():
                raise RequestError(f"sentence {row} is empty; say in words what is to be found in the video")

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.texts)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TextScores:
    """How well a backbone foretells the text that it is to learn: K places of all rows."""

    logits: Float[Tensor, "K A"]
    targets: Int[Tensor, " K"]
    """Which of the A choices is right."""
    weights: Float[Tensor, " K"]
    """How much each place counts; the loss is the weighted sum over the number of rows that have text."""
    num_rows: int


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CellStates:
    """What a backbone that reads in both directions makes of the frames, with the sentence in sight."""

    states: Float[Tensor, "R T P D"]
    """The last, normalised states at the P = rows x columns patches of each frame; zeros where there is no frame."""
    is_frame: Bool[Tensor, "R T"]
    grid: tuple[int, int]
    """Rows and columns of patches."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Reading:
    """What a backbone makes of a batch."""

    st_states: Float[Tensor, "R N D"]
    """The last, normalised states at the [ST] tokens themselves."""
    text: TextScores | None = None
    """None where nothing is to be learnt from text."""
    cells: CellStates | None = None
    """None where the backbone's states of frames do not know the sentence."""


@runtime_checkable
class Backbone(Protocol):
    """A video-language model; each implementation is an `nn.Module` as well."""

    width: int
    """D: width of embeddings and states."""
    num_st: int
    """N: [ST] tokens of a sentence."""
    frame_px: int
    """Side of the square frames that it takes."""
    max_frames: int
    """Most frames of one video that it can see at once."""

    def st_embeddings(self) -> Float[Tensor, "N D"]:
        """The embeddings with which the [ST] tokens enter where no fusion changes them."""
        ...

    def prepare(self, clips: Clips) -> Sequence[Tensor]:
        """What `read` makes of the frames of each video whatever the sentence, as `Clips.prepared` hands it on.

        Raises:
            RequestError: If frames are of another size or too many.
        """
        ...

    def read(
        self,
        clips: Clips,
        sentences: Sentences,
        st_embeddings: Float[Tensor, "R N D"],
        generator: torch.Generator | None = None,
    ) -> Reading:
        """One pass over every row.

        Args:
            st_embeddings: What stands at the [ST] tokens instead of their own embeddings.
            generator: For what training draws (which parts of answers are hidden); None outside training, when
                answers are not scored.

        Raises:
            RequestError: If a row does not fit the model's length.
        """
        ...

    def is_learned(self, name: str) -> bool:
        """Whether a tensor of its own, by its name in its `state_dict`, belongs to VIRST's checkpoint.

        The others come with the model that it starts from, and stay as they are.
        """
        ...

    def origin(self) -> str:
        """Tells the model that it starts from, by content; what VIRST learned fits that one alone."""
        ...
