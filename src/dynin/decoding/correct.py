"""Finding and replacing wrong ids in a canvas that is already complete, such as codes damaged on the way.

Enters: a canvas without hidden places, a target segment, a decoder. Leaves: the canvas with doubtful ids decoded anew,
which those were, and the denoiser calls spent. Does not know which ids were right.

    round:  hide 1 of k disjoint subsets -> how likely is each present id, given the others?   (k calls)
            hide the unlikely ones       -> decode them as usual                               (the policy's steps)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dynin.decoding.block import index_in
from dynin.decoding.canvas import Canvas, Segment, locate
from dynin.decoding.commit import choose_best
from dynin.decoding.decoder import ParallelDecoder
from dynin.decoding.noise import RANDOM, Noise
from dynin.decoding.query import Query, answering
from dynin.decoding.trace import Step
from dynin.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class CorrectionRule:
    """What counts as doubtful, and how hard to look."""

    num_subsets: int = 8
    """Disjoint subsets that are hidden one at a time; more see more context, at one denoiser call each."""
    ratio: float = 0.1
    """An id is doubtful when its probability is below this share of the likeliest id's."""
    max_fraction: float = 0.5
    """Largest share of a row's places that is replaced in one round, the most doubtful first."""
    num_rounds: int = 1
    """Rounds of looking and replacing."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.num_subsets < 2 or self.num_rounds < 1:
            raise ConfigError(f"{self.num_subsets} subsets, {self.num_rounds} rounds; expected at least 2 and 1")
        if not (0.0 < self.ratio <= 1.0 and 0.0 < self.max_fraction <= 1.0):
            raise ConfigError(f"ratio {self.ratio}, max_fraction {self.max_fraction}; expected numbers in (0, 1]")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Corrected:
    """A canvas after correction."""

    ids: Int[Tensor, "B S"]
    is_doubtful: Bool[Tensor, "B S"]
    """Places that were decoded anew in any round, whether or not their id changed."""
    num_forwards: int
    """Denoiser calls, for looking and for decoding."""


def doubt(
    decoder: ParallelDecoder, canvas: Canvas, segment: Segment, num_subsets: int, noise: Noise
) -> Float[Tensor, "B S"]:
    """How much likelier, in nats, another id is than the present one, given all but one subset of the segment.

    0 where the present id is the likeliest; infinite where it is not allowed; minus infinity outside the segment.
    Makes `num_subsets` denoiser calls.
    """
    places = locate(segment.is_target)
    batch, width = places.columns.shape
    length = canvas.ids.shape[1]
    present = canvas.ids.gather(1, places.columns)
    row_of_place = torch.arange(batch, device=present.device).repeat_interleave(width)
    ordinal = torch.arange(width, device=present.device).repeat(batch)
    order = noise.begin(batch, present.device).at(0, row_of_place, ordinal, RANDOM).one().view(batch, width)
    subset = order.masked_fill(~places.is_valid, 2.0).argsort(dim=1).argsort(dim=1) % num_subsets
    measured = torch.full((batch, width), -torch.inf, device=present.device)
    answer = answering(decoder.denoiser)
    for which in range(num_subsets):
        is_hidden = (subset == which) & places.is_valid
        ids = canvas.ids.scatter(1, places.columns, present.masked_fill(is_hidden, decoder.mask_id))
        place = is_hidden.flatten().nonzero().squeeze(1)
        position = (place // max(width, 1)) * length + places.columns.flatten()[place]
        query = Query(
            ids=ids,
            attend=canvas.attend,
            rows=position,
            allowed=segment.allowed_ids,
            counts=None,
            keys=tuple(range(batch)),
            is_guided=False,
            segment=segment.name,
            segment_index=0,
            block=which,
            step=0,
            span=(0, width),
            window=places,
        )
        logits = answer(query).float()
        chosen = logits.gather(1, index_in(segment.allowed_ids, present.flatten()[place])[:, None]).squeeze(1)
        measured.view(-1)[place] = logits.amax(dim=1) - chosen
    if segment.allowed_ids is not None:
        is_foreign = ~torch.isin(present, segment.allowed_ids) & places.is_valid
        measured = measured.masked_fill(is_foreign, torch.inf)
    return torch.full(canvas.ids.shape, -torch.inf, device=present.device).scatter(1, places.columns, measured)


@torch.no_grad()
def correct(
    decoder: ParallelDecoder,
    canvas: Canvas,
    segment: Segment,
    rule: CorrectionRule,
    *,
    generator: torch.Generator | Sequence[torch.Generator],
    observer: Callable[[Step], None] | None = None,
) -> Corrected:
    """Replace the doubtful ids of a complete segment; every other id stays.

    Args:
        canvas: Without hidden places. Where the segment's policy has guidance, with unconditional ids.
        segment: Its policy decodes the doubtful places; stop ids and growth are ignored.

    Source:
        Leave-out scoring with the denoiser itself; compare ReMDM, arXiv:2503.00307, and WINO, arXiv:2507.18578.
    """
    noise = Noise(generator)
    policy = replace(segment.policy, max_len=None)
    ids = canvas.ids
    is_doubtful = torch.zeros_like(segment.is_target)
    quota = (segment.is_target.sum(dim=1) * rule.max_fraction).floor().to(torch.int64)
    bar = -torch.tensor(rule.ratio).log()
    num_forwards = 0
    for _ in range(rule.num_rounds):
        measured = doubt(decoder, replace(canvas, ids=ids), segment, rule.num_subsets, noise)
        num_forwards += rule.num_subsets
        chosen = choose_best(measured.masked_fill(measured <= bar.to(measured.device), -torch.inf), quota)
        hidden = replace(canvas, ids=ids.masked_fill(chosen, decoder.mask_id))
        again = replace(segment, is_target=chosen, policy=policy, stop_ids=())
        decoded = decoder.run(hidden, [again], generator=generator, observer=observer)
        ids = decoded.ids
        num_forwards += decoded.num_forwards
        is_doubtful |= chosen
    return Corrected(ids=ids, is_doubtful=is_doubtful, num_forwards=num_forwards)
