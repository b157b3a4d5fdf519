"""Rows to a loss: hide targets, run the network, compare at the hidden places.

Enters: batches of rows with their true targets. Leaves: a scalar loss and figures per task. This is the only training
file that knows diffusion; it does not know optimizers, files or where rows come from.

A step goes in two strokes. `hide` draws what is hidden in each batch, which settles what each place weighs; once the
weights of all batches and processes are known, `loss` runs the network. So the loss of a step is the same however its
rows are cut into batches or shared out over processes.
"""

from collections import defaultdict
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from dynin.config import AT_LEAST_ZERO, SHARE, require_ranges
from dynin.diffusion.corrupt import bernoulli, exact_count, replace_at_random, stratified_times
from dynin.diffusion.loss import Support, cross_entropy
from dynin.diffusion.schedule import mask_prob, require_schedule
from dynin.model.transformer import Transformer
from dynin.sequence import packing
from dynin.sequence.batch import MODALITIES, Batch
from dynin.sequence.packing import Packing
from dynin.training.rules import GRIDS, PublishedQuirks, Rule, SupportKind, published
from dynin.types import Modality
from dynin.vocabulary import Vocabulary

ENDS = {Modality.TEXT: ("eos",), Modality.SPEECH: ("eoa", "eos")}
LEAST_PROB, FLOOR = 1e-4, 1e-3
ALL = "all"
"""Name of the divisor that all tasks share."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectiveConfig:
    """What the loss is made of."""

    recipe: Literal["dynin", "published"] = "dynin"
    """Ours, or the losses of the published code (`training.rules`)."""
    quirks: PublishedQuirks = field(default_factory=PublishedQuirks)
    """Of the published losses."""
    coefficients: Mapping[str, float] = field(default_factory=dict)
    """What the loss of a task weighs; 1 where it is not named."""
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
    reduction: Literal["positions", "answer"] = "positions"
    """Ours: the mean over hidden places, or LLaDA's bound for text and speech (masked by chance, 1 / p)."""

    def __post_init__(self) -> None:
        """ConfigError for an unknown schedule, a negative weight, or a share that is none."""
        require_schedule(self.grid_schedule)
        require_schedule(self.stream_schedule)
        weights = ("coefficients", "correction_weight", "filler_weight", "balance")
        require_ranges(self, dict.fromkeys(weights, AT_LEAST_ZERO), "objective.")
        require_ranges(self, dict.fromkeys(("correction_prob", "replace_prob"), SHARE), "objective.")

    def rule(self, task: str, modality: Modality) -> Rule:
        """How targets of a modality are trained in a task."""
        if self.recipe == "published":
            return published(task, modality, self.quirks)
        if modality in GRIDS or self.reduction == "positions":
            return Rule(filler_weight=self.filler_weight)
        return Rule(masking="bernoulli", reduction="answer", filler_weight=self.filler_weight, counts_filler=False)


@dataclass(kw_only=True, slots=True)
class Tally:
    """Sums over hidden positions, filler left out."""

    entropy: float = 0.0
    right: int = 0
    count: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """Places of a batch at which the same ids compete."""

    support: SupportKind
    modality: Modality
    places: Int[Tensor, " K"]
    """Counted through the rows of the batch."""
    sources: Int[Tensor, " K"]
    """Where the network's states of these places are, counted through the sequences that it runs over."""

    def to(self, device: torch.device) -> "Scored":
        """The same on another device."""
        return replace(self, places=self.places.to(device), sources=self.sources.to(device))


@dataclass(frozen=True, kw_only=True, slots=True)
class Hidden:
    """A batch of which some targets are hidden."""

    batch: Batch
    xt: Int[Tensor, "B S"]
    """What the network sees."""
    weights: Float[Tensor, "B S"]
    """What each place weighs, before it is divided."""
    counted: Bool[Tensor, "B S"]
    """Hidden places that figures are about: all but filler."""
    divisors: Mapping[str, float]
    """What the weights of a task are divided by, summed over this batch; see `loss`."""
    scored: tuple[Scored, ...]
    """The places with a weight, found here so that the device is never waited for."""
    weight: float
    """Sum of the weights."""
    divided_by: tuple[str, ...]
    """The divisor of each row."""
    is_full: bool
    """Whether every place is attended to, so that no mask is needed."""
    plan: Packing | None = None
    """Where the network runs over packed sequences."""

    def to(self, device: torch.device) -> "Hidden":
        """The same on another device."""
        tensors: dict[str, Any] = {name: getattr(self, name).to(device) for name in ("xt", "weights", "counted")}
        scored = tuple(group.to(device) for group in self.scored)
        plan = self.plan and self.plan.to(device)
        return replace(self, batch=self.batch.to(device), scored=scored, plan=plan, **tensors)


@dataclass(frozen=True, kw_only=True, slots=True)
class Loss:
    """The loss of one batch and what it was made of."""

    total: Float[Tensor, ""]
    """Sum of weighted cross-entropies."""
    weight: float
    """Sum of the weights."""
    tasks: tuple[str, ...]
    """Of the rows."""
    sums: Float[Tensor, "B 3"]
    """Of each row's counted places: what they lost, how many were right, how many there are."""

    @property
    def tallies(self) -> dict[str, Tally]:
        """The same by task; waits for the device."""
        tallies: dict[str, Tally] = {}
        for task, (entropy, right, count) in zip(self.tasks, self.sums.tolist(), strict=False):
            add_tallies(tallies, {task: Tally(entropy=entropy, right=int(right), count=int(count))})
        return tallies


class Objective:
    """Masked cross-entropy over the ids that a place allows."""

    def __init__(self, vocabulary: Vocabulary, config: ObjectiveConfig, pack_length: int = 0) -> None:
        """Choose the losses; with a `pack_length`, the network runs over packed sequences of so many places."""
        self.vocabulary = vocabulary
        self.config = config
        self.pack_length = pack_length
        self._supports: dict[tuple[SupportKind, Modality], Support] = {}

    def __call__(self, model: Transformer, batch: Batch, *, generator: torch.Generator) -> Loss:
        """The loss of one batch, its weights undivided."""
        return self.loss(model, self.hide(batch, generator=generator), {})

    def hide(self, batch: Batch, *, generator: torch.Generator) -> Hidden:
        """Draw what is hidden in a batch whose targets are known, on the batch's device."""
        rules = self._rules(batch)
        xt, is_hidden, is_visible, prob = self._corrupt(batch, generator)
        is_filler = self._filler(batch)
        weights, divisors = self._weights(batch, is_hidden, is_visible, is_filler, prob)
        tasks = zip(batch.tasks, rules, strict=False)
        plan = packing.plan(batch.attend, self.pack_length) if self.pack_length else None
        return Hidden(
            batch=batch,
            xt=xt,
            weights=weights,
            counted=is_hidden & ~is_filler,
            divisors=divisors,
            scored=self._scored(batch, weights > 0, plan),
            weight=float(weights.sum()),
            divided_by=tuple(ALL if rule.reduction == "positions" else task for task, rule in tasks),
            is_full=bool(batch.attend.all()),
            plan=plan,
        )

    def loss(self, model: Transformer, hidden: Hidden, divisors: Mapping[str, float]) -> Loss:
        """Run the network over a batch.

        Args:
            divisors: Those of all batches of the step, added up; empty leaves the weights undivided.
        """
        batch = hidden.batch
        if hidden.plan is not None:
            states = hidden.plan.run(model.hidden, hidden.xt, self.vocabulary.pad_id)
        else:
            states = model.hidden(hidden.xt, None if hidden.is_full else batch.attend)
        weights = hidden.weights * self._scales(hidden, divisors)[:, None] if divisors else hidden.weights
        total = states.new_zeros((), dtype=torch.float32)
        entropy = torch.zeros(batch.ids.numel(), device=batch.ids.device)
        right = torch.zeros_like(batch.is_target).flatten()
        ids, flat_states, flat_weights = batch.ids.flatten(), states.flatten(0, 1), weights.flatten()
        for group in hidden.scored:
            at, table = group.places, model.output.weight
            support, found = self._support(group.support, group.modality), flat_states.index_select(0, group.sources)
            part, entropy[at], right[at] = cross_entropy(
                found, table, ids[at], flat_weights[at], support, is_checked=True
            )
            total = total + part
        if not total.requires_grad and states.requires_grad:  # nothing is hidden: every process still goes back
            total = model.head(states[:1, :1], batch.ids[0, :1]).float().sum() * 0
        counted, shape = hidden.counted, batch.ids.shape
        told = (entropy.view(shape) * counted, right.view(shape) & counted, counted)
        sums = torch.stack([figure.sum(dim=1, dtype=torch.float32) for figure in told], dim=1)
        return Loss(total=total, weight=hidden.weight, tasks=batch.tasks, sums=sums)

    def _corrupt(
        self, batch: Batch, generator: torch.Generator
    ) -> tuple[Int[Tensor, "B S"], Bool[Tensor, "B S"], Bool[Tensor, "B S"], Float[Tensor, " B"]]:
        """Hidden ids; which places are hidden; which visible ones are scored; each row's probability to be hidden."""
        device = batch.ids.device
        times = stratified_times(len(batch.ids), generator=generator, device=device)
        is_grid = torch.zeros_like(batch.is_target)
        for modality in GRIDS:
            is_grid |= batch.kind == MODALITIES.index(modality)
        is_grid_row = (is_grid & batch.is_target).any(dim=1)
        shares = torch.where(
            is_grid_row, mask_prob(self.config.grid_schedule, times), mask_prob(self.config.stream_schedule, times)
        )
        is_by_chance = torch.tensor([rule.masking == "bernoulli" for rule in self._rules(batch)]).to(device)
        is_hidden = exact_count(batch.is_target, shares, generator=generator)
        if bool(is_by_chance.any()):
            chances = (1 - FLOOR) * times + FLOOR
            by_chance = bernoulli(batch.is_target, chances, generator=generator)
            is_hidden = torch.where(is_by_chance[:, None], by_chance, is_hidden)
            shares = torch.where(is_by_chance, chances, shares)
        xt = torch.where(is_hidden, self.vocabulary["mask"], batch.ids)
        if self.config.recipe == "published":
            return xt, is_hidden, torch.zeros_like(is_hidden), shares
        chosen = torch.rand(len(batch.ids), generator=generator, device=device) < self.config.correction_prob
        is_visible = batch.is_target & ~is_hidden & chosen[:, None]
        for index, modality in enumerate(MODALITIES):
            span = self.vocabulary.range_of(modality)
            is_code = (batch.ids >= span.start) & (batch.ids < span.stop)
            if bool((is_visible & (batch.kind == index)).any()):
                xt, _ = replace_at_random(
                    xt,
                    is_visible & is_code & (batch.kind == index),
                    self.config.replace_prob,
                    replacements=torch.arange(span.start, span.stop, device=device),
                    generator=generator,
                )
        return xt, is_hidden, is_visible, shares

    def _filler(self, batch: Batch) -> Bool[Tensor, "B S"]:
        """Which targets are end tokens after the first one."""
        is_eos = (batch.ids == self.vocabulary["eos"]) & batch.is_target
        is_end = is_eos | ((batch.ids == self.vocabulary["eoa"]) & batch.is_target)
        return is_eos & (is_end.cumsum(dim=1) > 1)

    def _weights(
        self,
        batch: Batch,
        is_hidden: Bool[Tensor, "B S"],
        is_visible: Bool[Tensor, "B S"],
        is_filler: Bool[Tensor, "B S"],
        prob: Float[Tensor, " B"],
    ) -> tuple[Float[Tensor, "B S"], dict[str, float]]:
        """What every place weighs, and what its task's weights are divided by."""
        rules = self._rules(batch)
        weights = is_hidden.float() + self.config.correction_weight * is_visible.float()
        if self.config.balance and self.config.recipe == "dynin":
            weights = weights * batch.is_target.sum(dim=1, keepdim=True).clamp(min=1) ** -self.config.balance
        fillers = torch.tensor([rule.filler_weight for rule in rules]).to(weights.device)
        weights = torch.where(is_filler, weights * fillers[:, None], weights)
        divisors: defaultdict[str, float] = defaultdict(float)
        sums = weights.sum(dim=1).tolist()
        for row, (task, rule) in enumerate(zip(batch.tasks, rules, strict=False)):
            if rule.reduction == "positions":
                divisors[ALL] += sums[row]
            elif rule.reduction == "answer":
                counts = batch.is_target[row] if rule.counts_filler else batch.is_target[row] & ~is_filler[row]
                weights[row] /= prob[row].clamp(min=LEAST_PROB) * counts.sum().clamp(min=1)
                divisors[task] += 1.0
            else:
                divisors[task] += float(is_hidden[row].sum())
                if rule.reduction == "masked_over_p":
                    weights[row] /= prob[row].clamp(min=LEAST_PROB)
        return weights, dict(divisors)

    def _rules(self, batch: Batch) -> list[Rule]:
        """The rule of every row: that of its picture or video, if it makes one, else of its first target."""
        makes = [((batch.kind == index) & batch.is_target).any(dim=1) for index in range(len(MODALITIES))]
        rules = [Rule()] * len(batch.ids)
        for row, (task, has) in enumerate(zip(batch.tasks, torch.stack(makes, dim=1).tolist(), strict=False)):
            made = [modality for modality, is_made in zip(MODALITIES, has, strict=True) if is_made]
            grids = [modality for modality in made if modality in GRIDS]
            rules[row] = self.config.rule(task, (grids or made or [Modality.TEXT])[0])
        return rules

    def _scales(self, hidden: Hidden, divisors: Mapping[str, float]) -> Float[Tensor, " B"]:
        """Coefficient over divisor of every row."""
        scales = [0.0] * len(hidden.batch.ids)
        for row, (task, name) in enumerate(zip(hidden.batch.tasks, hidden.divided_by, strict=True)):
            divisor = divisors.get(name, 0.0)
            scales[row] = self.config.coefficients.get(task, 1.0) / divisor if divisor else 0.0
        return torch.tensor(scales).to(hidden.weights.device)

    def _scored(self, batch: Batch, is_scored: Bool[Tensor, "B S"], plan: packing.Packing | None) -> tuple[Scored, ...]:
        """The scored places by what competes there.

        Raises:
            VocabularyError: If a target is not among the ids that its place allows.
        """
        groups = []
        sources = None if plan is None else plan.sources((batch.ids.shape[0], batch.ids.shape[1])).flatten()
        for index, modality in enumerate(MODALITIES):
            at = is_scored & (batch.kind == index)
            if not bool(at.any()):
                continue
            kinds = [self.config.rule(task, modality).support for task in batch.tasks]
            for kind in sorted(set(kinds)):
                rows = torch.zeros(len(batch.ids), dtype=torch.bool)
                rows[: len(kinds)] = torch.tensor([one == kind for one in kinds])
                here = at & rows.to(at.device)[:, None]
                places = here.flatten().nonzero()[:, 0]
                if len(places):
                    self._support(kind, modality).places(batch.ids.flatten()[places])
                    found = places if sources is None else sources[places]
                    groups.append(Scored(support=kind, modality=modality, places=places, sources=found))
        return tuple(groups)

    def _support(self, kind: SupportKind, modality: Modality) -> Support:
        """The ids that compete."""
        key = (kind, modality)
        if key not in self._supports:
            if kind == "all":
                ids = torch.arange(self.vocabulary.size)
            elif kind == "text":
                ids = torch.arange(self.vocabulary.image.start)
            else:
                ids = self.vocabulary.allowed_ids(modality, *ENDS.get(modality, ()))
                quirks = self.config.quirks
                if self.config.recipe == "published" and modality == Modality.SPEECH and quirks.spare_speech_rows:
                    ids = torch.cat([ids, torch.arange(self.vocabulary.speech.start, self.vocabulary.size)])
            self._supports[key] = Support.of(ids)
        return self._supports[key]


class LossModule(nn.Module):
    """Network and objective as one module, so that everything a step runs lies inside one `forward`."""

    def __init__(self, model: Transformer, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self.objective = objective

    def forward(self, hidden: Hidden, divisors: Mapping[str, float]) -> tuple[Float[Tensor, ""], Loss]:
        """The scalar to differentiate, and the rest."""
        loss = self.objective.loss(self.model, hidden, divisors)
        return loss.total, loss


def add_tallies(to: MutableMapping[str, Tally], more: Mapping[str, Tally]) -> None:
    """Add the sums of every task."""
    for task, tally in more.items():
        whole = to.setdefault(task, Tally())
        whole.entropy += tally.entropy
        whole.right += tally.right
        whole.count += tally.count
