"""Stills to refer to: things in one frame, several of which look alike, and what can be said of where they are.

Enters: names, a split and a numpy generator. Leaves: scenes of one frame, and their claims by family. Does not know:
wording, pixels, motions.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from dynin.data.emoji_world import referring_facts as facts
from dynin.data.emoji_world.referring_claim import (
    FAMILIES,
    Claim,
    Family,
    Noun,
    alike_groups,
    by_name,
    claim_of,
    noun_of,
    plain,
    plain_several,
    single,
    unique,
)
from dynin.data.emoji_world.referring_facts import CLEAR, Truth
from dynin.data.emoji_world.referring_motion import SIDES, Freedom, draw_path
from dynin.data.emoji_world.referring_scene import ReferringScene, Track, cover, exposure
from dynin.data.emoji_world.scene import BACKGROUNDS, RELATIONS, Size
from dynin.data.emoji_world.splits import Split, is_background_held_out

_AXIS = {"left of": 0, "right of": 0, "above": 1, "below": 1}
_SIGN = {"left of": -1, "right of": 1, "above": -1, "below": 1}
_OUTERMOST = {"leftmost": (0, 1), "rightmost": (0, -1), "highest": (1, 1), "lowest": (1, -1)}
"""Axis, and the sign with which the outermost thing has the least place on it."""

LEAST_EXPOSURE = 0.6
MOST_TRIES = 40


def draw_still(names: Sequence[str], split: Split, generator: np.random.Generator) -> ReferringScene:
    """Draw things that look alike, others, and a background, until they fit and belong to the split.

    In training no thing lies on a background that is held out for it; among the held out at least one does.
    """
    while True:
        background = tuple(BACKGROUNDS)[int(generator.integers(len(BACKGROUNDS)))]
        kinds = _draw_kinds(names, generator)
        is_held_out = any(is_background_held_out(name, background) for name, _ in kinds)
        tracks = _place(kinds, generator) if is_held_out == (split == "held_out") else None
        if tracks is None:
            continue
        look = int(generator.integers(2**32))
        scene = ReferringScene(tracks=tracks, bar=None, background=background, drift=np.zeros((1, 2)), look=look)
        if all(exposure(scene, index) >= LEAST_EXPOSURE for index in range(len(tracks))):
            return scene


def _draw_kinds(names: Sequence[str], generator: np.random.Generator) -> list[tuple[str, Size]]:
    """Names and sizes: two to four of one kind, and one to three others."""
    num_alike = int(generator.integers(2, 5))
    alike = names[int(generator.integers(len(names)))]
    size: Size = "small" if num_alike == 4 or generator.random() < 0.5 else "large"
    kinds: list[tuple[str, Size]] = [(alike, size)] * num_alike
    num_others = int(generator.integers(1, min(3, 6 - num_alike) + 1))
    others = [name for name in names if name != alike]
    for place in generator.choice(len(others), size=num_others, replace=False).tolist():
        other_size: Size = "small" if generator.random() < 0.6 else "large"
        is_twin = other_size != size and generator.random() < 0.25
        kinds.append((alike if is_twin else others[place], other_size))
    return kinds


def _place(kinds: Sequence[tuple[str, Size]], generator: np.random.Generator) -> tuple[Track, ...] | None:
    placed: list[Track] = []
    for name, size in kinds:
        for _ in range(MOST_TRIES):
            path = draw_path("still", None, Freedom(num_frames=1, side=SIDES[size]), generator)
            track = Track(name=name, size=size, motion="still", heading=None, path=path)
            if all(_fits(track, other) for other in placed):
                placed.append(track)
                break
        else:
            return None
    return tuple(placed[int(index)] for index in generator.permutation(len(placed)))


def _fits(track: Track, other: Track) -> bool:
    """Look-alikes keep apart; others may cover a part of each other."""
    if track.name == other.name:
        apart = np.abs(track.path.centres - other.path.centres).max()
        return bool(apart >= (track.side + other.side) / 2)
    return max(float(cover(track, other)[0]), float(cover(other, track)[0])) <= 0.35


def lies(relation: str, one: Track, other: Track) -> Truth:
    """Whether one thing lies left of, right of, above or below another; None on the diagonal."""
    lead = _SIGN[relation] * (one.path.centres[0] - other.path.centres[0])
    along, across = float(lead[_AXIS[relation]]), abs(float(lead[1 - _AXIS[relation]]))
    if along < 0.02:
        return False
    return True if along > CLEAR and along > 1.2 * across else None


def still_claims(scene: ReferringScene) -> dict[Family, list[Claim]]:
    """All that can be said of a still, by family; there is neither motion nor reasoning over time."""
    made: dict[Family, list[Claim]] = {family: [] for family in FAMILIES}
    made["static"] = list(plain(scene))
    made["several"] = list(plain_several(scene))
    for group in alike_groups(scene):
        made["static"] += _outermost(scene, group)
        made["relation"] += _relations(scene, group)
        made["several"] += _related(scene, group)
    made["none"] = list(_nothing(scene))
    return made


def _outermost(scene: ReferringScene, group: list[int]) -> Iterator[Claim]:
    for deed, (axis, sign) in _OUTERMOST.items():
        places = [sign * float(scene.tracks[index].path.centres[0, axis]) for index in group]
        target = facts.first(group, places, CLEAR)
        if target is not None:
            yield claim_of("static", noun_of(scene, target), [target], deed=deed)


def _relations(scene: ReferringScene, group: list[int]) -> Iterator[Claim]:
    noun = noun_of(scene, group[0])
    for other, other_noun in unique(scene).items():
        for relation in RELATIONS:
            truths = {index: lies(relation, scene.tracks[index], scene.tracks[other]) for index in group}
            yield from single("relation", noun, truths, deed=relation, other=other_noun)
        place = scene.tracks[other].path.centres[0]
        away = [float(np.linalg.norm(scene.tracks[index].path.centres[0] - place)) for index in group]
        ends = {"nearest": away, "farthest": [-distance for distance in away]}
        for deed, distances in ends.items():
            target = facts.first(group, distances, CLEAR)
            if target is not None:
                yield claim_of("relation", noun, [target], deed=deed, other=other_noun)


def _related(scene: ReferringScene, group: list[int]) -> Iterator[Claim]:
    """Some of several look-alikes, by where they lie."""
    name = scene.tracks[group[0]].name
    members = by_name(scene)[name]
    for other, other_noun in unique(scene).items():
        if other in members:
            continue
        for relation in RELATIONS:
            truths = [lies(relation, scene.tracks[index], scene.tracks[other]) for index in members]
            true = [index for index, truth in zip(members, truths, strict=True) if truth]
            if None not in truths and 1 < len(true) < len(members):
                yield claim_of("several", Noun(name=name), true, deed=relation, other=other_noun)


def _nothing(scene: ReferringScene) -> Iterator[Claim]:
    """Relations that hold for none of the things of a kind."""
    groups: dict[Noun, list[int]] = {}
    for index in range(len(scene.tracks)):
        groups.setdefault(noun_of(scene, index), []).append(index)
    for noun, group in groups.items():
        for other, other_noun in unique(scene).items():
            if other in group:
                continue
            for relation in RELATIONS:
                if all(lies(relation, scene.tracks[index], scene.tracks[other]) is False for index in group):
                    yield claim_of("none", noun, [], deed=relation, other=other_noun)
