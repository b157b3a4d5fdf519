"""What every mask branch offers: encode frames once, turn prompt tokens into a mask, remember it, attend to memories.

Enters: frames in [-1, 1], prompt tokens. Leaves: features, mask logits with their scores, memories. Every call is
differentiable. Does not know sentences, anchors, or the order of frames: `virst/tracker.py` calls these parts.

    frames --encode--> FrameFeatures --without_memory----------> cells --decode(prompts)--> MaskOutput
                             |                                     ^                            |
                             +--attend(memories, pointers)---------+                            |
                             |          ^                                                       |
                             +----------|--------------------------remember---------------------+
                                        +-- Memory <--------------------+

Letters beside those of `types.py`: in this folder N is prompt tokens of a row, M mask candidates, P tokens
of a memory and E its width; I and J are rows and columns of cells, y and x those of mask logits.
A row is one sentence about one video; rows of a batch are at the same place of their videos.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

Choice = Literal["single", "best"]
"""Which candidate becomes the mask, in training as in inference: the one of the single-mask token, or that of the other
tokens with the highest predicted IoU."""

Gate = Literal["hard", "soft"]
"""What an object score does to memories and pointers: a threshold at 0 (published), or a weight, which lets gradients
through. Mask logits leave the branch as they are; `MaskOutput.gated_logits` applies the score to them."""

ABSENT_LOGIT = -1024.0
"""The mask logit of every pixel where the object is judged absent, as published."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FrameFeatures:
    """What is computed once for a frame, whatever is asked about it. The first axis counts frames, or rows."""

    cells: Float[Tensor, "B D I J"]
    """Features of the coarsest level, before any memory: what the fusions read (`S_seg`)."""
    position: Float[Tensor, "1 D I J"]
    """Position code of the cells."""
    fine: tuple[Tensor, ...]
    """Finer levels as the mask decoder takes them, finest first: (B, C, rows, columns)."""

    def __len__(self) -> int:
        """Number of frames."""
        return self.cells.shape[0]

    def take(self, indices: Sequence[int] | Int[Tensor, " R"]) -> "FrameFeatures":
        """The frames at the given indices, which may repeat."""
        at = torch.as_tensor(indices, device=self.cells.device)
        return FrameFeatures(cells=self.cells[at], position=self.position, fine=tuple(level[at] for level in self.fine))

    def detach(self) -> "FrameFeatures":
        """The same features without their history."""
        return FrameFeatures(
            cells=self.cells.detach(),
            position=self.position.detach(),
            fine=tuple(level.detach() for level in self.fine),
        )


def concatenate(features: Sequence[FrameFeatures]) -> FrameFeatures:
    """Features of several runs of frames as one."""
    levels = zip(*(part.fine for part in features), strict=True)
    return FrameFeatures(
        cells=torch.cat([part.cells for part in features]),
        position=features[0].position,
        fine=tuple(torch.cat(level) for level in levels),
    )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MaskOutput:
    """What the decoder says about one frame, one row for each sentence."""

    mask_logits: Float[Tensor, "B y x"]
    """Of the chosen candidate, at `mask_size`, ungated: above 0 is the object, where there is one."""
    predicted_iou: Float[Tensor, " B"]
    """What the branch believes the IoU of the chosen candidate to be, in [0, 1]."""
    object_score: Float[Tensor, " B"]
    """Logit of the object being visible in this frame."""
    pointer: Float[Tensor, "B D"]
    """Object pointer, gated: what later frames remember of the object besides the memory of its place."""
    candidate_logits: Float[Tensor, "B M y x"]
    """All candidates the choice was made from: one for "single", the others for "best"."""
    candidate_iou: Float[Tensor, "B M"]
    chosen: Int[Tensor, " B"]
    """Index of the chosen candidate."""

    @property
    def confidence(self) -> Float[Tensor, " B"]:
        """Probability of the object being visible times predicted IoU, in [0, 1]."""
        return self.object_score.sigmoid() * self.predicted_iou.clamp(0, 1)

    def gated_logits(self, gate: Gate = "hard") -> Float[Tensor, "B y x"]:
        """Mask logits with the object score applied.

        Hard: `ABSENT_LOGIT` everywhere where the score is not above 0, as published. Soft: the logit of the product of
        both probabilities, `p(pixel) p(object)`, with a gradient for both.
        """
        score = self.object_score[:, None, None]
        if gate == "hard":
            return torch.where(score > 0, self.mask_logits, ABSENT_LOGIT)
        # p q = 1 / ((1 + exp -a)(1 + exp -b)), so its logit is -log(exp -a + exp -b + exp -(a + b))
        return -torch.logsumexp(
            torch.stack([-self.mask_logits, -score.expand_as(self.mask_logits), -(self.mask_logits + score)]), dim=0
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Memory:
    """One frame with its mask, as later frames see it."""

    cells: Float[Tensor, "B P E"]
    """Tokens of the frame, of the memory's width."""
    position: Float[Tensor, "#B P E"]
    """Their position code in space; that in time depends on who looks."""
    pointer: Float[Tensor, "B D"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Recalled:
    """A memory with its distance in time, as `attend` wants it."""

    memory: Memory
    steps_back: int
    """0 for a prompted frame, else how many frames ago, from 1 to `num_recent`."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Pointed:
    """A pointer with its signed distance in frames; positive distances lie behind."""

    pointer: Float[Tensor, "B D"]
    distance: int


@runtime_checkable
class MaskBranch(Protocol):
    """A promptable segmenter with memory; a `torch.nn.Module` in every implementation."""

    @property
    def width(self) -> int:
        """Width of prompt tokens, cells and pointers."""
        ...

    @property
    def image_size(self) -> tuple[int, int]:
        """Rows and columns in pixels of the frames it takes."""
        ...

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of cells."""
        ...

    @property
    def mask_size(self) -> tuple[int, int]:
        """Rows and columns of mask logits."""
        ...

    @property
    def num_recent(self) -> int:
        """Most recent frames without a prompt that `attend` can tell apart in time (P of the paper)."""
        ...

    @property
    def max_pointers(self) -> int:
        """Frames over which pointers reach back; their distances are divided by one less."""
        ...

    def encode(self, frames: Float[Tensor, "B 3 Y X"], *, chunk: int = 8) -> FrameFeatures:
        """Features of RGB frames in [-1, 1] of `image_size`, `chunk` frames at a time.

        Raises:
            ValueError: If the frames are of another size.
        """
        ...

    def place(self, points: Float[Tensor, "B N 2"]) -> Float[Tensor, "B N D"]:
        """The code by which the decoder knows places: columns and rows, in shares of the frame's sides."""
        ...

    def without_memory(self, features: FrameFeatures) -> Float[Tensor, "B D I J"]:
        """Cells for the decoder where no memory is looked at."""
        ...

    def attend(
        self, features: FrameFeatures, recalled: Sequence[Recalled], pointers: Sequence[Pointed], *, max_pointers: int
    ) -> Float[Tensor, "B D I J"]:
        """Cells for the decoder after a look at memories, of which there must be one at least.

        Args:
            max_pointers: Distances of pointers are divided by one less than this.
        """
        ...

    def decode(
        self,
        cells: Float[Tensor, "B D I J"],
        features: FrameFeatures,
        prompts: Float[Tensor, "B N D"] | None,
        *,
        choice: Choice = "single",
        gate: Gate = "hard",
    ) -> MaskOutput:
        """Masks from cells and prompt tokens; without prompts the memory in the cells must tell what is meant."""
        ...

    def remember(
        self, features: FrameFeatures, output: MaskOutput, *, gate: Gate = "hard", is_binary: bool = False
    ) -> Memory:
        """Encode a frame with its mask for later frames.

        Args:
            is_binary: Remember the mask after its threshold, which lets no gradient through, in place of its
                probabilities.
        """
        ...
