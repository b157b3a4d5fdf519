"""The published sampler of pictures, and of speech in one go: all places at once, some of them hidden again.

Enters: rows with hidden places, settings, a pass over whole sequences. Leaves: a class for each place. Does not know
blocks.

Source:
    Dynin-Omni `t2i_generate`, `i2i_generate`, `t2s_generate`, `t2s_fixed_generate`; MaskGIT, arXiv:2202.04200.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dynin.diffusion.schedule import mask_ratio
from dynin.testing.oracle import Forward, Observer, OracleStep, noise_state, pairs

_TINY = 1e-20


@dataclass(frozen=True, kw_only=True, slots=True)
class GridSettings:
    """What the sampler is told."""

    mask_id: int
    num_places: int
    """Places to fill: pictures have as many codes, speech as many units."""
    first_id: int
    num_classes: int
    """Ids [first_id, first_id + num_classes) may be chosen."""
    end_ids: tuple[int, ...] = ()
    """And these, as the classes that follow: speech alone has them."""
    suffix_len: int = 1
    """Columns behind the last place: a picture has its end marker there."""
    num_steps: int = 18
    guidance_scale: float = 0.0
    temperature: float = 1.0
    """Of the noise on what is kept; classes are always drawn at 1."""
    schedule: str = "cosine"
    prefix_len: int = 0
    """Columns of the unguided row that stay as they were given; those behind follow the guided row."""

    def to_ids(self, classes: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
        """Classes to ids."""
        return self.class_ids(classes.device)[classes]

    def class_ids(self, device: torch.device) -> Int[Tensor, " A"]:
        """The id of each class."""
        codes = torch.arange(self.first_id, self.first_id + self.num_classes, device=device)
        return torch.cat([codes, torch.tensor(self.end_ids, dtype=codes.dtype, device=device)])


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Rows:
    """What the sampler is given."""

    ids: Int[Tensor, "B S"]
    attend: Bool[Tensor, "B S"]
    uncond_ids: Int[Tensor, "B S"] | None = None
    uncond_attend: Bool[Tensor, "B S"] | None = None


@torch.no_grad()
def decode_grid(
    forward: Forward,
    rows: Rows,
    settings: GridSettings,
    *,
    generator: torch.Generator,
    observer: Observer | None = None,
) -> Int[Tensor, "B N"]:
    """The class drawn at each place.

    Parity:
        Q1: the published image sampler passes a prefix that is right for one length of prompts only; `prefix_len` is
        whatever the caller wants imitated. Q2: noise falls by a factor that is multiplied again and again. Q4: what
        ties with the cut is kept.
    """
    num, last = settings.num_places, rows.ids.shape[1] - settings.suffix_len
    span = (last - num, last)
    ids = rows.ids.clone()
    is_hidden = ids[:, slice(*span)] == settings.mask_id
    codes = torch.where(is_hidden, settings.mask_id, ids[:, slice(*span)] - settings.first_id)
    temperature = settings.temperature
    for step in range(settings.num_steps):
        logits = class_logits(_logits(forward, ids, rows, settings)[:, slice(*span)], settings)  # B N A
        probs = logits.softmax(dim=-1)
        state = noise_state(generator) if observer is not None else None
        drawn = torch.multinomial(probs.reshape(-1, probs.shape[-1]), 1, generator=generator)[:, 0]
        unknown = codes == settings.mask_id
        sampled = torch.where(unknown, drawn.view(codes.shape), codes)
        progress = (step + 1) / settings.num_steps
        kept_prob = torch.gather(probs, -1, sampled.long()[..., None]).squeeze(-1)
        kept_prob = torch.where(unknown, kept_prob, torch.finfo(kept_prob.dtype).max)
        num_hidden = (num * mask_ratio(settings.schedule, torch.tensor(progress))).floor().unsqueeze(0)
        num_hidden = torch.max(
            torch.tensor([1], device=ids.device),
            torch.min(unknown.sum(dim=-1, keepdim=True) - 1, num_hidden.to(ids.device)),
        )
        temperature = temperature * (1.0 - progress)
        rank = _noisy_log(kept_prob, temperature, generator)
        cut = torch.gather(torch.sort(rank, dim=-1).values, 1, num_hidden.long())
        is_masked = rank < cut
        if observer is not None:
            observer(
                OracleStep(
                    index=step,
                    ids=ids,
                    span=span,
                    class_ids=settings.class_ids(ids.device),
                    perturbed=probs,
                    is_ratio=True,
                    choice=sampled,
                    rank=torch.where(unknown, rank, -torch.inf),
                    is_log_rank=True,
                    is_committed=unknown if step + 1 == settings.num_steps else unknown & ~is_masked,
                    noise_state=state,
                )
            )
        ids[:, slice(*span)] = torch.where(is_masked, settings.mask_id, settings.to_ids(sampled))
        codes = torch.where(is_masked, settings.mask_id, sampled)
    return sampled


def class_logits(logits: Float[Tensor, "B N V"], settings: GridSettings) -> Float[Tensor, "B N A"]:
    """Logits of the classes out of those of all ids."""
    codes = logits[..., settings.first_id : settings.first_id + settings.num_classes]
    if not settings.end_ids:
        return codes
    return torch.cat([codes, *(logits[..., end : end + 1] for end in settings.end_ids)], dim=-1)


def _logits(forward: Forward, ids: Tensor, rows: Rows, settings: GridSettings) -> Float[Tensor, "B S V"]:
    """Of every position over every id; guidance mixes all of them."""
    if rows.uncond_ids is None or settings.guidance_scale <= 0:
        return forward(ids, pairs(rows.attend))
    cut = settings.prefix_len
    unconditional = torch.cat([rows.uncond_ids[:, :cut], ids[:, cut:]], dim=1)
    uncond_attend = rows.attend if rows.uncond_attend is None else rows.uncond_attend
    logits = forward(torch.cat([ids, unconditional]), pairs(torch.cat([rows.attend, uncond_attend])))
    first, second = torch.chunk(logits, 2, dim=0)
    return (1 + settings.guidance_scale) * first - settings.guidance_scale * second


def _noisy_log(probs: Float[Tensor, "B N"], temperature: float, generator: torch.Generator) -> Float[Tensor, "B N"]:
    """Logarithms plus Gumbel noise, in the dtype of the probabilities."""
    uniform = torch.zeros_like(probs).uniform_(0, 1, generator=generator)
    gumbel = -torch.log((-torch.log(uniform.clamp(_TINY))).clamp(_TINY))
    return torch.log(probs.clamp(_TINY)) + temperature * gumbel
