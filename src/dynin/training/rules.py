"""How each task is trained: how places are hidden, what a hidden place weighs, which ids compete.

Enters: a task's name and options. Leaves: a `Rule`. Does not know tensors. Two tables: ours, and that of the published
code with its quirks behind named options.

    masking      exact_count   a rounded share of a row's targets, the share by schedule at a uniform time
                 bernoulli     each target with probability p = (1 - floor) t + floor, t uniform
    reduction    positions     the mean over all hidden places of a step, whatever their task
                 masked        the mean over the task's hidden places
                 answer        sum of -log p(x) / (p length) over a row's hidden places, mean over the task's rows;
                               length counts the row's targets: LLaDA's bound, arXiv:2502.09992
                 masked_over_p the mean over the task's hidden places of -log p(x) / p (a quirk)
    support      modality      the ids of the target's modality and its end tokens
                 text          all ids of text
                 all           every row of the table

Parity:
    The published losses as the reference code computes them: docs/parity.md, "Losses".
"""

from dataclasses import dataclass
from typing import Literal

from dynin.types import Modality

Masking = Literal["exact_count", "bernoulli"]
Reduction = Literal["positions", "masked", "answer", "masked_over_p"]
SupportKind = Literal["modality", "text", "all"]
GRIDS = (Modality.IMAGE, Modality.VIDEO)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """How the targets of one modality in one task are trained."""

    masking: Masking = "exact_count"
    reduction: Reduction = "positions"
    support: SupportKind = "modality"
    counts_filler: bool = True
    """Whether filler that carries no loss still counts as length of the answer."""
    filler_weight: float = 1.0
    """Of end tokens after the first one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedQuirks:
    """What the published losses do beside their formula; each can be left out."""

    double_weight: bool = True
    """t2t: the mean runs over hidden places though each is already weighed by 1 / p."""
    full_softmax: bool = True
    """i2t, v2t, s2t: image and speech rows compete with words."""
    video_filler: bool = True
    """v2t: filler counts as length of the answer, though only the first end token carries a loss."""
    spare_speech_rows: bool = True
    """Speech: the unused rows behind the last unit compete too."""


ANSWERS = ("i2t", "v2t", "s2t")
"""Tasks that answer in words about a picture, a video or a sound."""


def published(task: str, modality: Modality, quirks: PublishedQuirks) -> Rule:
    """The rule of a task in the published code, less the quirks that are switched off."""
    if modality in GRIDS:
        return Rule(masking="exact_count", reduction="masked")
    if modality == Modality.SPEECH:
        return Rule(masking="bernoulli", reduction="answer")
    if task in ANSWERS:
        is_video = task == "v2t"
        return Rule(
            masking="bernoulli",
            reduction="answer",
            support="all" if quirks.full_softmax else "text",
            filler_weight=0.0 if is_video else 1.0,
            counts_filler=not is_video or quirks.video_filler,
        )
    return Rule(masking="bernoulli", reduction="masked_over_p" if quirks.double_weight else "answer", support="text")
