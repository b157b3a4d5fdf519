"""Which frames of a video are seen, and how a frame of any shape becomes a square and a mask becomes a frame again.

Enters: numbers of frames; frames in [-1, 1] and masks of any size. Leaves: indices; squares; masks at the frame's size.
Does not know files, sentences or networks.

    T frames --one from each of T_v equal parts--> T_v --a subset of them, in order--> T_seg

    frame  H x W --scaled to fit--> [ frame | padding ]   side x side         masks likewise, and back:
                                    [    padding      ]                        logits are read where each pixel lies
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from dynin.errors import RequestError
from dynin.virst.config import FrameConfig

PADDING = 0.0
"""Mid grey, in [-1, 1]."""


def middles(count: int, parts: int) -> list[int]:
    """The middle index of each of so many equal parts of `count` things; the earlier of two."""
    edges = [index * count // parts for index in range(parts + 1)]
    return [(start + stop - 1) // 2 for start, stop in zip(edges, edges[1:], strict=False)]


def drawn(count: int, parts: int, generator: torch.Generator) -> list[int]:
    """An index drawn from each of so many equal parts."""
    edges = [index * count // parts for index in range(parts + 1)]
    return [
        start + int(torch.randint(stop - start, (), generator=generator, device=generator.device))
        for start, stop in zip(edges, edges[1:], strict=False)
    ]


def choose(count: int, config: FrameConfig, generator: torch.Generator | None = None) -> list[int]:
    """The frames that the backbone sees, of a video of `count` frames, in time order.

    A video of fewer than `least` frames has its last one repeated.

    Args:
        generator: Where frames are drawn; see `FrameConfig.sampling`.

    Raises:
        RequestError: If there is no frame, or frames are to be drawn without a generator.
    """
    if count < 1:
        raise RequestError(f"a video of {count} frames was given, expected at least one; give another video")
    if count <= config.least:
        return [*range(count), *[count - 1] * (config.least - count)]
    parts = max(config.least, min(config.num_frames, count) // config.multiple * config.multiple)
    if parts > count:  # fewer frames than one multiple
        return [*range(count), *[count - 1] * (parts - count)]
    return middles(count, parts) if config.sampling == "centres" else drawn(count, parts, _needed(generator))


def choose_seg(count: int, config: FrameConfig, generator: torch.Generator | None = None) -> list[int]:
    """Which of the `count` frames that the backbone sees the fusions see too, in time order; errors as in `choose`.

    Parity:
        The published code draws any subset; so does "jitter". "centres" takes evenly spread ones.
    """
    parts = min(count, config.num_seg)
    if config.sampling == "centres":
        return middles(count, parts)
    needed = _needed(generator)
    return sorted(torch.randperm(count, generator=needed, device=needed.device)[:parts].tolist())


def _needed(generator: torch.Generator | None) -> torch.Generator:
    if generator is None:
        raise RequestError("setting 'frames.sampling' is 'jitter', which draws frames; give a seeded generator")
    return generator


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """Where a frame lies in a canvas: at its upper left, as large as it fits."""

    height: int
    """Rows of the frame in pixels."""
    width: int
    """Columns of the frame in pixels."""
    rows: int
    """Of the canvas."""
    columns: int
    keeps_aspect: bool = True
    """Otherwise the frame fills the canvas.

    Parity: the published code squeezes every frame."""

    def __post_init__(self) -> None:
        """RequestError for a frame or canvas without pixels."""
        if min(self.height, self.width, self.rows, self.columns) < 1:
            raise RequestError(
                f"a frame of {self.width} x {self.height} px was given for a canvas of {self.columns} x {self.rows}, "
                "expected at least one pixel on each side; give another"
            )

    @property
    def inner(self) -> tuple[int, int]:
        """Rows and columns of the canvas that the frame fills; at least one of each."""
        if not self.keeps_aspect:
            return self.rows, self.columns
        scale = min(self.rows / self.height, self.columns / self.width)
        return (
            min(self.rows, max(1, round(self.height * scale))),
            min(self.columns, max(1, round(self.width * scale))),
        )

    def place(self, frames: Float[Tensor, "B 3 Y X"]) -> Float[Tensor, "B 3 rows columns"]:
        """Frames in [-1, 1] on their canvas, resized without aliasing."""
        return self._padded(_resized(frames, self.inner, "bicubic").clamp(-1, 1), PADDING)

    def place_masks(self, masks: Bool[Tensor, "B Y X"]) -> Bool[Tensor, "B rows columns"]:
        """Masks on the canvas of their frames; padding belongs to no mask."""
        return self._padded(_resized(masks[:, None].float(), self.inner, "bilinear"), 0.0)[:, 0] >= 0.5

    def lift(self, logits: Float[Tensor, "B y x"]) -> Float[Tensor, "B Y X"]:
        """Mask logits of any resolution over the canvas, read bilinearly at each pixel of the frame."""
        (rows, columns), (height, width) = self.inner, (self.height, self.width)
        at_y = (torch.arange(height, device=logits.device) + 0.5) * (2 * rows / height / self.rows) - 1
        at_x = (torch.arange(width, device=logits.device) + 0.5) * (2 * columns / width / self.columns) - 1
        at = torch.stack((at_x.expand(height, -1), at_y[:, None].expand(-1, width)), dim=-1).to(logits.dtype)
        grid = at.expand(len(logits), -1, -1, -1)
        read = F.grid_sample(logits[:, None], grid, mode="bilinear", padding_mode="border", align_corners=False)
        return read[:, 0]

    def _padded(self, values: Tensor, fill: float) -> Tensor:
        rows, columns = values.shape[-2:]
        return F.pad(values, (0, self.columns - columns, 0, self.rows - rows), value=fill)


def times_of(frames: Sequence[int], rate_hz: float | None = None) -> list[float]:
    """When frames are: their places in the list, or seconds from the start of the video where a rate is given.

    Parity:
        The published code counts places in the list, however far apart the frames are.
    """
    return [float(place) if rate_hz is None else frame / rate_hz for place, frame in enumerate(frames)]


def _resized(values: Float[Tensor, "B C Y X"], size: tuple[int, int], mode: str) -> Float[Tensor, "B C rows columns"]:
    if tuple(values.shape[-2:]) == size:
        return values
    return F.interpolate(values, size=size, mode=mode, antialias=True, align_corners=False)
