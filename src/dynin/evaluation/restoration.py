"""How well a model repairs its own canvases: a tenth of the codes is replaced at random, then corrected.

Enters: a model, a task, a seed. Leaves: the share of replaced codes that come back exactly. Does not know what the
codes show. The model is told nothing of which codes were replaced.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dynin.data.emoji_world.world import EmojiWorld
from dynin.data.rows import RowMaker
from dynin.decoding.canvas import Canvas, Segment
from dynin.decoding.correct import CorrectionRule, correct
from dynin.decoding.decoder import ParallelDecoder
from dynin.decoding.policy import DecodingPolicy
from dynin.diffusion.corrupt import exact_count
from dynin.evaluation.report import Score, share
from dynin.pipeline.denoiser import TransformerDenoiser
from dynin.pipeline.dynin import Dynin
from dynin.sequence.batch import stack
from dynin.sequence.layout import Assembler

TASKS = ("t2i", "i2i", "t2v", "i2t")
"""Tasks whose examples need no voice."""
STEPS = 8
"""Denoiser calls in which the doubtful codes of a round are decoded anew."""
DAMAGE = 0.1
"""Share of a target's codes that is replaced."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Damaged:
    """A batch of complete rows, some of whose target codes were replaced."""

    ids: Int[Tensor, "B S"]
    """With the replacements."""
    truth: Int[Tensor, "B S"]
    attend: Bool[Tensor, "B S"]
    is_target: Bool[Tensor, "B S"]
    is_replaced: Bool[Tensor, "B S"]
    """Only where the replacement differs from the truth."""


def damaged(model: Dynin, task: str, *, seed: int, count: int) -> Damaged:
    """Held-out examples of a task as complete rows, a tenth of whose codes was drawn anew."""
    world = EmojiWorld(seed, "held_out")
    maker = RowMaker(
        assembler=Assembler(vocabulary=model.vocabulary, encode_text=model.tokenizers.text.encode),
        tasks=model.tasks,
        image=model.tokenizers.image,
        whole_prob=1.0,
    )
    examples = [world.example(task, index) for index in range(count)]
    rows = maker.rows(examples, np.random.default_rng(seed), drop_prob=0.0)
    batch = stack(rows, pad_id=model.vocabulary.pad_id)
    span = model.vocabulary.range_of(model.tasks[task].targets[0])
    is_code = batch.is_target & (batch.ids >= span.start) & (batch.ids < span.stop)
    generator = torch.Generator().manual_seed(seed)
    is_chosen = exact_count(is_code, torch.full((count,), DAMAGE), generator=generator)
    used = torch.unique(batch.ids[is_code])
    drawn = used[torch.randint(len(used), batch.ids.shape, generator=generator)]
    ids = torch.where(is_chosen, drawn, batch.ids)
    return Damaged(
        ids=ids,
        truth=batch.ids,
        attend=batch.attend,
        is_target=batch.is_target,
        is_replaced=ids != batch.ids,
    )


def restoration(model: Dynin, task: str, *, seed: int, count: int = 200, rule: CorrectionRule | None = None) -> Score:
    """The share of replaced codes restored exactly; beside it, the share of the others that stayed as they were.

    Args:
        rule: How doubtful codes are found; None takes 8 subsets and three rounds.
    """
    rows = damaged(model, task, seed=seed, count=count)
    device = model.model.embed.weight.device
    modality = model.tasks[task].targets[0]
    segment = Segment(
        name=str(modality),
        is_target=rows.is_target.to(device),
        allowed_ids=model.vocabulary.allowed_ids(modality, *model.tasks[task].ends.get(modality, ())).to(device),
        policy=DecodingPolicy(num_steps=STEPS),
    )
    fixed = correct(
        ParallelDecoder(TransformerDenoiser(model.model), model.vocabulary["mask"]),
        Canvas(ids=rows.ids.to(device), attend=rows.attend.to(device)),
        segment,
        rule or CorrectionRule(num_rounds=3),
        generator=torch.Generator().manual_seed(seed),
    )
    ids = fixed.ids.cpu()
    restored = (ids == rows.truth)[rows.is_replaced]
    kept = (ids == rows.truth)[rows.is_target & ~rows.is_replaced]
    beside = {
        "others_kept": float(kept.float().mean()),
        "examples": float(count),
        "forwards": float(fixed.num_forwards),
    }
    return share("replaced codes restored exactly", restored.tolist(), beside)
