"""Fast ways of tier M: the schedules that the embedded model was measured with, forced on networks with drawn weights.

Enters: docs/results/quality.json, which benchmarks/quality.py writes. Leaves: cases. Does not know how scores are made.

Drawn weights are sure of nothing: a rule that reveals what is sure would reveal one place a step. How quick a preset is
can only be measured on a trained model, where its score is measured too; here the plan reveals as many places a forward
pass as the preset did there, with the preset's own blocks and rules for memory and guidance, in bfloat16. The published
sampler beside it costs the same whatever its blocks: every pass is over the whole row.

    text, speech   tokens a forward: those of the preset, all rows of the suite that make text or speech together
    image          share of the exact way's passes, since the places of a picture are all open from the start

Of each row counts the quickest preset whose score is within one point of exact at 95% confidence, which may be exact.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from decoding_cases import CASES, FAMILIES, Case, Sizes, Way
from duel import ROOT

from dynin.decoding.policy import DecodingPolicy
from dynin.pipeline.policies import POLICIES
from dynin.pipeline.presets import PRESETS
from dynin.types import Modality

QUALITY = ROOT / "docs" / "results" / "quality.json"
ROWS: Mapping[str, tuple[Modality, tuple[str, ...]]] = {
    "text": (Modality.TEXT, ("i2t", "i2t_questions", "v2t", "v2t_questions", "t2t", "t2t_thinking", "s2t")),
    "image": (Modality.IMAGE, ("t2i", "s2i", "i2i")),
    "speech": (Modality.SPEECH, ("t2s", "i2s", "v2s", "s2s")),
}
"""Rows of the suite that make one modality alone."""
TARGETS: Mapping[str, tuple[float, float]] = {"text": (35, 65), "image": (12, 25), "speech": (18, 32)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Forced:
    """A schedule as it was measured."""

    preset: str
    """The one that most rows take."""
    tokens_per_forward: float
    columns_per_forward: float
    """Of the embedded model, both branches of guidance counted."""
    share_of_exact: float
    """Forward passes over those of exact."""
    rows: tuple[str, ...]


def measured(quality: Mapping[str, Any], family: str) -> Forced | None:
    """What the rows of a family say together; None where none was measured."""
    rows = [name for name in ROWS[family][1] if name in quality["rows"]]
    if not rows:
        return None
    chosen = {name: quality["rows"][name]["default"] for name in rows}
    told = {name: {**quality["rows"][name]["points"], **quality["rows"][name].get("confirmed", {})} for name in rows}
    points = [told[name][chosen[name]] for name in rows]
    exact = [told[name]["exact"] for name in rows]
    forwards = _sum(points, "forwards")
    return Forced(
        preset=Counter(chosen.values()).most_common(1)[0][0],
        tokens_per_forward=_sum(points, "tokens") / forwards,
        columns_per_forward=_sum(points, "columns") / forwards,
        share_of_exact=forwards / _sum(exact, "forwards"),
        rows=tuple(f"{name}: {point}" for name, point in chosen.items()),
    )


def _sum(points: Sequence[Mapping[str, float]], name: str) -> float:
    return sum(point[name] for point in points)


def policy_of(forced: Forced, family: str, sizes: Sizes) -> DecodingPolicy:
    """The preset's policy with a plan in the place of what it trusts, and the lengths of the tier."""
    modality = ROWS[family][0]
    task = {Modality.TEXT: "t2t", Modality.IMAGE: "t2i", Modality.SPEECH: "t2s"}[modality]
    found = PRESETS["embedded"].policy(forced.preset, task, modality) or POLICIES["embedded"][modality]
    block_len = min(found.block_len or sizes.num_new, sizes.num_new)
    num_blocks = math.ceil(sizes.num_new / block_len)
    if modality == Modality.IMAGE:
        num_steps = math.ceil(forced.share_of_exact * sizes.num_steps)
    else:
        num_steps = num_blocks * math.ceil(block_len / forced.tokens_per_forward)
    return replace(
        found,
        num_steps=num_steps,
        block_len=None if modality == Modality.IMAGE else block_len,
        max_len=None,
        temperature=sizes.temperature,
        guidance_scale=sizes.guidance_scale,
        guidance_every=found.guidance_every if sizes.guidance_scale > 0 else 1,
        commit=None,
        threshold=None,
        ahead=None,
        remask=None,
    )


def forced_cases(path: Path = QUALITY) -> dict[str, tuple[Case, Forced]]:
    """The fast ways, by name; none where quality was not measured."""
    if not path.exists():
        return {}
    quality = json.loads(path.read_text(encoding="utf-8"))
    cases = {}
    for family in FAMILIES:
        forced = measured(quality, family) if family in ROWS else None
        if forced is not None:
            cases[f"{family}-fast"] = (_case(family, forced), forced)
    return cases


def all_cases() -> dict[str, Case]:
    """Every case, the fast ways behind the others."""
    return {**CASES, **{name: case for name, (case, _) in forced_cases().items()}}


def _case(family: str, forced: Forced) -> Case:
    way = Way(policy=lambda sizes: policy_of(forced, family, sizes), dtype=torch.bfloat16)
    resolve_at, aim = TARGETS[family]
    return Case(family=family, way=way, resolve_at=resolve_at, aim=aim)
