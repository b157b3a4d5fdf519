"""The settings that benchmarks/quality.py compares: names, and what each changes in a model's policy.

Enters: a policy. Leaves: another. Does not know models.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from dynin.decoding.parallel import Apart, CommitRule, EntropyBound, Factor, Joint, Threshold
from dynin.decoding.policy import Ahead, DecodingPolicy
from dynin.decoding.refresh import Refresh
from dynin.decoding.remask import VerifyRemask
from dynin.types import Modality

Change = Callable[[DecodingPolicy], DecodingPolicy]


def steps(share: float) -> Change:
    """The same plan in fewer steps."""
    return lambda policy: replace(policy, num_steps=max(1, round(policy.num_steps * share)))


def rule(commit: CommitRule, **more: object) -> Change:
    """Reveal what a rule trusts, beyond one place a step."""
    return lambda policy: replace(policy, commit=commit, **more)  # type: ignore[arg-type]


def change(**fields: object) -> Change:
    """Some fields of the policy."""
    return lambda policy: replace(policy, **fields)  # type: ignore[arg-type]


_BLOCK = Refresh(per_block=True)
_BLOCKS: Mapping[str, Change] = {
    **{f"steps {share}": steps(share) for share in (0.5, 0.25, 0.125)},
    **{f"threshold {bar}": rule(Threshold(bar=bar)) for bar in (0.99, 0.95, 0.9, 0.8, 0.6, 0.4)},
    **{f"factor {factor}": rule(Factor(factor=factor)) for factor in (0.5, 1.0, 2.0)},
    **{f"joint {bar}": rule(Joint(bar=bar)) for bar in (0.9, 0.7, 0.5)},
    **{f"entropy {bound}": rule(EntropyBound(bound=bound)) for bound in (0.02, 0.1, 0.5, 1.0, 2.0)},
    "wino 0.6": rule(Threshold(bar=0.6), remask=VerifyRemask(bar=0.5)),
    "cache block": change(refresh=Refresh(per_block=True)),
    "cache block near 16": change(refresh=Refresh(per_block=True, vicinity=16)),
    "cache block near 4": change(refresh=Refresh(per_block=True, vicinity=4)),
    "cache every 4": change(refresh=Refresh(every=4)),
    "cache every 2": change(refresh=Refresh(every=2)),
    "cache drift 4": change(refresh=Refresh(per_block=True, drift=4.0)),
    "cache none": change(refresh=Refresh()),
    "ahead 0.95": rule(Threshold(bar=0.9), ahead=Ahead(bar=0.95)),
    **{
        f"entropy {bound} cache block": rule(EntropyBound(bound=bound), refresh=_BLOCK, early_stop=True)
        for bound in (0.02, 0.05, 0.1)
    },
    **{
        f"threshold {bar} cache block": rule(Threshold(bar=bar), refresh=_BLOCK, early_stop=True)
        for bar in (0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
    },
    "entropy 0.05 cache block near 16": rule(
        EntropyBound(bound=0.05), refresh=Refresh(per_block=True, vicinity=16), early_stop=True
    ),
    **{
        f"entropy {bound} early stop": rule(EntropyBound(bound=bound), early_stop=True) for bound in (0.005, 0.02, 0.05)
    },
    "early stop": change(early_stop=True),
    "entropy 0.05 cache block ahead 0.98": rule(
        EntropyBound(bound=0.05), refresh=_BLOCK, early_stop=True, ahead=Ahead(bar=0.98)
    ),
}
_LATE = (0.5, 1.0)
_GRIDS: Mapping[str, Change] = {
    **{f"steps {share}": steps(share) for share in (0.75, 0.5, 0.375, 0.25)},
    **{f"entropy {bound}": rule(EntropyBound(bound=bound)) for bound in (0.02, 0.1, 0.3, 1.0, 2.0)},
    **{f"joint {bar}": rule(Joint(bar=bar)) for bar in (0.9, 0.7)},
    **{f"halton steps {share}": lambda p, s=share: replace(steps(s)(p), order="halton") for share in (1.0, 0.5, 0.25)},  # type: ignore[misc]
    "arccos steps 0.5": lambda policy: replace(steps(0.5)(policy), schedule="arccos"),
    "cosine steps 0.5": lambda policy: replace(steps(0.5)(policy), schedule="cosine"),
    "guidance off early": change(guidance_interval=(0.5, 1.0)),
    "guidance off late": change(guidance_interval=(0.0, 0.5)),
    "guidance omits": change(guidance_omits=True),
    "guidance every 2": change(guidance_every=2),
    "guidance every 4": change(guidance_every=4),
    **{
        f"entropy {bound} off early": rule(EntropyBound(bound=bound), guidance_interval=_LATE)
        for bound in (0.02, 0.05, 0.1)
    },
    **{
        f"entropy {bound} off early cache every {every}": rule(
            EntropyBound(bound=bound), guidance_interval=_LATE, refresh=Refresh(every=every)
        )
        for bound in (0.02, 0.05, 0.1)
        for every in (2, 3)
    },
    **{
        f"entropy {bound} cache every {every}": rule(EntropyBound(bound=bound), refresh=Refresh(every=every))
        for bound in (0.02, 0.05)
        for every in (2, 3)
    },
    **{
        f"entropy {bound} rests cache every 2": rule(
            EntropyBound(bound=bound), guidance_every=2, refresh=Refresh(every=2)
        )
        for bound in (0.002, 0.005, 0.01, 0.02, 0.05)
    },
    "no guidance": change(guidance_scale=0.0),
    "cache every 2": change(refresh=Refresh(every=2)),
    "cache every 4": change(refresh=Refresh(every=4)),
    "cache every 4 near 4": change(refresh=Refresh(every=4, vicinity=4)),
    "cache drift 2": change(refresh=Refresh(drift=2.0)),
    "cache none": change(refresh=Refresh()),
}

POINTS: Mapping[Modality, Mapping[str, Change]] = {
    Modality.TEXT: _BLOCKS,
    Modality.IMAGE: _GRIDS,
    Modality.VIDEO: _GRIDS,
    Modality.SPEECH: {
        **_BLOCKS,
        **{f"entropy {bound}": rule(EntropyBound(bound=bound)) for bound in (4.0, 8.0, 16.0)},
        **{
            f"entropy {bound} cache block{name}": rule(
                EntropyBound(bound=bound), refresh=refresh, early_stop=True, sampling="inverse", temperature=temperature
            )
            for bound in (1.0, 2.0, 4.0, 8.0)
            for refresh, every in ((_BLOCK, ""), (Refresh(per_block=True, every=4), " every 4"))
            for temperature, heat in ((0.5, ""), (0.25, " cool"), (0.0, " cold"))
            for name in (every + heat,)
        },
        **{
            f"{name} apart {gap} cache block": rule(
                Apart(rule=trusts, gap=gap), refresh=_BLOCK, early_stop=True, sampling="inverse"
            )
            for name, trusts in (
                ("entropy 8.0", EntropyBound(bound=8.0)),
                *((f"threshold {bar}", Threshold(bar=bar)) for bar in (0.05, 0.1, 0.2, 0.3, 0.5)),
            )
            for gap in (1, 2, 3)
        },
        "cold": change(temperature=0.0),
        "cool": change(temperature=0.25),
    },
}
"""What is tried for each modality that is made, besides the presets."""
