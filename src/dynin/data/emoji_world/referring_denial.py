"""What is said of several things and true of none: all bananas where there is none, all dogs that move where all stay.

Enters: a `ReferringScene`, names and a numpy generator. Leaves: a `Claim` of the family "several" without targets. Does
not know: wording, pixels.
"""

from collections.abc import Sequence

import numpy as np

from dynin.data.emoji_world.referring_claim import (
    DEEDS,
    PLURAL_DEEDS,
    THING,
    Claim,
    Noun,
    by_name,
    claim_of,
    plural_truth,
    unique,
)
from dynin.data.emoji_world.referring_scene import ReferringScene
from dynin.data.emoji_world.referring_wording import CATEGORY, DOUBTFUL
from dynin.data.emoji_world.scene import RELATIONS

DENIED_SHARE = 0.3
"""Of what is said of a video: how often it is a deed of things that are there, where one can be denied."""
KIND_SHARE = 0.25
"""How often what is not there is a kind, such as animals, where one is not there."""


def deny_several(scene: ReferringScene, names: Sequence[str], generator: np.random.Generator) -> Claim:
    """Draw a claim.

    Args:
        names: Names of things that may be spoken of although they are not there.
    """
    denied = _denied(scene)
    if denied and generator.random() < DENIED_SHARE:
        return denied[int(generator.integers(len(denied)))]
    return _absent(scene, names, generator)


def _denied(scene: ReferringScene) -> list[Claim]:
    """Deeds of which it is clear that nothing of a name, or nothing at all, does them; none in a still."""
    if scene.num_frames == 1:
        return []
    groups = [(THING, list(range(len(scene.tracks)))), *by_name(scene).items()]
    return [
        claim_of("several", Noun(name=name), [], deed=deed)
        for name, members in groups
        if len(members) > 1
        for deed in PLURAL_DEEDS
        if all(plural_truth(scene, deed, index) is False for index in members)
    ]


def _absent(scene: ReferringScene, names: Sequence[str], generator: np.random.Generator) -> Claim:
    present = {track.name for track in scene.tracks}
    missing = [name for name in names if name not in present]
    kinds = [kind for kind in CATEGORY if not present & (CATEGORY[kind] | DOUBTFUL[kind])]
    forms = ("plain", "clause") if scene.num_frames == 1 else ("plain", "clause", "except", "both")
    form = forms[int(generator.integers(len(forms)))]
    one, two = (Noun(name=missing[int(at)]) for at in generator.choice(len(missing), size=2, replace=False))
    if form == "both":
        return claim_of("several", one, [], form=form, deed=_drawn(DEEDS, generator), other=two)
    if form == "except":
        return claim_of("several", one, [], form=form, deed=_drawn(DEEDS, generator))
    others = list(unique(scene).values())
    if form == "clause" and scene.num_frames > 1:
        return claim_of("several", one, [], form=form, deed=_drawn(PLURAL_DEEDS, generator))
    if form == "clause" and others:
        other = others[int(generator.integers(len(others)))]
        return claim_of("several", one, [], form=form, deed=_drawn(RELATIONS, generator), other=other)
    if kinds and generator.random() < KIND_SHARE:
        return claim_of("several", Noun(name=kinds[int(generator.integers(len(kinds)))]), [], form="plain")
    return claim_of("several", one, [], form="plain")


def _drawn(deeds: Sequence[str], generator: np.random.Generator) -> str:
    return deeds[int(generator.integers(len(deeds)))]
