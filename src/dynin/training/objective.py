"""Rows to a loss: corrupt the targets, run the network, compare at the hidden positions.

Enters: batches of rows with their true targets. Leaves: a scalar loss and figures per task. This is the only
training file that knows diffusion; it does not know optimizers, files or where rows come from.
"""

from collections.abc import Mapping, MutableMapping
from collections.abc import Sequence as Rows
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dynin.diffusion.corrupt import exact_count, replace_at_random, stratified_times
from dynin.diffusion.loss import AllowedIds, cross_entropy
from dynin.diffusion.schedule import mask_prob, require_schedule
from dynin.model.transformer import Transformer
from dynin.sequence.batch import MODALITIES, Batch
from dynin.types import Modality
from dynin.vocabulary import Vocabulary

GRIDS = (Modality.IMAGE, Modality.VIDEO)
ENDS = {Modality.TEXT: ("eos",), Modality.SPEECH: ("eoa", "eos")}


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectiveConfig:
    """What the loss is made of."""

    correction_prob: float = 0.25
    """Share of rows in which some visible targets are replaced by wrong codes and all visible targets are scored."""
    replace_prob: float = 0.1
    """Share of visible targets replaced in those rows."""
    correction_weight: float = 0.3
    """Weight of visible positions against hidden ones."""
    filler_weight: float = 0.05
    """Weight of EOS after the first end token; the first one always weighs 1."""
    grid_schedule: str = "cosine"
    """Share of a row's targets that is hidden, as a function of a uniform time: of pictures and videos."""
    stream_schedule: str = "linear"
    """The same of text and speech. Schedules that hide more teach what is decided while little is known."""
    balance: float = 0.0
    """A row of n targets weighs n ** -balance at each: 0 treats all positions alike, 1 all rows."""

    def __post_init__(self) -> None:
        """ConfigError for an unknown schedule."""
        require_schedule(self.grid_schedule)
        require_schedule(self.stream_schedule)


@dataclass(kw_only=True, slots=True)
class Tally:
    """Sums over hidden positions, filler left out."""

    entropy: float = 0.0
    right: int = 0
    count: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Loss:
    """The loss of one batch and what it was made of."""

    total: Float[Tensor, ""]
    """Sum of weighted cross-entropies."""
    weight: float
    """Sum of the weights; batches of a step are added up before they are divided."""
    tallies: Mapping[str, Tally]
    """By task."""


class Objective:
    """Masked cross-entropy over the ids that a position's modality allows.

    Targets are hidden by exact count, as many as the schedule of their kind says at a uniform time. The mean runs over
    hidden positions, without the 1 / t weight, whose variance a small batch cannot carry.
    """

    def __init__(self, vocabulary: Vocabulary, config: ObjectiveConfig) -> None:
        self.vocabulary = vocabulary
        self.config = config
        self._allowed = {
            modality: AllowedIds(vocabulary.allowed_ids(modality, *ENDS.get(modality, ())), vocabulary.size)
            for modality in MODALITIES
        }

    def __call__(self, model: Transformer, batch: Batch, *, generator: torch.Generator) -> Loss:
        """The loss of a batch whose targets are known, on the network's device."""
        device = batch.ids.device
        xt, is_hidden, is_visible = self._corrupt(batch, generator)
        hidden = model.hidden(xt, batch.attend)
        weights, is_filler = self._weights(batch, is_hidden, is_visible)
        total = hidden.new_zeros(())
        entropy = torch.zeros(batch.ids.shape, device=device)
        right = torch.zeros_like(batch.is_target)
        for index, modality in enumerate(MODALITIES):
            at = (weights > 0) & (batch.kind == index)
            if not bool(at.any()):
                continue
            allowed = self._allowed[modality] = self._allowed[modality].to(device)
            places = allowed.places(batch.ids[at])
            logits = model.head(hidden[at], allowed.ids)
            losses = cross_entropy(logits, places)
            total = total + (losses * weights[at]).sum()
            entropy[at] = losses.detach()
            right[at] = logits.argmax(dim=-1) == places
        counted = is_hidden & ~is_filler
        return Loss(total=total, weight=float(weights.sum()), tallies=_tally(batch.tasks, counted, entropy, right))

    def _corrupt(
        self, batch: Batch, generator: torch.Generator
    ) -> tuple[Int[Tensor, "B S"], Bool[Tensor, "B S"], Bool[Tensor, "B S"]]:
        """Hidden ids, which positions are hidden, and which visible ones are scored because codes were replaced."""
        num_rows = len(batch.ids)
        times = stratified_times(num_rows, generator=generator, device=batch.ids.device)
        is_grid = torch.zeros_like(batch.is_target)
        for modality in GRIDS:
            is_grid |= batch.kind == MODALITIES.index(modality)
        is_grid_row = (is_grid & batch.is_target).any(dim=1)
        shares = torch.where(
            is_grid_row, mask_prob(self.config.grid_schedule, times), mask_prob(self.config.stream_schedule, times)
        )
        is_hidden = exact_count(batch.is_target, shares, generator=generator)
        xt = torch.where(is_hidden, self.vocabulary["mask"], batch.ids)
        chosen = torch.rand(num_rows, generator=generator, device=batch.ids.device) < self.config.correction_prob
        is_visible = batch.is_target & ~is_hidden & chosen[:, None]
        for index, modality in enumerate(MODALITIES):
            span = self.vocabulary.range_of(modality)
            is_code = (batch.ids >= span.start) & (batch.ids < span.stop)
            replacements = torch.arange(span.start, span.stop, device=batch.ids.device)
            if bool((is_visible & (batch.kind == index)).any()):
                xt, _ = replace_at_random(
                    xt,
                    is_visible & is_code & (batch.kind == index),
                    self.config.replace_prob,
                    replacements=replacements,
                    generator=generator,
                )
        return xt, is_hidden, is_visible

    def _weights(
        self, batch: Batch, is_hidden: Bool[Tensor, "B S"], is_visible: Bool[Tensor, "B S"]
    ) -> tuple[Float[Tensor, "B S"], Bool[Tensor, "B S"]]:
        """The weight of every position, and which targets are filler after an end token."""
        weights = is_hidden.float() + self.config.correction_weight * is_visible.float()
        if self.config.balance:
            weights = weights * batch.is_target.sum(dim=1, keepdim=True).clamp(min=1) ** -self.config.balance
        is_eos = (batch.ids == self.vocabulary["eos"]) & batch.is_target
        is_end = is_eos | ((batch.ids == self.vocabulary["eoa"]) & batch.is_target)
        is_filler = is_eos & (is_end.cumsum(dim=1) > 1)
        return torch.where(is_filler, weights * self.config.filler_weight, weights), is_filler


def _tally(
    tasks: Rows[str], counted: Bool[Tensor, "B S"], entropy: Float[Tensor, "B S"], right: Bool[Tensor, "B S"]
) -> dict[str, Tally]:
    """Sums over the counted positions of each task's rows."""
    sums = torch.stack([(entropy * counted).sum(1), (right & counted).sum(1).float(), counted.sum(1).float()], dim=1)
    tallies: dict[str, Tally] = {}
    for task, (row_entropy, row_right, row_count) in zip(tasks, sums.tolist(), strict=False):
        tally = tallies.setdefault(task, Tally())
        tally.entropy += row_entropy
        tally.right += int(row_right)
        tally.count += int(row_count)
    return tallies


def add_tallies(to: MutableMapping[str, Tally], more: Mapping[str, Tally]) -> None:
    """Add the sums of every task."""
    for task, tally in more.items():
        whole = to.setdefault(task, Tally())
        whole.entropy += tally.entropy
        whole.right += tally.right
        whole.count += tally.count
