"""A record of every decoding step, enough to draw the canvas filling in or to show text as it appears.

Enters: steps, from the decoder. Leaves: the same steps, kept on the CPU. Does not know how they came about.
"""

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Step:
    """A segment after one denoiser call; places in order, not columns, so growth does not move them."""

    index: int
    """Denoiser calls before this one, over the whole run."""
    segment: str
    block: int
    ids: Int[Tensor, "B N"]
    """The segment's ids; the mask id where hidden, and where a row has fewer places than others."""
    is_committed: Bool[Tensor, "B N"]
    """Revealed by this step."""
    is_remasked: Bool[Tensor, "B N"]
    """Hidden again by this step."""
    prob: Float[Tensor, "B N"]
    """Probability with which the present id was committed; 1 for what was given, 0 where hidden."""


class Trace:
    """Keeps every step it is called with; hand it to `ParallelDecoder.run` as `observer`."""

    def __init__(self) -> None:
        """Start empty."""
        self.steps: list[Step] = []

    def __call__(self, step: Step) -> None:
        """Keep a step."""
        self.steps.append(step)

    def of(self, segment: str) -> list[Step]:
        """The steps of one segment in order."""
        return [step for step in self.steps if step.segment == segment]
