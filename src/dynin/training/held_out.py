"""Losses on rows that no training has seen: what a stage has learned or forgotten, before any picture is drawn.

Enters: a model, names of `data.variants.DRAWN`, a shard of held-out speech. Leaves: loss and accuracy of each name.
Does not know decoding or judges.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from dynin.pipeline.dynin import Dynin
from dynin.sequence.batch import pack
from dynin.training.config import TrainConfig
from dynin.training.objective import Objective, ObjectiveConfig, Tally, add_tallies
from dynin.training.run import mixture_of
from dynin.vocabulary import EMBEDDED

TOKENS_PER_BATCH = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOutLoss:
    """Of one name."""

    loss: float
    """Mean cross-entropy over hidden places, in nats."""
    accuracy: float
    """Share of hidden places whose true id is the likeliest."""
    places: int
    """Hidden places that were counted."""


@torch.no_grad()
def losses(
    model: Dynin, names: Sequence[str], *, rows: int, seed: int, speech_shard: str = "", long_speech_shard: str = ""
) -> dict[str, HeldOutLoss]:
    """Hide places of held-out rows as training does, nothing replaced, and compare.

    Args:
        rows: Of each name; equal seeds give equal rows and equal hidden places for every model with this text
            tokenizer.
        speech_shard: Made with `dynin data speech --split held_out`; needed by names with sounds.

    Raises:
        VocabularyError: If the model has other ids than the embedded one, in which the rows are laid out.
        ConfigError: If a name is unknown, or a shard is missing.
    """
    EMBEDDED.require_equal(model.vocabulary)
    config = TrainConfig(
        name="held out",
        steps=1,
        tasks=dict.fromkeys(names, 1.0),
        seed=seed,
        drop_prob=0.0,
        whole_prob=1.0,
        speech_shard=speech_shard,
        long_speech_shard=long_speech_shard,
    )
    mixture = mixture_of(config, model.tokenizers, "held_out")
    objective = Objective(EMBEDDED, ObjectiveConfig(correction_prob=0.0, filler_weight=1.0))
    device = next(model.model.parameters()).device
    found: dict[str, HeldOutLoss] = {}
    for name in names:
        tallies: dict[str, Tally] = {}
        batches = pack(mixture.rows_of(name, rows, step=0), pad_id=EMBEDDED.pad_id, tokens_per_batch=TOKENS_PER_BATCH)
        for place, batch in enumerate(batches):
            hidden = objective.hide(batch, generator=torch.Generator().manual_seed(seed + place))
            add_tallies(tallies, objective.loss(model.model, hidden.to(device), {}).tallies)
        (tally,) = tallies.values()
        count = max(1, tally.count)
        found[name] = HeldOutLoss(loss=tally.entropy / count, accuracy=tally.right / count, places=tally.count)
    return found
