"""The published sampler of speech in blocks.

Enters: rows with hidden places at their ends, settings, a pass over whole sequences. Leaves: the rows filled. Does not
know the sampler that fills all places at once, which is `oracle_grid` with `end_ids` and no suffix.

Source:
    Dynin-Omni `t2s_generate_mmu_like`.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dynin.testing.oracle import Forward, Observer, OracleStep, noise_state, pairs, reveal, transfer_counts


@dataclass(frozen=True, kw_only=True, slots=True)
class SpeechSettings:
    """What the sampler is told."""

    mask_id: int
    first_id: int
    num_codes: int
    end_ids: tuple[int, ...]
    """The end of audio and of text, the classes that follow the codes."""
    max_new: int = 256
    num_steps: int = 256
    block_len: int = 128
    temperature: float = 0.0
    """Divides the logits where it is above 0; classes are drawn at random in any case."""
    guidance_scale: float = 0.0


@torch.no_grad()
def decode_speech(
    forward: Forward,
    ids: Int[Tensor, "B S"],
    attend: Bool[Tensor, "B S"],
    settings: SpeechSettings,
    *,
    generator: torch.Generator,
    observer: Observer | None = None,
) -> Int[Tensor, "B S"]:
    """The rows with their hidden places filled.

    Raises:
        ValueError: If no place is hidden, or rows hide different numbers of places.

    Parity:
        Q5: guidance hides the speech made so far from the other branch, which keeps the text. Q12: nothing stops at an
        end.
    """
    start, num = _hidden_span(ids, settings)
    block_len = max(1, min(settings.block_len, num))
    num_blocks = math.ceil(num / block_len)
    steps = max(1, settings.num_steps // num_blocks)
    x = ids.clone()
    may_attend = pairs(attend)
    class_ids = torch.arange(settings.first_id, settings.first_id + settings.num_codes, device=ids.device)
    class_ids = torch.cat([class_ids, torch.tensor(settings.end_ids, device=ids.device)])
    taken = 0
    for block in range(num_blocks):
        span = slice(start + block * block_len, start + min((block + 1) * block_len, num))
        counts = transfer_counts(x[:, span] == settings.mask_id, steps)
        for step in range(steps):
            is_masked = x[:, span] == settings.mask_id
            if not bool(is_masked.any()):
                break
            logits = _classes(_logits(forward, x, (start, num), may_attend, settings), span, settings)  # B N A
            if settings.temperature > 0:
                logits = logits / settings.temperature
            probs = F.softmax(logits, dim=-1)
            state = noise_state(generator) if observer is not None else None
            drawn = torch.multinomial(probs.reshape(-1, probs.shape[-1]), 1, generator=generator)
            choice = drawn.view(is_masked.shape)
            rank = torch.gather(probs, -1, choice[..., None]).squeeze(-1)
            rank = torch.where(is_masked, rank, -torch.inf)
            is_committed = reveal(rank, counts[:, step])
            if observer is not None:
                observer(
                    OracleStep(
                        index=taken,
                        ids=x,
                        span=(span.start, span.stop),
                        class_ids=class_ids,
                        perturbed=probs,
                        is_ratio=True,
                        choice=choice,
                        rank=rank,
                        is_log_rank=False,
                        is_committed=is_committed & is_masked,
                        noise_state=state,
                    )
                )
            x[:, span] = torch.where(is_committed & is_masked, class_ids[choice], x[:, span])
            taken += 1
    return x


def speech_codes(
    ids: Int[Tensor, "B S"], is_speech: Bool[Tensor, "B S"], settings: SpeechSettings
) -> list[Int[Tensor, " N"]]:
    """The codes of each row up to its first end, without what is still hidden."""
    answers = []
    for row, columns in zip(ids, is_speech, strict=True):
        classes = row[columns]
        classes = classes[classes != settings.mask_id] - settings.first_id
        ends = ((classes < 0) | (classes >= settings.num_codes)).nonzero()
        answers.append(classes[: int(ends[0])] if len(ends) else classes)
    return answers


def _hidden_span(ids: Tensor, settings: SpeechSettings) -> tuple[int, int]:
    """First column and number of the places to fill, by the first row."""
    is_hidden = ids == settings.mask_id
    counts = is_hidden.sum(dim=1)
    if int(counts[0]) == 0 or not bool((counts == counts[0]).all()):
        raise ValueError(f"rows hide {counts.tolist()} places; the sampler needs the same number in each, at least 1")
    start = int(is_hidden[0].nonzero()[0])
    return start, min(settings.max_new, int(counts[0]))


def _logits(
    forward: Forward, x: Tensor, where: tuple[int, int], may_attend: Tensor, settings: SpeechSettings
) -> Float[Tensor, "B S V"]:
    """Of every position over every id; under guidance of two rows, the second without any speech."""
    if settings.guidance_scale <= 0:
        return forward(x, may_attend)
    start, num = where
    silent = x.clone()
    silent[:, start : start + num] = settings.mask_id
    both = forward(torch.cat([x, silent]), torch.cat([may_attend, may_attend]))
    first, second = torch.chunk(both, 2, dim=0)
    return (1 + settings.guidance_scale) * first - settings.guidance_scale * second


def _classes(logits: Tensor, span: slice, settings: SpeechSettings) -> Float[Tensor, "B N A"]:
    """Logits of the classes at the block's columns."""
    ends = [logits[..., end : end + 1] for end in settings.end_ids]
    codes = logits[..., settings.first_id : settings.first_id + settings.num_codes]
    return torch.cat([codes, *ends], dim=-1)[:, span]
